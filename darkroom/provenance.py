"""What is recorded of a version at registration, so that MLflow alone can explain it and say how to make it again.

Two files among the artifacts of its run: ``recipe.json``, the resolved recipe with every field, and
``provenance.json``, all else. Neither holds a path of this machine, nor anything of its environment but versions of
packages: weights in a local folder are recorded by the folder's name and their sha256. Where that folder lay is
remembered in the store, for this machine alone.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import __version__
from .artifacts import CheckedManifest, Checkpoint, Evaluation
from .evaluation.features import identity
from .recipe import Recipe
from .registry import Registry, Version
from .stages import STAGES
from .store import Store, marker, write_json
from .training.parts import parts
from .versions.log import dataset_of, versions
from .weights.locate import BUILTIN, locate

RECIPE, FILE = "recipe.json", "provenance.json"
ROOT = Path(__file__).resolve().parents[1]

# Fields that may name a place on this machine.
WEIGHTS = (
    "model.base",
    "model.vae",
    "model.text_encoder",
    "model.text_encoder_2",
    "model.text_encoder_3",
    "train.autoencoder.perceptual",
    "train.distance.features",
    "evaluate.features",
    "evaluate.clip",
    "evaluate.safety",
)
PLACES = (*WEIGHTS, "collect.path", "check.captioner", "check.safety", "check.clip")
OF_TRAINING = {"perceptual": "train.autoencoder.perceptual", "features": "train.distance.features"}
# What a checkpoint's folder holds of the model itself; its card names what it was made of and may be worded anew.
MODEL = re.compile(r"(pipeline|lora)/(?!.*\.md$).*|learned_embeds\.safetensors")
PACKAGES = (
    *("torch", "diffusers", "transformers", "numpy", "peft", "accelerate", "safetensors", "tokenizers", "pillow"),
    *("opencv-python-headless", "scipy", "clean-fid", "great-expectations", "mlflow", "prefect"),
)


@dataclass(frozen=True)
class Record:
    """What MLflow has of a version: the resolved recipe and the provenance, each None where it has none."""

    recipe: dict[str, Any] | None
    provenance: dict[str, Any] | None


def read(registry: Registry, version: Version) -> Record:
    """The record of a version."""
    found = [registry.artifact(version.run_id, name) if version.run_id else None for name in (RECIPE, FILE)]
    return Record(*(None if content is None else json.loads(content) for content in found))


def gather(
    plan: Recipe,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    checked: CheckedManifest,
    counts: Mapping[str, object],
    store: Store,
    report: str,
    flow_run: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The provenance of what is about to be registered.

    ``counts``: the data in numbers; ``report``: the page's place in the home folder; ``flow_run``: name, id and url.
    """
    trained = marker(checkpoint)
    return {
        "format": 1,
        "data": {**_data(plan, checked, store), **counts},
        "given": portable(plan, given=True),
        "weights": {name: {"name": portable_name(text), "sha256": sha} for name, (text, sha) in named(plan).items()},
        "local": sorted(name for name, (text, _) in named(plan).items() if is_local(text)),
        "files": {name: entry["sha256"] for name, entry in trained["files"].items() if MODEL.fullmatch(name)},
        "code": code(),
        "environment": environment(),
        "device": {
            "training": trained["facts"],
            "evaluation": marker(evaluation)["facts"].get("device"),
            "threads": plan.train.threads,
            "processor": processor(),
        },
        "flow_run": dict(flow_run or {}),
        "pages": {"report": report, "data": f"store/{checked.kind}/{checked.digest}"},
    }


def _data(plan: Recipe, checked: CheckedManifest, store: Store) -> dict[str, Any]:
    dataset, inputs = dataset_of(plan), marker(checked)["inputs"]
    known = next((one for one in versions(dataset, store) if one.checked == checked.digest), None)
    accepted = {"version": known.number, "name": known.name, "accepted_at": known.time} if known else {}
    return {"dataset": dataset, **accepted, "manifest": str(inputs["manifest"]), "checked": checked.digest}


