"""The training and the validation split, without leakage."""

import hashlib


def side(cluster: str, seed: int, validation_share: float) -> str:
    """``"train"`` or ``"validation"`` for a cluster of duplicates.

    The answer depends on the cluster's name, the seed and the share alone: other pictures that come or go change no
    side, and all copies of a picture are on one side. ``validation_share`` is in [0, 1).
    """
    digest = hashlib.sha256(f"{seed}:{cluster}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") / 2**64 < validation_share else "train"
