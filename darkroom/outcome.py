"""What a run came to, as one JSON object: for `darkroom run --json`, for the terminal and for other programs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .again import Again, Reproduction
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


def made_again(
    known: Again,
    shards: Shards,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    found: Reproduction,
    seconds: dict[str, float],
    reused: list[str],
) -> dict[str, Any]:
    """The outcome of making a version again: ``reproduced``, and where not, the first file that ``differs``."""
    data, sides = summary(known.checked), read_index(shards)["sides"]
    artifacts = (known.manifest, known.checked, shards, checkpoint, evaluation)
    version = known.version
    return {
        "recipe": known.plan.name,
        "seed": known.plan.seed,
        "decision": "unchanged",
        "reason": found.words,
        "reproduced": found.reproduced,
        "differs": found.differs,
        "model": {
            "name": version.model,
            "version": version.version,
            "uri": version.uri,
            "run_id": version.run_id,
        },
        "digests": {artifact.kind: artifact.digest for artifact in artifacts},
        "reused": reused,
        "data": {
            "rows": data["rows"],
            "quarantined": data["quarantined"],
            "duplicates": data["duplicates"],
            **sides,
        },
        "metrics": metrics_of(evaluation),
        "seconds": seconds,
        "estimate": compared(checkpoint, seconds, reused),
        "paths": {
            "data_docs": str(known.checked.path / data["docs"]),
            "review": str(known.checked.path / data["review"]),
            "samples": str(evaluation.path / "grid.png"),
            "pipeline": str(checkpoint.path / "pipeline"),
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
