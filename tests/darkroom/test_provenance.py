"""What is recorded of a version: all that making it again takes, and nothing of the machine."""

import json
import subprocess
import types
import typing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom import provenance
from darkroom.recipe import Recipe, parse
from darkroom.section import Section
from darkroom.store import Store

TABLE = {
    "version": 1,
    "name": "tiny",
    "collect": {"source": "folder", "path": "/home/somebody/photos"},
    "model": {"vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder"},
    "train": {"steps": 1, "prompts": ["/imagine a seven", "see https://host/x?y"]},
    "evaluate": {
        "features": "builtin:clip-digits",
        "clip": "builtin:clip-digits",
        "also": {"other": {"source": "folder", "path": "/home/somebody/others"}},
    },
}


def fields(section: type[Section], prefix: str = "") -> dict[str, str]:
    """Dotted name -> description, of every field that holds a text."""
    found = {}
    for key, field in section.model_fields.items():
        name = f"{prefix}{field.alias or key}"
        annotation = field.annotation
        maybe = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        for inner in maybe:
            if isinstance(inner, type) and issubclass(inner, Section):
                found |= fields(inner, f"{name}.")
        if annotation in (str, str | None):
            found[name] = field.description or ""
    return found


def test_every_field_that_may_name_a_place_is_known() -> None:
    texts = fields(Recipe)
    places = {
        name for name, words in texts.items() if any(word in words.lower() for word in ("folder", "hub", "likewise"))
    }
    places -= {"collect.config", "collect.split", "collect.revision"}  # parts of a hub's data set, never a path
    assert places <= set(provenance.PLACES)
    assert set(provenance.PLACES) <= set(texts)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/somebody/photos", "photos"),
        ("~/photos", "photos"),
        ("file:///home/somebody/photos", "photos"),
        ("zip://::/home/somebody/photos.zip", "zip://::photos.zip"),
        ("s3://bucket/photos", "s3://bucket/photos"),
        ("https://user:word@host/list.csv?token=abc", "https://host/list.csv"),
        ("builtin:digits-vae", "builtin:digits-vae"),
        ("models:/digits/3", "models:/digits/3"),
        ("owner/name", "owner/name"),
        ("inception", "inception"),
    ],
)
def test_names_without_the_machine(text: str, kept: str) -> None:
    assert provenance.portable_name(text) == kept


def test_a_portable_recipe_loses_places_alone() -> None:
    plan = parse(TABLE, "x")
    table = provenance.portable(plan)
    assert table["collect"]["path"] == "photos"
    assert table["evaluate"]["also"]["other"]["path"] == "others"
    assert table["train"]["prompts"] == TABLE["train"]["prompts"], "what is asked for is no place"
    again = parse(provenance.portable(plan, given=True), "x")
    assert provenance.portable(again) == table
    assert again.train == plan.train
    assert again.model_fields_set == plan.model_fields_set, "what was left out stays left out"


def test_weights_are_named_by_their_bytes() -> None:
    found = provenance.named(parse(TABLE, "x"))
    assert set(found) == {"model.vae", "model.text_encoder", "evaluate.features", "evaluate.clip"}
    assert all(len(sha256) == 64 for _, sha256 in found.values())
    assert found["model.vae"][1] != found["model.text_encoder"][1]


def test_local_weights_are_found_again_by_their_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "my-vae"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    save_file({"weight": np.zeros(1, np.float32)}, folder / "diffusion_pytorch_model.safetensors")
    plan = parse(TABLE | {"model": {**TABLE["model"], "vae": str(folder)}}, "x")
    store = Store(tmp_path / "store")
    provenance.remember(plan, store)
    sha256 = provenance.named(plan)["model.vae"][1]
    assert provenance.remembered(sha256, store) == str(folder)
    assert provenance.remembered("0" * 64, store) is None
    assert provenance.portable(plan)["model"]["vae"] == "my-vae"
    assert str(tmp_path) not in json.dumps(provenance.portable(plan))


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_a_checkout_and_whether_it_was_dirty(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    (root / "darkroom").mkdir(parents=True)
    source = root / "darkroom" / "provenance.py"
    source.write_text("one")
    assert provenance.code(root)["commit"] is None, "no checkout"
    git(root, "init", "-q")
    assert provenance.code(root)["commit"] is None, "somebody else's checkout, in which this package merely lies"
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    (root / "mlruns").mkdir()
    (root / "mlruns" / "file").write_text("what a run leaves behind")
    clean = provenance.code(root)
    assert (clean["commit"], clean["dirty"]) == (git(root, "rev-parse", "HEAD"), False)
    source.write_text("two")
    assert provenance.code(root)["dirty"] is True
    source.write_text("one")
    (root / "darkroom" / "new.py").write_text("not added")
    assert provenance.code(root)["dirty"] is True
    inner = root / "venv"
    (inner / "darkroom").mkdir(parents=True)
    assert provenance.code(inner)["commit"] is None, "installed below another checkout"


def test_the_environment_names_versions_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "planted-secret")
    found = provenance.environment()
    assert set(found) == {"python", "system", "packages"}
    assert {"darkroom", "torch", "diffusers", "transformers", "numpy"} <= set(found["packages"])
    assert "planted-secret" not in json.dumps(found)
