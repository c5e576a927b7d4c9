"""Explicit randomness: every draw has a generator seeded by (seed, purpose, index), so that order does not matter."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any parts that print the same everywhere (numbers and texts), joined by colons."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> "torch.Generator":
    """A torch generator on the CPU, whose stream is the same on every machine."""
    import torch

    return torch.Generator("cpu").manual_seed(seed_of(*parts))
