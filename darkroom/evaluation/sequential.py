"""When to look and how sure to be: tests that may stop early and still keep their promise.

A comparison is looked at after fixed numbers of pictures. Each look may end it, so each spends a part of the allowed
chance of a false PASS: little early, most at the end (Lan and DeMets 1983, with the spending function of O'Brien and
Fleming's shape). The statistics of the looks are those of a Brownian motion (Jennison and Turnbull 2000, chapter 11),
whose chance of crossing the bounds is integrated numerically (Armitage, McPherson and Rowe 1969).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

REACH = 9.0  # standard deviations beyond which a Brownian motion is not followed
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)


def ladder(first: int, budget: int) -> list[int]:
    """The counts at which a comparison may be looked at: ``first``, doubled each time, and ``budget`` at the end."""
    counts = [min(first, budget)]
    while counts[-1] * 2 < budget:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == budget else [*counts, budget]


def spent(share: float, alpha: float) -> float:
    """The part of ``alpha`` that may be spent when ``share`` of the pictures are drawn."""
    return float(2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(share)))


def bounds(shares: Sequence[float], alpha: float) -> list[float]:
    """For each look, how many standard errors from zero a difference must be, one-sided at ``alpha`` altogether.

    ``shares`` are the parts of the last count at which it is looked, rising to 1. Where there is truly no difference,
    the chance that any look exceeds its bound is ``alpha``.
    """
    found: list[float] = []
    places, mass = np.zeros(1), np.ones(1)  # where the motion may be that crossed nothing yet, and with which chance
    before, used = 0.0, 0.0
    for share in shares:
        step, total = math.sqrt(share - before), spent(share, alpha)
        allowed = total - used

        def crossed(
            bound: float, places: np.ndarray = places, mass: np.ndarray = mass, step: float = step, aim: float = allowed
        ) -> float:
            return float(mass @ norm.sf((bound - places) / step)) - aim

        bound = float(brentq(crossed, 0.0, REACH)) if crossed(REACH) < 0 < crossed(0.0) else REACH
        found.append(bound / math.sqrt(share))
        low = -REACH * math.sqrt(share)
        middle, half = (bound + low) / 2, (bound - low) / 2
        nodes = middle + half * NODES
        mass = half * WEIGHTS * (norm.pdf((nodes[:, None] - places) / step) @ mass) / step
        places, before, used = nodes, share, total
    return found


def needed(spread: float, gain: float, power: float, bound: float) -> float:
    """Pictures with which a true ``gain`` is seen with chance ``power``; ``spread`` is the deviation of one picture's
    part in the difference, ``bound`` that of the last look."""
    if spread == 0:
        return 0.0
    return float(((bound + norm.isf(1 - power)) * spread / gain) ** 2) if gain > 0 else math.inf


def planned(counts: Sequence[int], spread: float, gain: float, power: float, alpha: float) -> int:
    """How many looks of the ladder ``counts`` to plan for: the fewest that see ``gain``, or all."""
    for looks in range(1, len(counts)):
        last = bounds([count / counts[looks - 1] for count in counts[:looks]], alpha)[-1]
        if needed(spread, gain, power, last) <= counts[looks - 1]:
            return looks
    return len(counts)
