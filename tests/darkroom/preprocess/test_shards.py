"""Shards: what training reads is what was accepted, and one changed picture rewrites one shard."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.errors import RecipeError
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import both_sides, load_side, preprocess, read_checked, read_index, resized
from darkroom.recipe import Preprocess
from darkroom.store import Store
from darkroom.weights.locate import locate

PLAN = Preprocess(size=16)
VAE = "builtin:digits-vae"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(30):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    lines = "\n".join(f'{{"file_name": "{index:02d}.png", "text": "noise {index}"}}' for index in range(30))
    (folder / "metadata.jsonl").write_text(lines)
    return folder


@pytest.fixture
def made(accepted_rows: Callable[..., CheckedManifest]) -> Callable[[Store, Path], tuple[CheckedManifest, Shards]]:
    """Makes the shards of a folder, past the expectations, which have tests of their own."""

    def make(store: Store, photos: Path) -> tuple[CheckedManifest, Shards]:
        checked = accepted_rows(photos, Store(store.root), split={"validation_share": 0.3})
        return checked, preprocess(checked, PLAN, Latents(locate(VAE)), 1, store)

    return make


def files(shards: Shards) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (shards.path / "shards").iterdir()}


def test_every_accepted_row_is_on_one_side_with_its_pixels_and_caption(photos: Path, tmp_path: Path, made) -> None:
    store = Store(tmp_path / "store")
    checked, shards = made(store, photos)
    accepted = read_checked(checked).set_index("id")
    seen: list[str] = []
    for side in ("train", "validation"):
        tensors, rows = load_side(shards, side)
        assert tensors["pixels"].shape == (len(rows), 3, 16, 16)
        assert tensors["pixels"].dtype == torch.uint8
        assert tensors["latents"].shape[0] == len(rows)
        assert read_index(shards)["sides"][side] == len(rows)
        for row, pixels in zip(rows, tensors["pixels"], strict=True):
            path = photos / accepted.loc[row["id"], "path"]
            assert np.array_equal(pixels.numpy(), resized(path, 16))
            assert row["caption"] == accepted.loc[row["id"], "caption"]
            seen.append(row["id"])
    assert sorted(seen) == sorted(accepted.index)


def test_a_changed_picture_rewrites_its_own_shard_only(photos: Path, tmp_path: Path, made) -> None:
    store = Store(tmp_path / "store")
    before = files(made(store, photos)[1])
    Image.effect_noise((20, 20), 90).convert("RGB").save(photos / "30.png")
    with (photos / "metadata.jsonl").open("a") as file:
        file.write('\n{"file_name": "30.png", "text": "grey"}')
    after = files(made(store, photos)[1])
    changed = {name.split(".")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert len(changed) == 1


def test_a_full_disk_is_said_before_writing(photos: Path, tmp_path: Path, made) -> None:
    from darkroom.errors import DiskFull

    with pytest.raises(DiskFull, match="preprocessing needs about"):
        made(Store(tmp_path / "store", reserve=10**18), photos)


def test_resizing_keeps_the_middle_and_does_not_alias(tmp_path: Path) -> None:
    # Stripes finer than the target's pixels must average out, not turn into other stripes.
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 48))
    Image.fromarray(np.stack([stripes] * 3, axis=-1)).save(tmp_path / "wide.png")
    small = resized(tmp_path / "wide.png", 16)
    assert small.shape == (3, 16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 6


def test_an_empty_side_is_said() -> None:
    rows = pd.DataFrame({"id": ["a"], "row_id": ["r"], "split": ["train"]})
    with pytest.raises(RecipeError, match=r"1 of the 1 accepted pictures fell on the train side"):
        both_sides(rows)
