"""`darkroom prune`: what people and unfinished runs need stays; the rest goes, and how much that was is said.

Marks, then sweeps, alone with the store: a run that is under way makes it refuse, and one that begins meanwhile waits.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from darkroom.generate import FOLDER
from darkroom.provenance import read
from darkroom.registry import Attempt, Registry, Version
from darkroom.settings import Settings
from darkroom.store import Store
from darkroom.tracking import open_registry

from . import rows
from .keep import CHECKPOINT, DAY, Kept, Rules, artifacts, keep
from .sweep import drawn, superfluous, unknown
from .trash import Freed, Item, empty, freed, take

RUNS = "MLflow runs"


@dataclass(frozen=True)
class Pruned:
    """What went, or with ``dry_run`` would go, and what stays; ``remarks`` are sentences on what is left to others."""

    dry_run: bool
    freed: tuple[Freed, ...]
    artifacts: dict[str, int]
    versions: tuple[str, ...]
    remarks: tuple[str, ...]
    flow_runs: tuple[str, ...]
    """The ids of the flow runs that made the versions that are kept: their pages are linked to."""

    @property
    def bytes(self) -> int:
        """All that the disk gets back."""
        return sum(one.bytes for one in self.freed)

    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "bytes": self.bytes}


def prune(
    settings: Settings, versions: int, *, dry_run: bool = False, goes_on: Callable[[str], bool] = lambda pin: True
) -> Pruned:
    """Take away all but what is needed: of each model the versions with an alias and the newest ``versions``.

    ``goes_on(pin)`` says whether the flow run of this pin (its id begins the name) may still go on; where nobody knows,
    it may, until the age at which unfinished trainings go. Raises
    :class:`InUse` while a run uses the store, and :class:`ServiceUnavailable` when MLflow, which knows the versions,
    does not answer; nothing is taken then.
    """
    store = Store(settings.store)
    days = settings.prune_generated_days
    generated = math.inf if days is None else days * DAY
    rules = Rules(versions, settings.prune_age_hours * 3600, settings.prune_unfinished_days * DAY, generated)

    def pinned(pin: str) -> bool:
        path = store.root / "pins" / pin
        return rules.now - path.stat().st_mtime < rules.unfinished and goes_on(pin)

    if dry_run:
        return _prune(settings, store, rules, pinned, dry_run=True)
    with store.alone():
        empty(store.root)
        return _prune(settings, store, rules, pinned, dry_run=False)


def _prune(settings: Settings, store: Store, rules: Rules, pinned: Callable[[str], bool], dry_run: bool) -> Pruned:
    registry = registry_of(settings)
    known = registered(registry)
    kept = keep(store, known, pinned, rules)
    items = superfluous(settings.root, store, kept, pinned, rules)
    dead = _attempts(registry, kept, rules) if registry else []
    items += [Item(RUNS, folder) for one in dead for folder in one.folders if folder.is_relative_to(settings.root)]
    found = freed(items)
    if not dry_run:
        for one in dead:
            registry.forget(one)  # type: ignore[union-attr]
        take(items, store.root)
        for one in dead:
            registry.remove(one)  # type: ignore[union-attr]
    cached = rows.drop(store, [item.path for item in items], dry_run)
    stay: dict[str, int] = {}
    for kind, digest in artifacts(store):
        stay[kind] = stay.get(kind, 0) + ((kind, digest) in kept.artifacts)
    return Pruned(
        dry_run,
        tuple(one for one in (*found, cached) if one.count),
        stay,
        tuple(version.uri for version in kept.versions),
        tuple(_remarks(settings, store, registry, dead)),
        tuple(_flow_runs(registry, kept.versions)) if registry else (),
    )


def registry_of(settings: Settings) -> Registry | None:
    """The registry; None where none was ever made, so that looking makes none."""
    if settings.mlflow_uri is None and not (settings.root / "mlflow.db").is_file():
        return None
    return open_registry(settings, "darkroom")


def registered(registry: Registry | None) -> list[Version]:
    """All versions that darkroom registered, of every model."""
    if registry is None:
        return []
    return [version for model in registry.models() for version in registry.versions(model) if version.checkpoint]


def _attempts(registry: Registry, kept: Kept, rules: Rules) -> list[Attempt]:
    """Runs without a version that nobody goes on with. On a server, one may be running on another machine."""
    needed = kept.digests(CHECKPOINT) | kept.trainings
    return [
        one
        for one in registry.attempts()
        if one.checkpoint not in needed
        and rules.now - one.last >= rules.young
        and (registry.local or one.status != "RUNNING")
    ]


def _flow_runs(registry: Registry, versions: Iterable[Version]) -> Iterator[str]:
    for version in versions:
        known = read(registry, version).provenance or {}
        if run := (known.get("flow_run") or {}).get("id"):
            yield str(run)


def _remarks(settings: Settings, store: Store, registry: Registry | None, dead: list[Attempt]) -> list[str]:
    said = []
    if settings.prune_generated_days is None and (kept := drawn(settings.root)):
        (held,) = freed(Item(FOLDER, path) for path in kept)
        said.append(
            f"{settings.root / FOLDER} keeps what the generate flow drew, {held.count:,} "
            f"folder{'s' if held.count > 1 else ''} of {size(held.bytes)}: they go only where "
            "DARKROOM_PRUNE_GENERATED_DAYS says after how many days"
        )
    if strange := unknown(store):
        said.append(f"left alone, as nothing here knows them: {', '.join(str(store.root / name) for name in strange)}")
    if registry is not None and not registry.local and dead:
        said.append(
            f"{len(dead)} runs are marked as deleted in MLflow; its server frees them with `mlflow gc --run-ids "
            f"{','.join(one.run_id for one in dead[:3])}{',...' if len(dead) > 3 else ''}`"
        )
    return said


def lines(found: Pruned) -> list[str]:
    """What was done, for a terminal."""
    told = [f"{one.count:>8,}  {one.kind:<18} {size(one.bytes):>10}" for one in found.freed]
    what = "would free" if found.dry_run else "freed"
    stay = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.artifacts.items()) if count)
    return [
        f"{what} {size(found.bytes)}",
        *told,
        f"kept {stay or 'no artifact'}",
        f"for {', '.join(found.versions) or 'no registered version'}, and the accepted data",
        *found.remarks,
    ]


def size(number: int) -> str:
    """Bytes as people read them."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
