"""A version explained from MLflow alone: its data, recipe, code, environment, verdict, measures and every link."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from . import history, links
from .provenance import FILE, RECIPE, Record, read
from .references import full
from .registry import Registry, Version
from .settings import Settings
from .versions import marks

SAMPLES, REPORT, VERDICT, REVIEW, DOCS = (
    "samples.png",
    "report.html",
    "verdict.json",
    "review/index.html",
    "data_docs/index.html",
)


def explain(registry: Registry, reference: str, settings: Settings) -> dict[str, Any]:
    """All that MLflow knows of a version, as plain values; the store is not asked.

    What is not recorded is None, and named in ``missing``. Raises :class:`RecipeError` for an unknown version.
    """
    version = registry.resolve(full(reference))
    record = read(registry, version)
    known = record.provenance or {}
    run = registry.run(version.run_id) if version.run_id else {}
    judged = history.judged_of(version)
    return {
        "model": {
            "name": version.model,
            "version": version.version,
            "uri": version.uri,
            "aliases": sorted(version.aliases),
            "registered": history.when(version),
            "description": version.description,
            "checkpoint": version.checkpoint,
        },
        "removed": marks.read(version.tags),
        "verdict": asdict(judged[-1]) if judged else None,
        "promotions": [asdict(move) for move in history.moves_of(version)],
        "refusals": [asdict(one) for one in history.refusals_of(version)],
        "data": known.get("data") or _data(version, run),
        "recipe": record.recipe,
        "given": known.get("given"),
        "weights": known.get("weights"),
        "code": known.get("code"),
        "environment": known.get("environment"),
        "device": known.get("device"),
        "measures": history.measures_of(registry, version),
        "digests": _digests(version),
        "files": known.get("files"),
        "links": _links(version, run, known, settings),
        "again": f"darkroom run {version.uri}",
        "missing": _missing(record, judged),
    }


def _digests(version: Version) -> dict[str, str]:
    kinds = ("manifest", "checked", "shards", "checkpoint", "evaluation", "verdict")
    return {kind: version.tags[f"darkroom.{kind}"] for kind in kinds if version.tags.get(f"darkroom.{kind}")}


def _data(version: Version, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The data as MLflow itself has it, of a version without a provenance."""
    inputs = (run.get("inputs") or {}).get("dataset_inputs") or []
    if not inputs:
        return None
    found = inputs[0]["dataset"]
    profile = json.loads(found.get("profile") or "{}")
    digests = {name: digest for name, digest in _digests(version).items() if name in ("manifest", "checked")}
    return {"dataset": found["name"], **digests, "rows": profile.pop("num_rows", None), **profile}