def named(plan: Recipe) -> dict[str, tuple[str, str]]:
    """(name in the recipe, sha256) of all weights that a plan names, by the dotted names of its fields."""
    found = {"evaluate.safety": _located(plan.evaluate.safety)} if plan.evaluate.safety else {}
    for name, weights in parts(plan).items():
        found[OF_TRAINING.get(name, f"model.{name}")] = (weights.name, weights.sha256)
    for name in ("features", "clip"):
        text = getattr(plan.evaluate, name)
        found[f"evaluate.{name}"] = (text, identity(text, None)[1])
    return found


def _located(text: str) -> tuple[str, str]:
    return text, locate(text).sha256


# Without this machine


def portable(plan: Recipe, given: bool = False) -> dict[str, Any]:
    """The plan as a table without paths of this machine; ``given``: only the fields that were given."""
    table: dict[str, Any] = plan.model_dump(mode="json", by_alias=True, exclude_unset=given)
    for dotted in PLACES:
        *sections, field = dotted.split(".")
        inner: Any = table
        for section in sections:
            inner = inner.get(section) or {}
        if isinstance(inner.get(field), str):
            inner[field] = portable_name(inner[field])
    for other in table.get("evaluate", {}).get("also", {}).values():
        if other.get("path") is not None:
            other["path"] = portable_name(other["path"])
    return table


def portable_name(text: str) -> str:
    """A name as another machine may read it: of a local path its last part, of an address all but passwords."""
    chain, separator, last = text.rpartition("::")
    if separator:
        return f"{chain}::{portable_name(last)}"
    if "://" in text and not text.startswith("file:"):
        parts_ = urlsplit(text)
        return f"{parts_.scheme}://{parts_.netloc.rpartition('@')[2]}{parts_.path}"
    return Path(text.removeprefix("file://")).expanduser().name if is_local(text) else text


def is_local(text: str) -> bool:
    """Whether a name means a file or folder of this machine."""
    if text.startswith("file:"):
        return True
    path = Path(text).expanduser()
    return not text.startswith((BUILTIN, "models:/")) and "://" not in text and (path.is_absolute() or path.exists())


def remember(plan: Recipe, store: Store) -> None:
    """Keep, in the store alone, where the local weights of a plan lie."""
    for text, sha256 in named(plan).values():
        if is_local(text):
            path = _place(sha256, store)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"path": str(Path(text).expanduser().absolute())})


def remembered(sha256: str, store: Store) -> str | None:
    """Where weights of this identity lay on this machine."""
    path = _place(sha256, store)
    return str(json.loads(path.read_text("utf-8"))["path"]) if path.is_file() else None


def _place(sha256: str, store: Store) -> Path:
    return store.root / "places" / f"{sha256}.json"


# Code and environment


def environment() -> dict[str, Any]:
    """Python and the packages whose version can change a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.machine()}"
    return {"python": platform.python_version(), "system": system, "packages": {"darkroom": __version__, **found}}


def code(root: Path = ROOT) -> dict[str, Any]:
    """The version of this code: of the package, of each stage and, in a checkout, its commit and whether it was dirty.

    ``root`` is the folder that the package lies in; ``commit`` and ``dirty`` are None where that is no checkout of it,
    or git is not here.
    """
    stages = {kind: stage.version for kind, stage in sorted(STAGES.items())}
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = dirty = None
    if top is not None and Path(top).resolve() == root and _git(root, "ls-files", "darkroom/provenance.py"):
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "darkroom", "tasks", "flows", "expectations")
        dirty = None if changed is None else bool(changed)
    return {"darkroom": __version__, "commit": commit, "dirty": dirty, "stages": stages}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of a checkout; None where it fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    clean["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, env=clean, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """What the processor is called."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
