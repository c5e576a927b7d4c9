"""Collection as a task: look at the source, and pin what this flow run works on."""

from pathlib import Path

from prefect import runtime

from darkroom.artifacts import CheckedManifest, Manifest
from darkroom.collect import manifest as collection
from darkroom.recipe import Collect, Recipe
from darkroom.store import Store
from darkroom.versions import log

from .stage import Progress, open_store, stage


@stage("collect")
def collect(plan: Collect) -> Manifest:
    """The manifest of what the source holds now; a retried or resumed flow run gets the one that it began with."""
    _, store = open_store()
    return pinned_or_collected(plan, store)


def pinned_or_collected(plan: Collect, store: Store, name: str = "") -> Manifest:
    """What :func:`collect` says, of the data set of this name among those of the run."""
    pinned = _pinned(store, name)
    if pinned is not None:
        return pinned
    found = collection.collect(plan, store, Progress("collect-progress", "pictures collected"))
    _pin(store, found, name)
    return found


@stage("go back")
def go_back(plan: Recipe, version: str) -> tuple[Manifest, CheckedManifest]:
    """The manifest and the accepted rows of an earlier version of the data; the source is not looked at."""
    _, store = open_store()
    found = log.resolve(log.dataset_of(plan), version, store)
    return log.manifest_of(found, store), log.checked_of(found, store)


def _pinned(store: Store, name: str) -> Manifest | None:
    path = _place(store, name)
    return store.find(Manifest, path.read_text().strip()) if path and path.is_file() else None


def _place(store: Store, name: str) -> Path | None:
    """Where a flow run keeps which manifest it works on."""
    run = runtime.flow_run.id
    return store.root / "pins" / (f"{run}-{name}" if name else str(run)) if run else None


def _pin(store: Store, manifest: Manifest, name: str) -> None:
    if path := _place(store, name):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(manifest.digest)