def _links(version: Version, run: Mapping[str, Any], known: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Where people look at it. MLflow's copies of pages are reached wherever MLflow is; the others by `darkroom up`."""
    found = {"version": links.version(settings, version.model, version.version)}
    if run:
        experiment = str(run["info"]["experiment_id"])
        judged = version.tags.get(history.RUN) or version.run_id
        found["run"] = links.run(settings, experiment, version.run_id)
        artifacts = {"samples": SAMPLES, "report": REPORT, "verdict": VERDICT, "review": REVIEW, "data_docs": DOCS}
        found |= {name: links.run(settings, experiment, judged, path) for name, path in artifacts.items()}
        found |= {"recipe": links.run(settings, experiment, version.run_id, RECIPE)}
    if flow_run := known.get("flow_run"):
        found["flow_run"] = str(flow_run["url"])
    if pages := known.get("pages"):
        found["report_here"] = f"{settings.reports_url}/{pages['report']}"
        found["review_here"] = f"{settings.reports_url}/{pages['data']}/{REVIEW}"
        found["data_docs_here"] = f"{settings.reports_url}/{pages['data']}/{DOCS}"
    return found


def _missing(record: Record, judged: Sequence[object]) -> list[str]:
    lacking = {RECIPE: record.recipe is None, FILE: record.provenance is None, "the verdict": not judged}
    return [name for name, lacks in lacking.items() if lacks]


# For a terminal


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The explanation as text, a line each; whoever prints it makes what is not printable harmless."""
    model = found["model"]
    aliases = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
    yield f"{model['name']}, version {model['version']}{aliases}"
    yield _row("registered", f"{model['registered']}, checkpoint {model['checkpoint'][:12]}")
    if removed := found["removed"]:
        yield _row("removed", marks.words(removed))
    yield from _verdict(found)
    if data := found["data"]:
        number = f", version {data['version']}" if data.get("version") else ""
        name = f" ({data['name']})" if data.get("name") else ""
        yield _row("data", f"{data['dataset']}{number}{name}, from {data.get('source', 'an unrecorded source')}")
        counts = ("rows", "accepted", "quarantined", "train", "validation")
        yield _row("", ", ".join(f"{data[name]:,} {_COUNTS[name]}" for name in counts if data.get(name) is not None))
        yield _row("", f"manifest {data.get('manifest', '?')[:12]}, checked {data.get('checked', '?')[:12]}")
    for name, weights in (found["weights"] or {}).items():
        yield _row("weights", f"{name} = {weights['name']}, sha256 {weights['sha256'][:12]}")
    if code := found["code"]:
        dirty = {True: ", with changes that were not committed", False: ""}.get(code["dirty"], "")
        commit = f", commit {code['commit'][:12]}{dirty}" if code["commit"] else ", no git checkout"
        yield _row("code", f"darkroom {code['darkroom']}{commit}")
    if environment := found["environment"]:
        yield _row("environment", f"Python {environment['python']} on {environment['system']}")
        packages = environment["packages"]
        shown = [
            f"{name} {packages[name]}" for name in ("torch", "diffusers", "transformers", "numpy") if name in packages
        ]
        yield _row("", ", ".join(shown))
    if device := found["device"]:
        trained = device["training"]
        where = f"{trained.get('device', '?')}, {_many(trained.get('processes', 1), 'process', 'es')}"
        yield _row("device", f"{where} of {_many(device['threads'], 'thread')}, {device['processor']}")
    for place, (name, value) in enumerate(found["measures"].items()):
        yield _row("" if place else "measures", f"{name:<30} {value:.5g}")
    for place, (name, address) in enumerate(found["links"].items()):
        yield _row("" if place else "links", f"{name:<16} {address}")
    if found["missing"]:
        yield _row("not recorded", f"{', '.join(found['missing'])}: by an older darkroom, or not readable from here")
    yield _row("again", found["again"])
    if table := found["given"] or found["recipe"]:
        yield ""
        yield "# The recipe, without the fields that were left at their defaults (--json has every one)"
        yield from toml(table)


_COUNTS = {
    "rows": "rows",
    "accepted": "accepted",
    "quarantined": "in quarantine",
    "train": "to train on",
    "validation": "to validate",
}


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    if judged := found["verdict"]:
        against = f", against version {judged['against']['version']}" if judged["against"] else ""
        yield _row("verdict", f"{judged['decision']}{against}: {judged['reasons']}")
    for move in found["promotions"]:
        instead = f" instead of version {move['against']['version']}" if move["against"] else ""
        how = "rolled back to" if move["undoes"] else "promoted"
        yield _row(how, f"{move['when']} by {move['who']}{instead}: {move['why']}")
    for one in found["refusals"]:
        yield _row("refused", f"{one['when']} by {one['who']}: {one['why']}")


def _many(count: int, what: str, ending: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else ending}"


def _row(name: str, text: str) -> str:
    return f"{name:<14}  {text}"


def toml(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A recipe's table as TOML, a line each: plain fields first, then its sections. None has no word there."""
    for key, value in table.items():
        if value is not None and not isinstance(value, Mapping):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{_key(key)}"
            if not value or any(one is not None and not isinstance(one, Mapping) for one in value.values()):
                yield ""
                yield f"[{name}]"
            yield from toml(value, f"{name}.")


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items() if one is not None)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    # JSON's texts, numbers and truth values are TOML's, but that TOML escapes DEL, too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
