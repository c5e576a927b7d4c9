"""Two sets of pictures compared by their features: how far apart, how true, how varied, and whether one copies.

All features are float64 [N, dimensions] of one extractor, and what is measured is named after it
(:func:`darkroom.evaluation.features.load`).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import betabinom

from .features import kernel_of

NEIGHBOURS = 5  # of the manifolds, as in Naeem et al.
HELD_OUT_QUANTILE = 0.01
BLOCK = 2000  # pictures of which all pairs are taken; of more, the pairs within blocks: the cost stays linear
GROUPS = 40  # classes or prompts that are shown apart
FLAT = 2  # levels of 255 between the darkest and the brightest pixel of a flat picture


def kernel_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """The squared maximum mean discrepancy under k(x, y) = (x'y / d + 1)^3, by its unbiased estimator.

    Binkowski et al., Demystifying MMD GANs (2018), section 4: the KID where the features are Inception's. Its mean
    does not depend on the count, as a Fréchet distance's does; it may be below zero.
    """
    across = sum(float(cubic(some, real).sum()) for some in _blocks(generated)) / (len(generated) * len(real))
    return _alike(generated) + _alike(real) - 2 * across


def _alike(features: np.ndarray) -> float:
    """The mean kernel of two pictures of a set: of all pairs within its blocks."""
    total, pairs = 0.0, 0
    for some in _blocks(features):
        square = cubic(some, some)
        total += float(square.sum() - np.trace(square))
        pairs += len(some) * (len(some) - 1)
    return total / pairs


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]


def cubic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(x'y / dimensions + 1)^3 of every pair of rows, [N, M]."""
    values: np.ndarray = (one @ other.T / one.shape[1] + 1) ** 3
    return values


def off_diagonal_mean(square: np.ndarray) -> float:
    """The mean of a square matrix without its diagonal."""
    count = len(square)
    return float((square.sum() - np.trace(square)) / (count * (count - 1)))


@dataclass(frozen=True)
class Manifolds:
    """How the sets lie in each other; each is a share of pictures, but for ``density``."""

    precision: float
    """Generated pictures inside the real manifold (Kynkäänniemi et al. 2019): how true they are."""
    recall: float
    """Real pictures inside the generated manifold: how much of the real variety is drawn."""
    density: float
    """Real neighbourhoods that a generated picture is in, of those expected (Naeem et al. 2020); about 1 is right."""
    coverage: float
    """Real pictures with a generated one in their neighbourhood: variety, less moved by outliers than recall."""


def manifolds(generated: np.ndarray, real: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifolds:
    """Compare sets by balls around each picture that reach to its ``neighbours``-th nearest in its own set.

    Both sets should have the same count. Raises ``ValueError`` with fewer than ``neighbours`` + 1 pictures.
    """
    if min(len(generated), len(real)) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {min(len(generated), len(real))} pictures")
    across = cdist(generated, real)
    real_radius, drawn_radius = radii(real, neighbours), radii(generated, neighbours)
    inside = across <= real_radius[None]
    return Manifolds(
        precision=float(inside.any(axis=1).mean()),
        recall=float((across <= drawn_radius[:, None]).any(axis=0).mean()),
        density=float(inside.sum() / (neighbours * len(generated))),
        coverage=float((across.min(axis=0) <= real_radius).mean()),
    )


def radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """The distance of each row to its ``neighbours``-th nearest other row."""
    among = cdist(features, features)
    return np.asarray(np.partition(among, neighbours, axis=1)[:, neighbours])  # the nearest is itself


@dataclass(frozen=True)
class Memorisation:
    """Whether generated pictures are nearer to training pictures than held-out ones ever are."""

    threshold: float
    """Distance below which only :data:`HELD_OUT_QUANTILE` of the held-out pictures are from a training picture."""
    share: float
    """Generated pictures below it."""
    p_value: float
    """Chance of so many or more, if generated pictures were as independent of training as held-out ones."""
    suspects: tuple[int, ...]
    """Generated pictures below it, the nearest first."""


def memorisation(generated: np.ndarray, held_out: np.ndarray) -> Memorisation:
    """The exceedance test on distances [N] to the nearest training picture, of generated and of held-out pictures.

    It counts the generated pictures below the k-th smallest of n held-out distances, k being one per cent of n. Were
    all independent of the training side alike, that count would be beta-binomial(N, k, n + 1 - k) (Gumbel and von
    Schelling 1950). A few copies among many pictures are seen, which move no mean and no rank test.
    """
    rank = max(1, int(HELD_OUT_QUANTILE * len(held_out)))
    threshold = float(np.partition(held_out, rank - 1)[rank - 1])
    below = np.flatnonzero(generated < threshold)
    chance = float(betabinom.sf(len(below) - 1, len(generated), rank, len(held_out) + 1 - rank))
    order = below[np.argsort(generated[below], kind="stable")]
    return Memorisation(threshold, len(below) / len(generated), chance, tuple(order.tolist()))


def diversity(features: np.ndarray, groups: list[str]) -> float | None:
    """The mean distance of two pictures that were asked for alike; None where nothing was asked for twice."""
    total, count = 0.0, 0
    for group in sorted(set(groups)):
        rows = features[[place for place, name in enumerate(groups) if name == group]]
        for some in _blocks(rows):
            total += float(cdist(some, some).sum())
            count += len(some) * (len(some) - 1)
    return total / count if count else None


def by_group(
    names: list[str], scores: np.ndarray, features: np.ndarray, real: np.ndarray
) -> list[dict[str, str | int | float | None]]:
    """What is drawn for each class or prompt (``names`` [N]): how many pictures, their CLIP score and precision.

    Those with the most pictures alone, :data:`GROUPS` at most; ``scores`` [N] may be NaN.
    """
    inside = (cdist(features, real) <= radii(real, NEIGHBOURS)[None]).any(axis=1) if len(real) > NEIGHBOURS else None
    found: list[dict[str, str | int | float | None]] = []
    for name, count in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))[:GROUPS]:
        rows = np.flatnonzero(np.asarray(names, dtype=object) == name)
        score = float(scores[rows].mean())
        found.append(
            {
                "name": name,
                "count": count,
                "clip_score": None if np.isnan(score) else score,
                "precision": None if inside is None else float(inside[rows].mean()),
            }
        )
    return sorted(found, key=lambda one: str(one["name"]))


def blank(pictures: np.ndarray) -> float:
    """The share of pictures, uint8 [N, 3, H, W], that are one flat colour; a model that broke draws nothing else."""
    flat = pictures.reshape(len(pictures), pictures.shape[1], -1)
    return float((np.ptp(flat, axis=2).max(axis=1) <= FLAT).mean())


def compared(
    generated: np.ndarray, real: np.ndarray, prompts: list[str], texts: list[str], measure: str
) -> dict[str, float]:
    """The measures of this file on generated and held-out features, by name; ``measure`` is that of their distance.

    ``prompts`` and ``texts`` say what each generated and each held-out picture is of.
    """
    name = "inception" if measure == "fid" else measure.removeprefix("fd_")
    found = {kernel_of(measure): kernel_distance(generated, real)}
    count = min(len(generated), len(real))
    if count > NEIGHBOURS:
        found |= {f"{key}_{name}": value for key, value in vars(manifolds(generated[:count], real[:count])).items()}
    alike, usual = diversity(generated, prompts), diversity(real, texts)
    if alike is not None and usual:
        found[f"diversity_{name}_ratio"] = alike / usual
    return found
