"""How much better one set of pictures is than another by one measure, and how sure that is.

Both sets were drawn from the same prompts and noise, picture by picture. Each measure is written as its value and its
influence: how much each picture moves it. The standard error of the difference of two values is then that of the mean
of the differences of the influences, which is far smaller than that of pictures without common noise.

The Fréchet distance, with S and S_ref the covariances, m and m_ref the means, S_ref = A A', T = A (A' S A)^(-1/2) A':

    psi(x) = 2 (x - m)'(m - m_ref) + (x - m)'(I - T)(x - m).

It is symmetric, so the same formula says how much each real picture moves it. The kernel distance, a U-statistic:

    psi(x) = 2 (mean over the others of k(x, x') - mean over the real ones of k(x, r)).

Shares and scores are means over pictures; coverage and diversity are not, and take the jackknife's influence.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from . import frechet
from .sets import NEIGHBOURS, cubic, off_diagonal_mean, radii

Measured = tuple[float, np.ndarray]
LEAST = 0.1  # of a distance that is left without its bias, where the estimate says less


@dataclass(frozen=True)
class Drawn:
    """What is known of the pictures that one model drew: row i is of picture i."""

    features: np.ndarray
    """[N, dimensions] float64."""
    prompts: Sequence[str]
    scores: np.ndarray
    """[N] CLIP score of the pictures that were drawn for a prompt; NaN for others."""

    def first(self, count: int) -> "Drawn":
        """The first pictures alone."""
        return Drawn(self.features[:count], self.prompts[:count], self.scores[:count])

    def and_then(self, other: "Drawn") -> "Drawn":
        """These pictures and those that were drawn after them."""
        features, scores = (
            np.concatenate(pair) for pair in ((self.features, other.features), (self.scores, other.scores))
        )
        return Drawn(features, [*self.prompts, *other.prompts], scores)


class Held:
    """The held-out pictures that both models are compared with, and what is made of their features once."""

    def __init__(self, features: np.ndarray) -> None:
        """``features``: [M, dimensions] float64."""
        self.features = features

    @functools.cached_property
    def normal(self) -> frechet.Normal:
        """Their mean and covariance."""
        return frechet.Normal(self.features)

    @functools.cached_property
    def reach(self) -> np.ndarray:
        """[M] the distance of each to its fifth nearest other; NaN where there are too few."""
        few = len(self.features) <= NEIGHBOURS
        return np.full(len(self.features), np.nan) if few else radii(self.features, NEIGHBOURS)

    @functools.cached_property
    def alike(self) -> float:
        """The mean kernel of two of them."""
        return off_diagonal_mean(cubic(self.features, self.features))

    def inside(self, features: np.ndarray) -> np.ndarray:
        """float [N, M]: 1 where a picture lies in the neighbourhood of a held-out one, 0 elsewhere; NaN: unknown."""
        away = cdist(features, self.features) - self.reach[None]
        return np.where(np.isnan(away), np.nan, away <= 0)


@dataclass(frozen=True)
class Contrast:
    """One measure of both models on the same prompts and noise."""

    challenger: float
    champion: float
    gain: float
    """How much better the challenger is; below zero where it is worse."""
    error: float
    """Standard error of the gain over other noise, the held-out pictures being as they are."""
    error_of_real: float
    """Standard error over other held-out pictures, the drawn ones being as they are."""

    def beyond(self, value: float) -> float:
        """How many standard errors the gain lies above ``value``."""
        above = self.gain - value
        return above / self.error if self.error > 0 else math.copysign(math.inf, above) if above else 0.0


def _as_it_is(value: float, _: Drawn, _held: Held) -> float:
    return abs(value)


def _without_bias(value: float, drawn: Drawn, held: Held) -> float:
    """A Fréchet distance of N pictures is too large by about a part that falls with 1/N, so that of twice as many less
    that of these is free of it (Chong and Forsyth, Effectively Unbiased FID and Inception Score, 2020)."""
    half = len(drawn.prompts) // 2
    halves = [frechet.Normal(part) for part in (drawn.features[:half], drawn.features[half:])]
    return max(2 * value - float(np.mean([frechet.distance(one, held.normal) for one in halves])), value * LEAST)


@dataclass(frozen=True)
class Measure:
    """A measure that the gate knows."""

    title: str
    """In a sentence."""
    sign: int
    """1 where more is better, -1 where less is."""
    of: Callable[[Drawn, Held, int], Measured]
    """(pictures, held-out pictures, count of a block) -> value and the influence of each picture."""
    of_real: bool = False
    """Whether other held-out pictures would move the difference, and :func:`frechet.influence` says how much."""
    size: Callable[[float, Drawn, Held], float] = _as_it_is
    """(value, pictures, held-out pictures) -> the size of the value, of which the recipe's shares are taken."""


