"""Alpha channels become masks at the latents' size, cut and mirrored as the pixels, and weigh the loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.collect.keep import picture_path
from darkroom.errors import DarkroomError
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.masks import mask
from darkroom.preprocess.shards import load_parts, preprocess, read_index
from darkroom.preprocess.variants import PLAIN, Variant
from darkroom.recipe import Preprocess
from darkroom.store import Store
from darkroom.training.data import Side
from darkroom.weights.locate import locate

VAE = locate("builtin:digits-vae")
PLAN = Preprocess(size=16)


def half_clear(path: Path, size: tuple[int, int] = (32, 32)) -> Path:
    """A picture whose left half is transparent."""
    pixels = np.full((size[1], size[0], 4), 200, np.uint8)
    pixels[:, : size[0] // 2, 3] = 0
    pixels[:, size[0] // 2 :, 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def test_the_mask_is_the_alpha_channel_at_the_latents_size(tmp_path: Path) -> None:
    found = mask(half_clear(tmp_path / "a"), (16, 16), PLAIN, (4, 4))
    assert found.shape == (1, 4, 4)
    assert (found[0, :, :2] == 0).all()
    assert (found[0, :, 2:] == 255).all()
    flipped = mask(tmp_path / "a", (16, 16), Variant(1, flip=True, colour=(0.5, 1.0, 1.0)), (4, 4))
    assert np.array_equal(flipped, found[..., ::-1]), "mirrored, and no colour is changed"
    assert (mask(None, (16, 16), PLAIN, (4, 4)) == 255).all()


def test_an_oriented_file_is_turned_upright(tmp_path: Path) -> None:
    path = half_clear(tmp_path / "a")
    with Image.open(path) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6  # shown after a quarter turn clockwise: its left is then at the top
        picture.save(tmp_path / "b.png", exif=exif)
    found = mask(tmp_path / "b.png", (16, 16), PLAIN, (4, 4))
    assert (found[0, :2] == 0).all()
    assert (found[0, 2:] == 255).all()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match="nowhere"):
        mask(tmp_path / "nowhere", (16, 16), PLAIN, (4, 4))


def test_shards_hold_masks_where_they_are_asked_for(noise, checked_of, store: Store) -> None:
    rows = [noise(number, (32, 32), alpha=0.5 if number < 4 else 0.0) for number in range(12)]
    for row in rows[:4]:
        half_clear(picture_path(store, row["id"]))
    checked = checked_of(rows)
    plain = preprocess(checked, PLAN, Latents(VAE), 1, store)
    shards = preprocess(checked, PLAN, Latents(VAE, masks=True), 1, store)
    assert shards.digest != plain.digest
    ((tensors, found),) = load_parts(shards, "train", ("latents", "mask"))
    clear = {row["id"] for row in rows[:4]}
    for row, one in zip(found, tensors["mask"], strict=True):
        assert one.shape == (1, *tensors["latents"].shape[2:])
        share = one.float().mean() / 255
        assert share == pytest.approx(0.5 if row["id"] in clear else 1.0)
    (part,) = Side(shards, "train", masks=True).parts
    assert part.masks is not None
    assert torch.equal(part.masks, tensors["mask"])
    assert Side(plain, "train").parts[0].masks is None


def test_masks_of_opaque_pictures_are_said_to_do_nothing(noise, checked_of, store: Store) -> None:
    checked = checked_of([noise(number, (32, 32)) for number in range(8)])
    said = read_index(preprocess(checked, PLAN, Latents(VAE, masks=True), 1, store))["warnings"]
    assert any("masked does nothing" in sentence for sentence in said)
    assert not any("masked" in one for one in read_index(preprocess(checked, PLAN, Latents(VAE), 1, store))["warnings"])
