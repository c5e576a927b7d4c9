"""The verdict: may the challenger replace the champion?

Both were drawn from the same noise and prompts. The difference of their Fréchet distances to the same reference is
judged by a confidence interval from the distance's influence function, which is far narrower than that of unpaired
pictures: with S and S_ref the covariances, m and m_ref the means, S_ref = A A' and T = A (A' S A)^(-1/2) A',

    psi(x) = 2 (x - m)'(m - m_ref) + (x - m)'(I - T)(x - m),    SE = sd(psi_challenger - psi_champion) / sqrt(N).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darkroom.artifacts import Evaluation, Reference, Verdict
from darkroom.recipe import Gate
from darkroom.stages import stage_digest
from darkroom.store import Store, write_json

from .evaluate import metrics_of

Decision = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reasons, and the interval of challenger minus champion where there is a champion."""

    decision: Decision
    reasons: tuple[str, ...]
    measure: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def compare(
    challenger: Evaluation,
    champion: Evaluation | None,
    reference: Reference,
    measure: str,
    gate: Gate,
    store: Store,
    *,
    champion_checkpoint: str = "",
    fresh: bool = False,
) -> Verdict:
    """Judge a challenger by the gate's limits and, where there is a champion, by the paired difference of distances.

    ``champion_checkpoint`` is the digest of the champion's checkpoint, which is the challenger's own where the champion
    is only measured anew; it is recorded, so that the verdict serves against that champion alone.
    """
    inputs = {
        "challenger": challenger.digest,
        "champion": champion.digest if champion else None,
        "champion_checkpoint": champion_checkpoint,
        "reference": reference.digest,
    }

    def build(work: Path) -> None:
        write_json(
            work / "verdict.json",
            asdict(judge(challenger, champion, reference, measure, gate, bool(champion_checkpoint))),
        )

    fields = gate.digest_fields()
    return store.get_or_build(
        Verdict, stage_digest("verdict", fields, inputs), build, inputs=inputs, fields=fields, fresh=fresh
    )


def read(verdict: Verdict) -> Judgement:
    """What a verdict says."""
    plain: dict[str, Any] = json.loads((verdict.path / "verdict.json").read_text("utf-8"))
    return Judgement(**plain | {"reasons": tuple(plain["reasons"])})


def judge(
    challenger: Evaluation,
    champion: Evaluation | None,
    reference: Reference,
    measure: str,
    gate: Gate,
    there_is_a_champion: bool,
) -> Judgement:
    """The judgement itself; see :func:`compare`."""
    broken = broken_limits(metrics_of(challenger), gate)
    if broken:
        return Judgement("FAIL", tuple(broken), measure)
    if champion is None:
        what = "the champion already" if there_is_a_champion else "the first version"
        return Judgement("PASS", (f"it is {what} and meets every limit of the recipe",), measure)
    from safetensors.numpy import load_file

    real = load_file(reference.path / "features.safetensors")["validation"]
    new, old = (load_file(one.path / "features.safetensors")["generated"] for one in (challenger, champion))
    difference, low, high = paired_interval(new, old, real, gate.confidence)
    share = f"{gate.confidence:.0%}"
    if high < 0:
        decision: Decision = "PASS"
        reason = f"its {measure} is {-difference:.4g} below the champion's ({share} interval {-high:.4g} to {-low:.4g})"
    elif low > 0:
        decision = "FAIL"
        reason = f"its {measure} is {difference:.4g} above the champion's ({share} interval {low:.4g} to {high:.4g})"
    else:
        decision = "INCONCLUSIVE"
        reason = (
            f"its {measure} differs from the champion's by {difference:+.4g}, and the {share} interval {low:.4g} to "
            f"{high:.4g} holds zero: the difference may be chance"
        )
    return Judgement(decision, (reason,), measure, difference, low, high)


def broken_limits(metrics: dict[str, float], gate: Gate) -> list[str]:
    """One sentence for each limit that is not met; a measure that is missing or not a number meets none."""
    found = []
    for name, limit in sorted(gate.limits.items()):
        value = metrics.get(name, float("nan"))
        if limit.min is not None and not value >= limit.min:
            found.append(f"{name} is {value:.4g}, below the limit {limit.min:.4g}")
        if limit.max is not None and not value <= limit.max:
            found.append(f"{name} is {value:.4g}, above the limit {limit.max:.4g}")
    return found


def paired_interval(
    new: np.ndarray, old: np.ndarray, real: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    """(difference, low, high) of the Fréchet distances of ``new`` and ``old`` to ``real``: features [N, dimensions].

    Row i of ``new`` and of ``old`` were drawn from the same noise and prompt. The reference counts as fixed.
    """
    from scipy.stats import norm

    from .features import frechet

    difference = frechet(new, real) - frechet(old, real)
    spread = influence(new, real) - influence(old, real)
    error = float(spread.std(ddof=1)) / len(spread) ** 0.5
    reach = float(norm.ppf(0.5 + confidence / 2)) * error
    return difference, difference - reach, difference + reach


def influence(features: np.ndarray, real: np.ndarray) -> np.ndarray:
    """psi of each row: how much it moves the Fréchet distance of ``features`` to ``real``, [N]."""
    mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    values, vectors = np.linalg.eigh(np.cov(real, rowvar=False))
    root = vectors * np.sqrt(values.clip(0))  # A, with A A' = S_ref
    inner, turned = np.linalg.eigh(root.T @ covariance @ root)
    keep = inner > inner.max() * 1e-10  # directions in which either set has no spread
    transport = root @ (turned[:, keep] / np.sqrt(inner[keep])) @ turned[:, keep].T @ root.T
    centred = features - mean
    pull: np.ndarray = 2 * centred @ (mean - real.mean(axis=0))
    bend: np.ndarray = ((centred @ (np.eye(len(mean)) - transport)) * centred).sum(axis=1)
    return np.asarray(pull + bend)
