"""Perceptual hashes: the flips and turns of a hash are the hashes of the flips and turns."""

import numpy as np
import pytest

from darkroom.quality.hashes import SIDE, dhash_symmetries, from_hex, perceptual, symmetries, to_hex, turned


def smooth(seed: int) -> np.ndarray:
    """A picture of few waves, as photos are: float32[SIDE, SIDE] in 0-255."""
    random = np.random.default_rng(seed)
    waves = np.cos(np.pi * np.outer(np.arange(12), (np.arange(SIDE) + 0.5) / SIDE))
    picture = waves.T @ (random.normal(size=(12, 12)) / (1 + np.add.outer(np.arange(12), np.arange(12)))) @ waves
    return (255 * (picture - picture.min()) / np.ptp(picture)).astype(np.float32)


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.bitwise_count(one ^ other)


@pytest.mark.parametrize("seed", range(5))
def test_the_symmetries_of_a_hash_are_the_hashes_of_the_symmetries(seed: int) -> None:
    cells = smooth(seed)
    direct = [perceptual(np.ascontiguousarray(turned(cells, k))) for k in range(8)]
    assert np.array_equal(symmetries(from_hex([direct[0][0]])[:, 0])[0], from_hex([one[0] for one in direct])[:, 0])
    assert np.array_equal(dhash_symmetries(from_hex([direct[0][1]]))[0], from_hex([one[1] for one in direct]))


def test_symmetries_of_many_hashes_keep_their_distances() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64)
    every = symmetries(hashes)
    assert np.array_equal(every[:, 0], hashes)
    apart = [distance(every[:, k, None], every[None, :, k]) for k in range(8)]
    assert all(np.array_equal(apart[0], other) for other in apart)


def test_hashes_of_a_changed_picture_are_near_and_of_another_far() -> None:
    one, other = smooth(0), smooth(1)
    noisy = (one * 0.8 + 30 + np.random.default_rng(0).normal(size=one.shape)).astype(np.float32)
    for index in (0, 1):
        first, changed, second = (from_hex([perceptual(x)[index]])[0] for x in (one, noisy, other))
        assert distance(first, changed).sum() <= 4 * (index + 1)
        assert distance(first, second).sum() > 10


def test_a_crop_is_near_one_of_the_hashes_of_crops() -> None:
    side = SIDE * 8
    whole = np.kron(smooth(2), np.ones((8, 8), np.float32))
    edge = side // 10
    part = whole[edge : side - edge, edge : side - edge]
    index = (np.arange(SIDE) + 0.5) * len(part) / SIDE
    cells = part[np.ix_(index.astype(int), index.astype(int))]
    crops = from_hex([perceptual(whole[::8, ::8])[2]])[0]
    assert distance(crops, from_hex([perceptual(cells)[0]])[0]).min() <= 3


def test_hex_is_there_and_back() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, (3, 2), dtype=np.uint64)
    assert np.array_equal(from_hex([to_hex(pair) for pair in hashes]), hashes)
    assert len(from_hex([])) == 0
