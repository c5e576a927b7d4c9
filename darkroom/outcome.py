"""What a run came to, as one JSON object: for `darkroom run --json`, for the terminal and for other programs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .artifacts import CheckedManifest, Checkpoint, Evaluation, Manifest, QualityReport, Shards, Verdict
from .evaluation.evaluate import metrics_of
from .evaluation.verdict import read
from .preprocess.shards import read_index
from .promotion import Registered
from .quality.check import summary
from .recipe import Recipe
from .training.estimate import compared


@dataclass(frozen=True)
class RunResults:
    """All that the stages of one run returned."""

    manifest: Manifest
    checked: CheckedManifest
    shards: Shards
    checkpoint: Checkpoint
    evaluation: Evaluation
    verdict: Verdict
    registered: Registered
    report: Path


def outcome(plan: Recipe, results: RunResults, seconds: dict[str, float], reused: list[str]) -> dict[str, Any]:
    """The outcome of a run; ``seconds`` by stage, ``reused`` the stages that the store answered."""
    found, sides = summary(results.checked), read_index(results.shards)["sides"]
    artifacts = (
        results.manifest,
        results.checked,
        results.shards,
        results.checkpoint,
        results.evaluation,
        results.verdict,
    )
    return {
        "recipe": plan.name,
        "seed": plan.seed,
        "decision": results.registered.decision,
        "reason": results.registered.reason,
        "model": results.registered.model(),
        "digests": {artifact.kind: artifact.digest for artifact in artifacts},
        "reused": reused,
        "data": {
            "rows": found["rows"],
            "quarantined": found["quarantined"],
            "duplicates": found["duplicates"],
            **sides,
        },
        "metrics": metrics_of(results.evaluation),
        "verdict": asdict(read(results.verdict)),
        "seconds": seconds,
        "estimate": compared(results.checkpoint, seconds, reused),
        "paths": {
            "report": str(results.report),
            "data_docs": str(results.checked.path / found["docs"]),
            "review": str(results.checked.path / found["review"]),
            "samples": str(results.evaluation.path / "grid.png"),
            "pipeline": str(results.checkpoint.path / "pipeline"),
        },
    }


def data_of(report: QualityReport) -> dict[str, Any]:
    """What a check found, for those who review the data."""
    found = summary(report)
    counts = {name: found[name] for name in ("rows", "accepted", "quarantined", "duplicates", "reasons", "findings")}
    return {**counts, "data_docs": str(report.path / found["docs"]), "review": str(report.path / found["review"])}


def refused(plan: Recipe, message: str) -> dict[str, Any]:
    """The outcome of a run that the data gate stopped."""
    return {"recipe": plan.name, "seed": plan.seed, "decision": "refused_data", "reason": message}
