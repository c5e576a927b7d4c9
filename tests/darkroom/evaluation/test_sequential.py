"""Looks and bounds: published values, and the promise that repeated looks cost no more than was allowed."""

import numpy as np
import pytest

from darkroom.evaluation.sequential import bounds, ladder, needed, planned, spent


def test_the_looks_double_up_to_the_budget() -> None:
    assert ladder(256, 2048) == [256, 512, 1024, 2048]
    assert ladder(100, 250) == [100, 200, 250]
    assert ladder(256, 256) == ladder(300, 256) == [256]


def test_the_bounds_are_those_of_the_literature() -> None:
    # gsDesign and ldbounds, five equal looks, O'Brien-Fleming spending, one-sided 0.025.
    expected = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    assert bounds([0.2, 0.4, 0.6, 0.8, 1.0], 0.025) == pytest.approx(expected, abs=2e-4)
    assert bounds([1.0], 0.05) == pytest.approx([1.6449], abs=1e-4)
    assert spent(1.0, 0.05) == pytest.approx(0.05)


def test_a_motion_without_drift_crosses_as_often_as_allowed() -> None:
    random, shares = np.random.default_rng(0), [0.25, 0.5, 1.0]
    steps = random.normal(size=(200_000, 3)) * np.sqrt(np.diff([0, *shares]))
    crossed = (steps.cumsum(axis=1) / np.sqrt(shares) > bounds(shares, 0.1)).any(axis=1).mean()
    assert crossed == pytest.approx(0.1, abs=0.003)


def test_the_plan_sees_the_gain_as_often_as_asked() -> None:
    counts, spread, gain = ladder(100, 6400), 10.0, 0.8
    looks = planned(counts, spread, gain, 0.9, 0.05)
    shares = [count / counts[looks - 1] for count in counts[:looks]]
    limits = bounds(shares, 0.05)
    assert counts[looks - 2] < needed(spread, gain, 0.9, limits[-1]) <= counts[looks - 1]
    random = np.random.default_rng(1)
    steps = random.normal(size=(100_000, looks)) * np.sqrt(np.diff([0, *shares]))
    drift = gain / spread * np.sqrt(counts[looks - 1])
    motion = steps.cumsum(axis=1) + drift * np.asarray(shares)
    assert 0.9 <= (motion / np.sqrt(shares) > limits).any(axis=1).mean() < 1
    assert planned(counts, spread, 1e-9, 0.9, 0.05) == len(counts)
    assert planned(counts, 0.0, gain, 0.9, 0.05) == 1
