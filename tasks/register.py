"""Registration as a task: the version, its alias, and the links to both."""

from pathlib import Path

from prefect.artifacts import create_link_artifact

from darkroom.artifacts import CheckedManifest, Checkpoint, Evaluation, Verdict
from darkroom.promotion import Registered, settle
from darkroom.recipe import Recipe
from darkroom.settings import Settings
from darkroom.tracking import RunDescription, open_registry

from .stage import open_store, stage


@stage("register")
def register(
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    verdict: Verdict,
    checked: CheckedManifest,
    report: Path,
    run: RunDescription,
    plan: Recipe,
) -> Registered:
    """The registered version and what was decided about it."""
    settings, store = open_store()
    registry = open_registry(settings, plan.name)
    done = settle(registry, run, plan, checkpoint, evaluation, verdict, checked, report, store)
    create_link_artifact(
        version_link(settings, done),
        link_text=f"{done.name} version {done.version}",
        key="registered-version",
        description=f"{done.decision}: {done.reason}",
    )
    return done


def version_link(settings: Settings, done: Registered) -> str:
    """The version's page in MLflow, as `darkroom up` or the configured server shows it."""
    return f"{model_link(settings, done.name)}/versions/{done.version}"


def model_link(settings: Settings, model: str) -> str:
    """The model's page in MLflow, likewise."""
    remote = settings.mlflow_uri if settings.mlflow_uri and settings.mlflow_uri.startswith("http") else None
    base = remote or f"http://{settings.host}:{settings.mlflow_port}"
    return f"{base.rstrip('/')}/#/models/{model}"
