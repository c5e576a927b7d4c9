"""The Fréchet distance is clean-fid's number, in float64 and for any counts; its influence is its derivative."""

import numpy as np
import pytest
from cleanfid import fid

from darkroom.evaluation.frechet import Normal, distance, frechet, frechet_at_equal_count, influence


def features(count: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(1).normal(size=(dimensions, dimensions)) / dimensions**0.5
    return random.normal(size=(count, dimensions)) @ mix + shift


def by_svd(one: np.ndarray, other: np.ndarray) -> float:
    """tr (S R)^(1/2) from the singular values of the centred features' product, without any covariance."""
    left, right = ((each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (one, other))
    shift = one.mean(0) - other.mean(0)
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(shift @ shift + (left**2).sum() + (right**2).sum() - 2 * cross)


def test_it_is_clean_fids_distance() -> None:
    one, other = features(400, 64, 2), features(300, 64, 3, 0.1)
    assert frechet(one, other) == pytest.approx(fid.fid_from_feats(one, other), rel=1e-6)
    assert frechet(one, one) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(("count", "others"), [(20, 24), (20, 300), (300, 20), (64, 64), (65, 65)])
def test_fewer_pictures_than_dimensions(count: int, others: int) -> None:
    one, other = 30 * features(count, 64, 2), 30 * features(others, 64, 3, 0.1)
    assert frechet(one, other) == pytest.approx(by_svd(one, other), rel=1e-6)
    assert frechet(one, other) == pytest.approx(frechet(other, one), rel=1e-6)


def test_counts_are_equal_where_distances_are_compared() -> None:
    many, real = features(900, 8, 2), features(300, 8, 3)
    parts = [frechet(many[start : start + 300], real) for start in (0, 300, 600)]
    assert frechet_at_equal_count(many, real) == pytest.approx(np.mean(parts))
    assert frechet_at_equal_count(many[:899], real) == pytest.approx(np.mean(parts[:2]))
    assert frechet_at_equal_count(many[:100], real) == pytest.approx(frechet(many[:100], real[:100]))


@pytest.mark.parametrize("count", [400, 30])
def test_the_influence_is_the_derivative_of_the_distance(count: int) -> None:
    pictures, real = features(count, 6, 2) * 1.2 + 0.3, features(500, 6, 3)
    psi = influence(Normal(pictures), Normal(real))
    assert psi.shape == (count,)
    # Doubling the weight of one picture moves the distance by about (psi - mean psi) / N.
    for index in (3, 17):
        moved = frechet(np.concatenate([pictures, pictures[index : index + 1]]), real) - frechet(pictures, real)
        assert moved == pytest.approx((psi[index] - psi.mean()) / (count + 1), rel=0.15, abs=30 / count**2)


def test_a_single_picture_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures, not 1"):
        distance(Normal(np.ones((1, 3))), Normal(np.eye(3)))
