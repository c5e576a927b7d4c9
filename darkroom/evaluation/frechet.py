"""The Fréchet distance of two sets of features, and how much each picture moves it. All in float64.

With S and R the covariances and R = A A', the trace of the square root of S R is the sum of the singular values of
X A, X being the centred features over sqrt(N - 1), so that no square root of a matrix is taken and sets with fewer
pictures than dimensions need nothing special. A is found once for each set that others are compared with.
"""

import functools

import numpy as np
from scipy.linalg.blas import dtrmm

RANK = 1e-10  # of the largest eigenvalue: directions below have no spread


class Normal:
    """The mean and the covariance of features [N, dimensions], and what is made of them once."""

    def __init__(self, features: np.ndarray) -> None:
        """Raises ``ValueError`` for fewer than two rows."""
        if len(features) < 2:
            raise ValueError(f"a covariance needs at least 2 pictures, not {len(features)}")
        self.count = len(features)
        self.mean = features.mean(axis=0, dtype=np.float64)
        self.centred = features - self.mean

    @functools.cached_property
    def covariance(self) -> np.ndarray:
        """[dimensions, dimensions], over N - 1."""
        return np.asarray(self.centred.T @ self.centred / (self.count - 1))

    @functools.cached_property
    def variance(self) -> float:
        """The trace of the covariance."""
        return float(np.vdot(self.centred, self.centred) / (self.count - 1))

    @functools.cached_property
    def root(self) -> np.ndarray:
        """A [dimensions, rank] with A A' the covariance; lower triangular where there are more rows than dimensions."""
        # The centred features themselves are a root; so is the triangle of their QR, which no rounding makes negative.
        tall = self.count > self.centred.shape[1]
        whole = np.asarray(np.linalg.qr(self.centred, mode="r")) if tall else self.centred
        return np.asarray(whole.T / np.sqrt(self.count - 1))


def distance(one: Normal, other: Normal) -> float:
    """The squared Fréchet distance (Heusel et al. 2017, equation 6); the ``root`` of ``other`` is used."""
    shift = one.mean - other.mean
    if one.count <= len(one.mean):
        cross = np.linalg.svd(one.centred @ other.root, compute_uv=False).sum() / np.sqrt(one.count - 1)
    else:
        cross = np.sqrt(_eigenvalues(_inner(one, other)).clip(0)).sum()
    return float(shift @ shift + one.variance + other.variance - 2 * cross)


def influence(one: Normal, other: Normal) -> np.ndarray:
    """psi [N]: how much each row of ``one`` moves its distance to ``other``.

    psi(x) = 2 (x - m)'(m - m_other) + (x - m)'(I - T)(x - m) with T = A (A' S A)^(-1/2) A'.
    """
    inner, turned = np.linalg.eigh(_inner(one, other))
    keep = inner > inner.max() * RANK
    # x'T x is the squared length of x A U (inner)^(-1/4).
    moved = one.centred @ (other.root @ (turned[:, keep] / inner[keep] ** 0.25))
    pull: np.ndarray = 2 * one.centred @ (one.mean - other.mean)
    return np.asarray(pull + np.square(one.centred).sum(axis=1) - np.square(moved).sum(axis=1))


def _inner(one: Normal, other: Normal) -> np.ndarray:
    """A' S A."""
    if one.count <= len(one.mean):
        turned = one.centred @ other.root
        return np.asarray(turned.T @ turned / (one.count - 1))
    if other.count <= len(other.mean):
        return np.asarray(other.root.T @ one.covariance @ other.root)
    # Products with a triangle take half of the work. Both factors lie in columns, as BLAS wants them: else they were
    # copied, which takes longer than the product.
    half = dtrmm(1.0, other.root, one.covariance.T, side=1, lower=1)  # a covariance is its own transpose
    return np.asarray(dtrmm(1.0, other.root, half, lower=1, trans_a=1))


def _eigenvalues(symmetric: np.ndarray) -> np.ndarray:
    """Those of a symmetric matrix. torch's LAPACK shares out the work better than numpy's, whose threads wait more."""
    import torch

    return np.asarray(torch.linalg.eigvalsh(torch.from_numpy(symmetric)))


def frechet(generated: np.ndarray, real: np.ndarray) -> float:
    """The distance of two sets of features [N, dimensions]: clean-fid's number for the same features."""
    return distance(Normal(generated), Normal(real))


def frechet_at_equal_count(generated: np.ndarray, real: np.ndarray) -> float:
    """The mean distance to ``real`` of consecutive sets of as many generated pictures as ``real`` has.

    The distance falls with the count, so only equal counts may be compared; the mean of several sets is steadier.
    """
    return float(np.mean(frechet_of_sets(generated, real)))


def frechet_of_sets(generated: np.ndarray, real: np.ndarray) -> list[float]:
    """The distance of each of these sets: every one is of noise of its own."""
    count = min(len(generated), len(real))
    wanted = Normal(real[:count])
    starts = range(0, len(generated) - count + 1, count)
    return [distance(Normal(generated[start : start + count]), wanted) for start in starts]
