"""Runs of MLflow that nobody needs: those of trainings that never became a version, by their own tags alone.

`mlflow gc` looks at neither versions nor aliases, and would take the measures of a champion whose run somebody deleted;
here a run that any version names, of itself or as the run that judged it, is never touched.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ._registry import CHECKPOINT

PAGE = 200
# What a run of `darkroom run` has and no other: those of monitoring and of other programs are left alone.
TAGS = ("darkroom.key", "darkroom.manifest", "darkroom.shards", CHECKPOINT, "darkroom.evaluation")
JUDGED_BY = "darkroom.run"
RUNNING = "RUNNING"


@dataclass(frozen=True)
class Attempt:
    """A run without a version: ``folders`` are its artifacts' and its models', where they lie on this machine."""

    run_id: str
    experiment: str
    checkpoint: str
    status: str
    last: float
    """When it began or ended, in seconds since 1970."""
    models: tuple[str, ...]
    folders: tuple[Path, ...]
    deleted: bool


def attempts(client: Any) -> Iterator[Attempt]:
    """Every run of `darkroom run` that no version names, also one that was deleted and not yet removed."""
    from mlflow.entities import ViewType

    needed = _needed(client)
    experiments = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ALL, max_results=5000)]
    if not experiments:
        return
    condition = f"tags.`{TAGS[0]}` LIKE '%'"
    for run in _pages(lambda token: client.search_runs(experiments, condition, ViewType.ALL, PAGE, page_token=token)):
        tags = run.data.tags
        if run.info.run_id in needed or not all(tags.get(tag) for tag in TAGS):
            continue
        models = [*_models(client, run)]
        yield Attempt(
            run.info.run_id,
            run.info.experiment_id,
            tags[CHECKPOINT],
            run.info.status,
            (run.info.end_time or run.info.start_time or 0) / 1000,
            tuple(one.model_id for one in models),
            tuple(_folders([run.info.artifact_uri, *(one.artifact_location for one in models)])),
            run.info.lifecycle_stage == "deleted",
        )


def forget(client: Any, attempt: Attempt) -> None:
    """Mark a run and its models as deleted; nothing of them is gone yet, and doing it twice does no harm."""
    if not attempt.deleted:
        client.delete_run(attempt.run_id)
    for model in attempt.models:
        client.delete_logged_model(model)


def remove(client: Any, attempt: Attempt) -> None:
    """Remove the rows of a run that was forgotten, where MLflow is a database of ours."""
    store = client._tracking_client.store
    for model in attempt.models:
        store._hard_delete_logged_model(model)
    store._hard_delete_run(attempt.run_id)


def models(client: Any) -> list[str]:
    """The names of all registered models."""
    return [
        one.name for one in _pages(lambda token: client.search_registered_models(max_results=PAGE, page_token=token))
    ]


def _needed(client: Any) -> set[str]:
    """Every run that a version names."""
    found = set()
    for one in _pages(lambda token: client.search_model_versions("", max_results=PAGE, page_token=token)):
        found |= {one.run_id, dict(one.tags).get(JUDGED_BY)}
    return {run for run in found if run}


def _models(client: Any, run: Any) -> Iterable[Any]:
    condition = f"source_run_id = '{run.info.run_id}'"
    return _pages(
        lambda token: client.search_logged_models([run.info.experiment_id], condition, max_results=50, page_token=token)
    )


def _pages(ask: Any) -> Iterator[Any]:
    """The entries of every page of an answer."""
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _folders(places: Iterable[str]) -> Iterator[Path]:
    """The folders of this machine among them, each with all that is a run's or a model's own."""
    for place in places:
        parts = urlsplit(place)
        with contextlib.suppress(ValueError):
            if parts.scheme in ("", "file"):
                path = Path(unquote(parts.path) if parts.scheme else place)
                yield path.parent if path.name == "artifacts" else path