def contrast(measure: Measure, new: Drawn, old: Drawn, held: Held, block: int) -> Contrast:
    """Compare the pictures of the challenger (``new``) and of the champion (``old``) by one measure."""
    (challenger, of_new), (champion, of_old) = (measure.of(one, held, block) for one in (new, old))
    error_of_real = 0.0
    if measure.of_real:
        of_real = [frechet.influence(held.normal, frechet.Normal(one.features)) for one in (new, old)]
        error_of_real = float((of_real[0] - of_real[1]).std(ddof=1)) / math.sqrt(held.normal.count)
    return Contrast(
        challenger,
        champion,
        measure.sign * (challenger - champion),
        float((of_new - of_old).std(ddof=1)) / math.sqrt(len(of_new)),
        error_of_real,
    )


def worth(measure: Measure, drawn: Drawn, held: Held, block: int) -> float:
    """The size of a measure's value, of which the recipe's shares are taken: without what only few pictures add."""
    return measure.size(measure.of(drawn, held, block)[0], drawn, held)


def _frechet(drawn: Drawn, held: Held, _: int) -> Measured:
    normal = frechet.Normal(drawn.features)
    return frechet.distance(normal, held.normal), frechet.influence(normal, held.normal)


def _kernel(drawn: Drawn, held: Held, _: int) -> Measured:
    own, across = cubic(drawn.features, drawn.features), cubic(drawn.features, held.features)
    others = (own.sum(axis=1) - np.diagonal(own)) / (len(own) - 1)
    value = float(others.mean() + held.alike - 2 * across.mean())
    return value, np.asarray(2 * (others - across.mean(axis=1)))


def _precision(drawn: Drawn, held: Held, _: int) -> Measured:
    inside = held.inside(drawn.features).max(axis=1)
    return float(inside.mean()), inside


def _density(drawn: Drawn, held: Held, _: int) -> Measured:
    inside = held.inside(drawn.features).sum(axis=1) / NEIGHBOURS
    return float(inside.mean()), inside


def _coverage(drawn: Drawn, held: Held, block: int) -> Measured:
    """The mean over blocks of ``block`` pictures: coverage grows with the count, so every look has the same one."""
    values, parts = [], []
    for start in range(0, len(drawn.features) - block + 1, block):
        inside = held.inside(drawn.features[start : start + block])
        found = inside.sum(axis=0)
        values.append(float(np.minimum(found, 1).mean()))
        parts.append((block - 1) * inside[:, found == 1].sum(axis=1) / inside.shape[1])
    return float(np.mean(values)), np.concatenate(parts)


def _diversity(drawn: Drawn, _: Held, _block: int) -> Measured:
    names = np.asarray(drawn.prompts, dtype=object)
    sums, partners = np.zeros(len(names)), np.zeros(len(names))
    for name in sorted(set(drawn.prompts)):
        rows = np.flatnonzero(names == name)
        sums[rows] = cdist(drawn.features[rows], drawn.features[rows]).sum(axis=1)
        partners[rows] = len(rows) - 1
    total, pairs = sums.sum(), partners.sum()
    if pairs == 0:
        return math.nan, np.full(len(names), math.nan)
    value = float(total / pairs)
    without = (total - 2 * sums) / np.maximum(pairs - 2 * partners, 1)
    return value, (len(names) - 1) * (value - without)


def _clip_score(drawn: Drawn, _: Held, _block: int) -> Measured:
    asked = drawn.scores[~np.isnan(drawn.scores)]
    if len(asked) < 2:
        return math.nan, np.full(2, math.nan)
    return float(asked.mean()), asked


MEASURES = {
    "frechet": Measure("distance to the held-out pictures", -1, _frechet, of_real=True, size=_without_bias),
    "kernel": Measure("kernel distance to the held-out pictures", -1, _kernel),
    "precision": Measure("share of pictures that look real", 1, _precision),
    "density": Measure("density of real pictures around the drawn ones", 1, _density),
    "coverage": Measure("share of the real variety that is drawn", 1, _coverage),
    "diversity": Measure("variety within one prompt", 1, _diversity),
    "clip_score": Measure("fit of pictures to their prompts", 1, _clip_score),
}
