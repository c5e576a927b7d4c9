"""A run as MLflow sees it: which run it is, what it is described by, and its curves while it goes on."""

import contextlib
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .artifacts import CheckedManifest, Manifest, Shards
from .errors import ServiceUnavailable
from .evaluation.evaluate import evaluation_digest
from .preprocess.shards import read_index
from .provenance import portable
from .quality.check import summary
from .recipe import Recipe
from .registry import Dataset, Registry
from .settings import Settings
from .store import digest_of
from .store import marker as read_marker
from .training.supervise import checkpoint_digest

PAUSE_SECONDS = 5.0
PAUSE_AFTER_FAILURE_SECONDS = 60.0


def open_registry(settings: Settings, experiment: str) -> Registry:
    """The registry that the settings name."""
    place = settings.mlflow_artifacts
    return Registry(settings.tracking_uri, place, experiment, settings.mlflow_server, settings.mlflow_login)


@dataclass(frozen=True)
class RunDescription:
    """What makes a darkroom run's MLflow run: ``key`` finds it again after a kill."""

    key: str
    name: str
    params: dict[str, Any]
    tags: dict[str, str]
    dataset: Dataset

    def open(self, registry: Registry) -> str:
        """The id of the MLflow run, found or created."""
        return registry.open_run(self.key, self.name, self.params, self.tags, self.dataset)


def describe(
    plan: Recipe, manifest: Manifest, checked: CheckedManifest, shards: Shards, others: dict[str, Shards] | None = None
) -> RunDescription:
    """The description of the run of this plan on this data; the digests of what it will make are known beforehand.

    ``others`` are the data sets of ``evaluate.also``.
    """
    checkpoint = checkpoint_digest(shards, plan)
    evaluation = evaluation_digest(checkpoint, shards, plan.evaluate, plan.train.threads, others)
    found, sides = summary(checked), read_index(shards)["sides"]
    digests = {
        "manifest": manifest.digest,
        "checked": checked.digest,
        "shards": shards.digest,
        "checkpoint": checkpoint,
        "evaluation": evaluation,
    }
    return RunDescription(
        key=digest_of([checkpoint, evaluation]),
        name=f"{plan.name}-{checkpoint[:8]}",
        params=portable(plan),
        tags={f"darkroom.{kind}": digest for kind, digest in digests.items()},
        dataset=Dataset(
            name=plan.name,
            digest=manifest.digest,
            source=str(read_marker(manifest)["inputs"]["source"]),
            rows=found["rows"],
            profile={"accepted": found["accepted"], "quarantined": found["quarantined"], **sides},
        ),
    )


@dataclass
class Tracker:
    """Passes a training's events on to MLflow while it works. An MLflow that is away is left alone for a minute."""

    registry: Registry
    run: RunDescription
    _next: float = field(default=0.0, init=False)

    def follow(self, events: Path) -> None:
        """Log what is new, at most every few seconds; never raises because of MLflow."""
        if time.monotonic() < self._next:
            return
        try:
            self.registry.log_events(self.run.open(self.registry), events)
            pause = PAUSE_SECONDS
        except ServiceUnavailable as error:
            logging.getLogger("darkroom").warning("%s; training goes on, register fills the gap", error)
            pause = PAUSE_AFTER_FAILURE_SECONDS
        self._next = time.monotonic() + pause

    def end(self, status: str) -> None:
        """Close the run as FAILED or KILLED; the same command opens it again."""
        with contextlib.suppress(ServiceUnavailable):
            self.registry.close_run(self.run.open(self.registry), status)


class Untracked:
    """Tells MLflow nothing: of a training that it knows already."""

    def follow(self, events: Path) -> None:
        """Pass over what is new."""

    def end(self, status: str) -> None:
        """Leave the run as it is."""
