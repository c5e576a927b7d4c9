"""Variants: each follows from the picture and its number alone, and does what its record says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import DarkroomError
from darkroom.preprocess.pictures import fitted, window
from darkroom.preprocess.variants import PLAIN, Variant, caption_of, recoloured, variant
from darkroom.recipe import Augment

ALL = Augment(variants=5, flip=True, crop=0.7, colour=0.3, shuffle_tags=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "copy.png")
    return tmp_path / "copy.png"


def test_a_variant_follows_from_picture_and_number_alone() -> None:
    assert variant("a", 0, ALL) == PLAIN
    assert PLAIN.record() == {}
    made = [variant(name, number, ALL) for name in ("a", "b") for number in range(1, 5)]
    assert made == [variant(name, number, ALL) for name in ("a", "b") for number in range(1, 5)]
    assert len(set(made)) == 8
    # One option more or less moves no other.
    assert variant("a", 3, Augment(variants=5, crop=0.7)).crop == variant("a", 3, ALL).crop


def test_a_cut_lies_inside_and_keeps_its_share() -> None:
    for number in range(1, 60):
        how = variant("a", number, ALL)
        left, top, right, bottom = window(300, 200, (64, 32), how)
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        assert (bottom - top) / 200 >= 0.7 - 1e-9
        assert (right - left) / (bottom - top) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(30, 40), (24, 24), (300, 200)])
def test_pictures_cover_their_shape_and_are_mirrored_exactly(copy: Path, shape: tuple[int, int]) -> None:
    plain = fitted(copy, shape)
    assert plain.shape == (3, *shape)
    assert plain.dtype == np.uint8
    assert np.array_equal(fitted(copy, shape, Variant(1, flip=True)), plain[:, :, ::-1])
    assert np.array_equal(fitted(copy, shape, Variant(1, crop=(1.0, 0.5, 0.5))), plain)
    assert np.array_equal(fitted(copy, shape, Variant(1, colour=(1.0, 1.0, 1.0))), plain)
    assert not np.array_equal(fitted(copy, shape, Variant(1, crop=(0.8, 0.1, 0.9))), plain)


def test_shrinking_averages_whole_areas(copy: Path) -> None:
    original = np.asarray(Image.open(copy)).astype(float)
    blocks = original.reshape(30, 3, 40, 3, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(fitted(copy, (30, 40)) - blocks).max() <= 0.5 + 1e-9


def test_colours_change_as_named() -> None:
    picture = np.random.default_rng(1).integers(60, 180, (20, 20, 3), dtype=np.uint8)
    assert recoloured(picture, (1.2, 1.0, 1.0)).mean() == pytest.approx(1.2 * picture.mean(), rel=0.01)
    assert recoloured(picture, (1.0, 0.5, 1.0)).std() == pytest.approx(0.5 * picture.std(), rel=0.03)
    grey = recoloured(picture, (1.0, 1.0, 0.0))
    assert np.ptp(grey, axis=2).max() == 0


def test_tags_are_shuffled_and_nothing_else_is_changed() -> None:
    tags = "a, b,c , d, e"
    found = {caption_of(tags, "id", number, ALL) for number in range(1, 20)}
    assert len(found) > 5
    assert all(sorted((text or "").split(", ")) == ["a", "b", "c", "d", "e"] for text in found)
    assert caption_of(tags, "id", 0, ALL) == tags
    assert caption_of(tags, "id", 1, Augment(variants=2, crop=0.9)) == tags
    assert caption_of("one caption", "id", 1, ALL) == "one caption"
    assert caption_of(None, "id", 1, ALL) is None


@pytest.mark.parametrize("fields", [{"flip": True}, {"crop": 0.8}, {"variants": 2}, {"variants": 3, "flip": True}])
def test_variants_that_cannot_differ_are_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match="variant"):
        Augment(**fields)


def test_a_missing_working_copy_is_named(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"gone\.png is gone or damaged"):
        fitted(tmp_path / "gone.png", (8, 8))
