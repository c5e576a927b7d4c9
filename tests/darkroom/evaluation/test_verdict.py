"""The verdict: limits, and an interval that holds the truth as often as it says."""

import numpy as np
import pytest

from darkroom.evaluation.features import frechet
from darkroom.evaluation.verdict import broken_limits, influence, paired_interval
from darkroom.recipe import Gate, Limit

DIMENSIONS = 6


def draw(random: np.random.Generator, count: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return random.normal(size=(count, DIMENSIONS)) * scale + shift


def test_limits_name_what_is_broken() -> None:
    gate = Gate(limits={"fid": Limit(max=2.0), "clip": Limit(min=10.0), "gone": Limit(min=0.0)})
    found = broken_limits({"fid": 3.0, "clip": 11.0}, gate)
    assert found == ["fid is 3, above the limit 2", "gone is nan, below the limit 0"]
    assert broken_limits({"fid": 2.0, "clip": 10.0, "gone": 1.0}, gate) == []


def test_the_influence_is_the_derivative_of_the_distance() -> None:
    random = np.random.default_rng(0)
    pictures, real = draw(random, 400, 1.2, 0.3), draw(random, 500)
    psi = influence(pictures, real)
    assert psi.shape == (400,)
    # Doubling the weight of one picture moves the distance by about (psi - mean psi) / N.
    for index in (3, 77):
        moved = frechet(np.concatenate([pictures, pictures[index : index + 1]]), real) - frechet(pictures, real)
        assert moved == pytest.approx((psi[index] - psi.mean()) / 401, abs=2e-4 + 0.1 * abs(psi[index]) / 401)


def test_the_interval_covers_the_truth() -> None:
    random = np.random.default_rng(1)
    real = draw(random, 4000)
    truth_new, truth_old = (frechet(draw(random, 400_000, scale, 0.2), real) for scale in (1.1, 1.2))
    held = 0
    for _ in range(200):
        noise = draw(random, 400)
        difference, low, high = paired_interval(noise * 1.1 + 0.2, noise * 1.2 + 0.2, real, 0.95)
        assert low < difference < high
        held += low <= truth_new - truth_old <= high
    assert held >= 178  # 95 % of 200 less three standard deviations


def test_shared_noise_narrows_the_interval() -> None:
    random = np.random.default_rng(2)
    real, noise = draw(random, 1000), draw(random, 400)
    _, low, high = paired_interval(noise * 1.1, noise * 1.12, real, 0.95)
    _, low_unpaired, high_unpaired = paired_interval(draw(random, 400) * 1.1, noise * 1.12, real, 0.95)
    assert high - low < (high_unpaired - low_unpaired) / 3
