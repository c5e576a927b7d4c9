"""Measures on sets of features: against brute force, and in cases whose answer is known."""

import numpy as np
import pytest

from darkroom.evaluation import sets
from darkroom.evaluation.sets import diversity, kernel_distance, manifolds, memorisation


def normal(seed: int, count: int, dimensions: int = 8, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, dimensions))


def test_the_kernel_distance_is_its_definition() -> None:
    x, y = normal(0, 7), normal(1, 9, shift=0.3)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 8 + 1) ** 3)

    own = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    other = np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(own + other - 2 * across)


def test_the_kernel_distance_of_like_sets_is_zero_on_average_whatever_the_count() -> None:
    for count in (20, 200):
        found = [kernel_distance(normal(seed, count), normal(1000 + seed, count)) for seed in range(60)]
        assert abs(np.mean(found)) < 3 * np.std(found) / 60**0.5
    assert kernel_distance(normal(0, 200, shift=0.5), normal(1, 200)) > 0.1


def test_of_many_pictures_the_pairs_within_blocks_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(0, 23), normal(1, 11, shift=0.3)
    monkeypatch.setattr(sets, "BLOCK", 10)

    def within(rows: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j and i // 10 == j // 10]
        return float(np.mean([sets.cubic(rows[[i]], rows[[j]]) for i, j in pairs]))

    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * sets.cubic(x, y).mean())
    found = [kernel_distance(normal(seed, 25), normal(1000 + seed, 25)) for seed in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 60**0.5, "without bias, as of all pairs"
    pairs = [(i, j) for i in range(23) for j in range(23) if i != j and i // 10 == j // 10]
    wanted = np.mean([np.linalg.norm(x[i] - x[j]) for i, j in pairs])
    assert diversity(x, ["a"] * 23) == pytest.approx(wanted)


def test_manifolds_are_their_definitions() -> None:
    drawn, real = normal(0, 30, 3), normal(1, 30, 3, scale=0.7)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).sum()))

    def radius(rows: np.ndarray, place: int) -> float:
        return sorted(distance(rows[place], other) for other in rows)[5]

    real_radii, drawn_radii = ([radius(rows, place) for place in range(30)] for rows in (real, drawn))
    inside = [[distance(one, other) <= reach for other, reach in zip(real, real_radii, strict=True)] for one in drawn]
    found = manifolds(drawn, real)
    assert found.precision == pytest.approx(np.mean([any(row) for row in inside]))
    assert found.density == pytest.approx(np.sum(inside) / (5 * 30))
    assert found.coverage == pytest.approx(np.mean(np.any(inside, axis=0)))
    reached = [
        any(distance(one, other) <= reach for other, reach in zip(drawn, drawn_radii, strict=True)) for one in real
    ]
    assert found.recall == pytest.approx(np.mean(reached))


def test_manifolds_tell_truth_from_variety() -> None:
    real = normal(0, 300, 4)
    narrow = manifolds(normal(1, 300, 4, scale=0.1), real)
    assert narrow.precision > 0.95
    assert narrow.recall < 0.1
    wide = manifolds(normal(1, 300, 4, scale=4), real)
    assert wide.precision < 0.4
    same = manifolds(normal(2, 300, 4), real)
    assert min(same.precision, same.recall, same.coverage) > 0.85
    assert same.density == pytest.approx(1, abs=0.15)
    with pytest.raises(ValueError, match="5 neighbours"):
        manifolds(real[:5], real)


def test_copies_are_seen_and_independence_is_not_accused() -> None:
    random = np.random.default_rng(0)
    accused = 0
    for _ in range(200):
        held, drawn = random.gamma(9, 1, 400), random.gamma(9, 1, 1000)
        accused += memorisation(drawn, held).p_value < 0.05
    assert accused <= 20, "the test is exact: 10 of 200 are expected, and more than 20 once in 1,500 times"
    copies = random.gamma(9, 1, 1000)
    copies[[3, 500]] = 1e-3, 1e-4
    copies[10:28] = 0.01
    found = memorisation(copies, random.gamma(9, 1, 400))
    assert found.p_value < 0.01
    assert found.suspects[0] == 500
    assert found.suspects[1] == 3
    assert found.share == len(found.suspects) / 1000


def test_diversity_is_the_mean_distance_within_a_prompt() -> None:
    features = np.array([[0.0], [2.0], [10.0], [16.0], [50.0]])
    assert diversity(features, ["a", "a", "b", "b", "c"]) == pytest.approx(4.0)
    assert diversity(features, list("abcde")) is None
