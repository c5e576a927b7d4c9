"""Checked rows without a check: what preprocessing, training and export read, made of noise."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darkroom.artifacts import CheckedManifest
from darkroom.quality.picture import working_path
from darkroom.store import Store, digest_of

Row = dict[str, Any]


def noise_row(store: Store, number: int, size: tuple[int, int], **fields: Any) -> Row:
    """A row and its working copy; ``size`` is (width, height). Every fourth is on the validation side."""
    width, height = size
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    identity = hashlib.sha256(f"picture {number}".encode()).hexdigest()
    path = working_path(store.root, identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
    return {
        "row_id": hashlib.sha256(f"row {number}".encode()).hexdigest(),
        "id": identity,
        "path": f"{number:03d}.png",
        "source": "noise",
        "origin": None,
        "licence": "CC0-1.0",
        "caption": f"noise {number}",
        "label": None,
        "bytes": path.stat().st_size,
        "width": width,
        "height": height,
        "alpha": 0.0,
        "working": identity,
        "converted": [],
        "split": "validation" if number % 4 == 3 else "train",
    } | fields


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def noise(store: Store) -> Callable[..., Row]:
    """``noise(number, (width, height), **fields)``: a row with its working copy in the store."""
    return lambda number, size, **fields: noise_row(store, number, size, **fields)


@pytest.fixture
def checked_of(store: Store) -> Callable[[Sequence[Row]], CheckedManifest]:
    """Rows -> a checked manifest in the store."""

    def make(rows: Sequence[Row]) -> CheckedManifest:
        def build(work: Path) -> None:
            pd.DataFrame(list(rows)).to_parquet(work / "checked.parquet")

        return store.get_or_build(CheckedManifest, digest_of(list(rows)), build, inputs={})

    return make
