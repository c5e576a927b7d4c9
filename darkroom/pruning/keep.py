"""What a store must keep: every artifact that can be reached from a root, by what each kind needs of the others.

The roots are what people and unfinished runs would miss:

- of each model, the versions with an alias and the newest ones, each with all the artifacts that its tags name;
- every accepted version of the data, and the last report on each data set;
- a training that was begun, or done and not registered; the manifest that a flow run works on;
- whatever is young.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.artifacts import (
    CheckedManifest,
    Checkpoint,
    Evaluation,
    Features,
    Manifest,
    QualityReport,
    Reference,
    Samples,
    Shards,
    Verdict,
)
from darkroom.registry import Version
from darkroom.store import MARKER, Store
from darkroom.training import checkpoints
from darkroom.training.job import FILE as JOB
from darkroom.versions import log

Name = tuple[str, str]  # (kind, digest)
DAY = 86_400.0

MANIFEST, CHECKED, SHARDS, CHECKPOINT = Manifest.kind, QualityReport.kind, Shards.kind, Checkpoint.kind
EVALUATION, SAMPLES, FEATURES = Evaluation.kind, Samples.kind, Features.kind
REFERENCE, VERDICT = Reference.kind, Verdict.kind

# Which inputs and facts of a kind name artifacts that it is of no use without, and of which kind these are. An
# evaluation needs no checkpoint: where the champion is compared with, its measures and samples are all that is read.
NEEDS: dict[str, dict[str, str]] = {
    MANIFEST: {},
    CheckedManifest.kind: {"manifest": MANIFEST},
    SHARDS: {"checked": CHECKED},
    CHECKPOINT: {"shards": SHARDS},
    EVALUATION: {"samples": SAMPLES},
    SAMPLES: {},
    FEATURES: {"samples": SAMPLES},
    REFERENCE: {},
    VERDICT: {"challenger": EVALUATION, "champion": EVALUATION, "reference": REFERENCE},
}
ALSO = "also "  # how an evaluation's inputs begin that are the shards of other data sets

# What is kept with an artifact although it does not name it: it was made of that, and would be made again.
KEPT_WITH: dict[str, tuple[str, str]] = {FEATURES: ("samples", SAMPLES), REFERENCE: ("shards", SHARDS)}

# What an unfinished run has made so far, from what it works on.
GROWS: dict[str, tuple[str, str]] = {
    CHECKED: ("manifest", MANIFEST),
    SHARDS: ("checked", CHECKED),
    EVALUATION: ("checkpoint", CHECKPOINT),
}
TAGS = {f"darkroom.{kind}": kind for kind in (MANIFEST, CHECKED, SHARDS, CHECKPOINT, EVALUATION, VERDICT)}
TAGS |= {"darkroom.verdict_pending": VERDICT}


@dataclass(frozen=True)
class Rules:
    """What is kept: ``versions`` of each model beside those with an alias; ages in seconds.

    ``generated`` is the age at which pictures go that the `generate` flow drew; infinite, they never do.
    """

    versions: int
    young: float
    unfinished: float
    generated: float = math.inf
    now: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Found:
    """An artifact in the store: its marker, empty where it has none, and when it was finished."""

    name: Name
    path: Path
    marker: Mapping[str, Any]
    made: float

    def named(self, key: str) -> str | None:
        """The digest that stands among its inputs or facts under this key."""
        for part in ("inputs", "facts"):
            value = self.marker.get(part, {}).get(key)
            if isinstance(value, str):
                return value
        return None


@dataclass(frozen=True)
class Kept:
    """What stays: artifacts, trainings under way by their digest, and the versions that are kept for themselves."""

    artifacts: frozenset[Name]
    trainings: frozenset[str]
    versions: tuple[Version, ...]

    def digests(self, kind: str) -> set[str]:
        """Of the kept artifacts those of a kind."""
        return {digest for its, digest in self.artifacts if its == kind}


def artifacts(store: Store, kinds: Iterable[str] = tuple(NEEDS)) -> dict[Name, Found]:
    """Every artifact of these kinds, also a damaged one."""
    found = {}
    for kind in kinds:
        for path in sorted((store.root / kind).glob("*")):
            if path.is_dir():
                found[kind, path.name] = Found((kind, path.name), path, *_marker(path))
    return found


def _marker(path: Path) -> tuple[Mapping[str, Any], float]:
    try:
        made = (path / MARKER).stat().st_mtime
        content = json.loads((path / MARKER).read_text("utf-8"))
        return (content if isinstance(content, dict) else {}), made
    except (OSError, ValueError):
        return {}, path.stat().st_mtime


def keep(store: Store, versions: Sequence[Version], pinned: Callable[[str], bool], rules: Rules) -> Kept:
    """What of the store must stay.

    ``versions`` are all that MLflow has; ``pinned(run)`` says whether the flow run of this id may still go on.
    """
    there = artifacts(store)
    chosen = kept_versions(versions, rules.versions)
    working = dict(trainings(store, rules))
    roots: set[Name] = set()
    for version in chosen:
        roots |= {(kind, version.tags[tag]) for tag, kind in TAGS.items() if version.tags.get(tag)}
    for dataset in log.datasets(store):
        for accepted in log.versions(dataset, store):
            roots |= {(MANIFEST, accepted.manifest), (CHECKED, accepted.checked)}
        if last := log.last_checked(dataset, store):
            roots.add((CHECKED, last))
    roots |= {name for name, one in there.items() if rules.now - one.made < rules.young}
    roots |= {(SHARDS, shards) for shards in working.values() if shards}
    begun = {(MANIFEST, manifest) for run, manifest in pins(store).items() if pinned(run)}
    registered = {version.checkpoint for version in versions}
    begun |= {
        name
        for name, one in there.items()
        if name[0] == CHECKPOINT and name[1] not in registered and rules.now - one.made < rules.unfinished
    }
    return Kept(_reached(roots | _grown(begun, there), there), frozenset(working), tuple(chosen))


def kept_versions(versions: Iterable[Version], newest: int) -> list[Version]:
    """Of every model the versions with an alias and the ``newest`` ones."""
    models: dict[str, list[Version]] = {}
    for version in sorted(versions, key=lambda one: int(one.version), reverse=True):
        models.setdefault(version.model, []).append(version)
    return [
        version for mine in models.values() for place, version in enumerate(mine) if place < newest or version.aliases
    ]


def trainings(store: Store, rules: Rules) -> Iterator[tuple[str, str]]:
    """(digest, digest of its shards) of every training that was begun, has a checkpoint and is not too old."""
    work = store.workplace(Checkpoint, "*")
    for path in sorted(work.parent.glob(work.name)):
        saved = checkpoints.found(path)
        if saved and rules.now - saved[0].stat().st_mtime < rules.unfinished:
            try:
                shards = str(json.loads((path / JOB).read_text("utf-8"))["digests"]["shards"])
            except (OSError, ValueError, KeyError, TypeError):
                shards = ""
            yield path.name.removeprefix(f"{CHECKPOINT}-"), shards


def pins(store: Store) -> dict[str, str]:
    """The manifest that each flow run works on, by the name of its file: the run's id, or that and a data set's."""
    return {path.name: path.read_text("utf-8").strip() for path in sorted((store.root / "pins").glob("*"))}


def _reached(roots: Iterable[Name], there: Mapping[Name, Found]) -> frozenset[Name]:
    """The roots, and all that these need, and all that these need in turn."""
    beside: dict[Name, list[Name]] = {}
    for name, one in there.items():
        if name[0] in KEPT_WITH:
            key, kind = KEPT_WITH[name[0]]
            beside.setdefault((kind, one.named(key) or ""), []).append(name)
    reached: set[Name] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        waiting += beside.get(name, ())
        if found := there.get(name):
            waiting += needs(found)
    return frozenset(reached)


def needs(one: Found) -> list[Name]:
    """The artifacts that an artifact is of no use without."""
    wanted = [(kind, digest) for key, kind in NEEDS[one.name[0]].items() if (digest := one.named(key))]
    inputs = one.marker.get("inputs", {})
    return wanted + [(SHARDS, digest) for key, digest in inputs.items() if key.startswith(ALSO)]


def _grown(begun: set[Name], there: Mapping[Name, Found]) -> set[Name]:
    """What was begun, and what was made of it so far."""
    grown, before = set(begun), -1
    while len(grown) != before:
        before = len(grown)
        for name, one in there.items():
            if name[0] in GROWS:
                key, kind = GROWS[name[0]]
                if (kind, one.named(key) or "") in grown:
                    grown.add(name)
    return grown
