"""Making a registered version again: its recipe from MLflow, its data from the store, and whether the bytes agree."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .artifacts import CheckedManifest, Checkpoint, Manifest
from .errors import RecipeError
from .provenance import MODEL, Record, portable, read, remembered
from .recipe import Recipe, parse
from .references import full
from .registry import Registry, Version
from .stages import STAGES
from .store import Store, file_digest
from .versions import log


@dataclass(frozen=True)
class Again:
    """A version with all that making it again takes."""

    version: Version
    plan: Recipe
    record: Record
    manifest: Manifest
    checked: CheckedManifest


@dataclass(frozen=True)
class Reproduction:
    """Whether a model has the bytes that were registered; ``differs`` names the first file that does not."""

    reproduced: bool
    differs: str | None
    words: str


def recall(registry: Registry, reference: str, store: Store) -> Again:
    """All that making a version again takes; nothing is written.

    Raises :class:`RecipeError` where MLflow has no recipe of it, or its data or weights are no longer here.
    """
    version = registry.resolve(full(reference))
    record = read(registry, version)
    if record.recipe is None or record.provenance is None:
        raise RecipeError(
            f"{version.uri} cannot be made again: MLflow at {registry.shown} has no recipe.json and provenance.json of "
            "it, or they cannot be read from here"
        )
    plan = _with_places(_plan(record.recipe, record.provenance, version.uri), record.provenance, version, store)
    return Again(version, plan, record, *_data(record.provenance["data"], version, store))


def _plan(recipe: dict[str, Any], provenance: dict[str, Any], uri: str) -> Recipe:
    """The recipe as it was given, as some defaults follow from what was; and as it was where defaults have changed."""
    where = f"the recipe of {uri}"
    given = provenance["given"]
    return parse(_kept(given, recipe, portable(parse(given, where))), where)


def _kept(given: dict[str, Any], then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was given, and every other field of which today's recipe makes something else than that one did."""
    table = dict(given)
    for key, value in then.items():
        today = now.get(key)
        if isinstance(value, dict) and isinstance(today, dict):
            inner = _kept(given.get(key) or {}, value, today)
            if inner or key in given:
                table[key] = inner
        elif value != today:
            table[key] = value
    return table


def _with_places(plan: Recipe, provenance: dict[str, Any], version: Version, store: Store) -> Recipe:
    """The plan with the local folders of weights where they lie on this machine."""
    table = plan.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for dotted in provenance["local"]:
        weights = provenance["weights"][dotted]
        place = remembered(weights["sha256"], store)
        if place is None or not Path(place).exists():
            raise RecipeError(
                f"{version.uri} cannot be made again: {dotted} was {weights['name']!r} (sha256 "
                f"{weights['sha256'][:12]}), which is not on this machine{f' at {place} any more' if place else ''}"
            )
        *sections, field = dotted.split(".")
        inner = table
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[field] = place
    return parse(table, f"the recipe of {version.uri}") if provenance["local"] else plan


def _data(data: dict[str, Any], version: Version, store: Store) -> tuple[Manifest, CheckedManifest]:
    dataset, number = data["dataset"], data.get("version")
    named = f"version {number} of the data set {dataset!r}" if number else f"data of {dataset!r}"
    known = next((one for one in log.versions(dataset, store) if one.checked == data["checked"]), None)
    gone = f"{version.uri} cannot be made again: its data, {named},"
    if known is None:
        raise RecipeError(f"{gone} are not in this store; run this where it was trained, or with its DARKROOM_HOME")
    if erased := log.erased(known, store):
        raise RecipeError(f"{gone} are gone: {erased:,} of the pictures were erased on request")
    manifest, checked = store.find(Manifest, known.manifest), store.find(CheckedManifest, known.checked)
    if manifest is None or checked is None:
        raise RecipeError(f"{gone} are no longer whole in this store; put them back from a backup")
    return manifest, checked


def compared(again: Again, checkpoint: Checkpoint) -> Reproduction:
    """Hold a checkpoint against the registered version: its digest, and the sha256 of every file of the model."""
    version, record = again.version, again.record.provenance or {}
    if checkpoint.digest != version.checkpoint:
        before = record["code"]["stages"]
        raised = [
            f"{kind} {before.get(kind)} -> {one.version}"
            for kind, one in STAGES.items()
            if before.get(kind) != one.version
        ]
        why = f"stages have changed since: {', '.join(raised)}" if raised else "weights or data are others by now"
        return Reproduction(False, None, f"{version.uri} cannot be made again by this code, {why}")
    registered: dict[str, str] = record["files"]
    now = {
        name: path
        for path in sorted(checkpoint.path.rglob("*"))
        if path.is_file() and MODEL.fullmatch(name := path.relative_to(checkpoint.path).as_posix())
    }
    # Weights first: what differs in them matters most.
    for name in sorted({*registered, *now}, key=lambda name: (not name.endswith(".safetensors"), name)):
        if name not in now or name not in registered or file_digest(now[name]) != registered[name]:
            trained = record["device"]["training"]
            where = f"{trained.get('device')}, {trained.get('processes', 1)} processes, {record['device']['processor']}"
            words = f"{name} has not the bytes that {version.uri} was registered with; it was trained on {where}"
            return Reproduction(False, name, words)
    return Reproduction(True, None, f"all {len(registered)} files of the model have the bytes of {version.uri}")
