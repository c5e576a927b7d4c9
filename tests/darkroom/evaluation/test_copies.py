"""Nearness to training pictures, and the copies among generated ones."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.evaluation.copies import copying, nearest


def pictures(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)


def test_the_nearest_training_picture() -> None:
    training = pictures(0, 50)
    drawn = np.concatenate([training[7:8], pictures(1, 9)])
    found, places = nearest(drawn, training, block=4)
    differences = drawn[:, None].astype(float) - training[None].astype(float)
    distances = np.sqrt((differences**2).sum((2, 3, 4)))
    np.testing.assert_allclose(found, distances.min(1), atol=1e-4)
    assert np.array_equal(places, distances.argmin(1))
    assert (found[0], places[0]) == (0, 7)


def test_copies_are_named_and_shown(tmp_path: Path) -> None:
    training = pictures(0, 300)
    ids = [f"id {number}" for number in range(300)]
    drawn = pictures(1, 100)
    drawn[:6] = training[10:16]
    drawn[0, 0, 0, 0] ^= 1
    found = copying(drawn, pictures(2, 200), training, ids, tmp_path)
    assert found["memorised_p"] < 0.01
    assert found["memorised_share"] >= 0.06
    pairs = json.loads((tmp_path / "suspects.json").read_text())["pairs"]
    named = {(pair["generated"], pair["training"]) for pair in pairs[:6]}
    assert named == {(number, f"id {10 + number}") for number in range(6)}
    with Image.open(tmp_path / "suspects.png") as shown:
        assert shown.height < shown.width


def test_independent_pictures_are_not_accused(tmp_path: Path) -> None:
    found = copying(pictures(3, 150), pictures(2, 200), pictures(0, 300), ["id"] * 300, tmp_path)
    assert found["memorised_p"] > 0.001
    assert 0.9 < found["nearest_ratio"] < 1.1
