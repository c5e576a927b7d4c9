"""Weights by name: shipped ones are whole, local ones have an identity, wrong names are said."""

import subprocess
from pathlib import Path

import pytest

import darkroom.weights
from darkroom.errors import RecipeError
from darkroom.weights.locate import folder_digest, locate

FOLDER = Path(darkroom.weights.__file__).parent


def test_shipped_weights_are_what_their_sums_say_and_small() -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=FOLDER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    files = [path for path in FOLDER.rglob("*") if path.suffix in (".safetensors", ".json")]
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} <= {".py", ".pyc", ".json", ".safetensors", ""}


def test_a_folders_digest_follows_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = locate(str(tmp_path))
    assert first.path == tmp_path
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("hidden")
    assert folder_digest(tmp_path) == first.sha256
    (tmp_path / "config.json").write_text("{ }")
    assert folder_digest(tmp_path) != first.sha256


def test_wrong_names_are_said() -> None:
    with pytest.raises(RecipeError, match=r"builtin:nothing is not shipped with darkroom: there are builtin:"):
        locate("builtin:nothing")
    with pytest.raises(RecipeError, match="neither a local folder nor a name on the hub"):
        locate("not a name/at/all")
