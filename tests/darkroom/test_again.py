"""Making a version again: which recipe that is, where its local weights lie, and which file differs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom import again, provenance
from darkroom.artifacts import CheckedManifest, Checkpoint, Manifest
from darkroom.errors import RecipeError
from darkroom.recipe import Recipe, parse
from darkroom.registry import Version
from darkroom.stages import STAGES
from darkroom.store import Store, file_digest

DIGEST, WEIGHTS = "c" * 64, "pipeline/unet/model.safetensors"


class Mlflow:
    """A registry of one version with these artifacts."""

    uri = shown = "sqlite:///x"

    def __init__(self, **files: Any) -> None:
        self.files = files

    def resolve(self, reference: str) -> Version:
        return Version("photos", "1", "run", {"darkroom.checkpoint": DIGEST}, "", ("champion",))

    def artifact(self, run_id: str, path: str) -> bytes | None:
        found = self.files.get(path.removesuffix(".json"))
        return None if found is None else json.dumps(found).encode()


def mlflow_of(plan: Recipe, dataset: dict[str, Any], **more: Any) -> Mlflow:
    named = provenance.named(plan)
    record = {
        "data": dataset,
        "given": provenance.portable(plan, given=True),
        "weights": {
            name: {"name": provenance.portable_name(text), "sha256": sha} for name, (text, sha) in named.items()
        },
        "local": sorted(name for name, (text, _) in named.items() if provenance.is_local(text)),
    }
    return Mlflow(recipe=provenance.portable(plan), provenance=record | more)


@pytest.fixture
def dataset(press) -> dict[str, Any]:
    """A version of data in the press's store, as it is recorded."""
    made = press.version(press.files(1, 2, 3, 4))
    return {"dataset": made.dataset, "version": made.number, "manifest": made.manifest, "checked": made.checked}


@pytest.fixture
def plan(tmp_path: Path) -> Recipe:
    """A recipe with an autoencoder in a folder of this machine."""
    vae = tmp_path / "my-vae"
    vae.mkdir()
    (vae / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    save_file({"weight": np.zeros(1, np.float32)}, vae / "diffusion_pytorch_model.safetensors")
    table = {
        "version": 1,
        "name": "photos",
        "collect": {"source": "folder", "path": str(tmp_path / "photos")},
        "model": {"vae": str(vae), "text_encoder": "builtin:digits-text-encoder"},
        "train": {"steps": 1},
        "evaluate": {"features": "builtin:clip-digits", "clip": "builtin:clip-digits"},
    }
    return parse(table, "x")


def test_data_and_local_weights_are_found_again(press, plan: Recipe, dataset: dict[str, Any], tmp_path: Path) -> None:
    mlflow = mlflow_of(plan, dataset)
    assert str(tmp_path) not in json.dumps(mlflow.files)
    with pytest.raises(RecipeError, match=r"model.vae was 'my-vae' .* is not on this machine"):
        again.recall(mlflow, "photos", press.store)
    provenance.remember(plan, press.store)
    found = again.recall(mlflow, "photos", press.store)
    assert found.plan.model == plan.model
    assert found.plan.train == plan.train
    assert found.plan.model_fields_set == plan.model_fields_set
    assert (found.checked.digest, found.manifest.digest) == (dataset["checked"], dataset["manifest"])
    assert isinstance(found.checked, CheckedManifest)
    assert isinstance(found.manifest, Manifest)


def test_a_default_that_changed_since_does_not_change_the_recipe(press, plan: Recipe, dataset: dict[str, Any]) -> None:
    mlflow = mlflow_of(plan, dataset)
    provenance.remember(plan, press.store)
    mlflow.files["recipe"]["train"]["batch"] = plan.train.batch + 3  # what the default was then
    assert again.recall(mlflow, "photos", press.store).plan.train.batch == plan.train.batch + 3


@pytest.mark.parametrize("lost", ["recipe", "provenance"])
def test_a_version_without_a_record_is_refused(press, plan: Recipe, dataset: dict[str, Any], lost: str) -> None:
    mlflow = mlflow_of(plan, dataset)
    del mlflow.files[lost]
    with pytest.raises(RecipeError, match=r"has no recipe.json and provenance.json"):
        again.recall(mlflow, "photos", press.store)


def checkpoint_of(press, digest: str, **files: bytes) -> Checkpoint:
    def build(work: Path) -> None:
        for name, content in {"pipeline/README.md": b"card", "events.jsonl": b"{}", **files}.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)

    return press.store.get_or_build(Checkpoint, digest, build, inputs={})


def known(press, plan: Recipe, dataset: dict[str, Any], files: dict[str, str], stages: dict[str, int]) -> again.Again:
    provenance.remember(plan, press.store)
    more = {
        "files": files,
        "code": {"stages": stages},
        "device": {"training": {"device": "cuda"}, "processor": "an old one"},
    }
    return again.recall(mlflow_of(plan, dataset, **more), "photos", press.store)


def test_the_first_file_that_differs_is_named_weights_before_all(press, plan: Recipe, dataset: dict[str, Any]) -> None:
    store: Store = press.store
    made = checkpoint_of(press, DIGEST, **{WEIGHTS: b"weights", "pipeline/a.json": b"{}"})
    files = {name: file_digest(store.place(Checkpoint, DIGEST) / name) for name in (WEIGHTS, "pipeline/a.json")}
    stages = {kind: stage.version for kind, stage in STAGES.items()}
    assert again.compared(known(press, plan, dataset, files, stages), made).reproduced
    for changed, first in (
        ({"pipeline/a.json": "0"}, "pipeline/a.json"),
        ({"pipeline/a.json": "0", WEIGHTS: "0"}, WEIGHTS),
        ({"pipeline/b.json": "0"}, "pipeline/b.json"),  # is no longer made
    ):
        found = again.compared(known(press, plan, dataset, files | changed, stages), made)
        assert (found.reproduced, found.differs) == (False, first)
        assert "cuda" in found.words
    extra = again.compared(known(press, plan, dataset, {WEIGHTS: files[WEIGHTS]}, stages), made)
    assert (extra.reproduced, extra.differs) == (False, "pipeline/a.json")


def test_other_code_is_named_as_the_reason(press, plan: Recipe, dataset: dict[str, Any]) -> None:
    made = checkpoint_of(press, "d" * 64, **{WEIGHTS: b"weights"})
    stages = {kind: stage.version for kind, stage in STAGES.items()} | {"checkpoint": 0}
    found = again.compared(known(press, plan, dataset, {}, stages), made)
    assert not found.reproduced
    assert f"checkpoint 0 -> {STAGES['checkpoint'].version}" in found.words
