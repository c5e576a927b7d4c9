"""Pictures as files: nothing is left where the model refuses what it is asked for."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darkroom.diffusion.families.encoders import silent_t5
from darkroom.errors import RecipeError
from darkroom.generate import generate, unread
from darkroom.weights.locate import locate


class OneModel:
    """A registry that has one version, whose model knows no label but "a"."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resolve(self, reference: str) -> Any:
        return SimpleNamespace(uri=f"models:/{reference}")

    def pipeline_folder(self, version: Any) -> Path:
        return self.folder

    def load(self, version: Any) -> Any:
        def predict(asked: Any, params: dict[str, Any]) -> None:
            raise ValueError(f"this model knows no label {asked['prompt'][0]!r}; it knows a")

        return SimpleNamespace(predict=predict)


def test_an_unknown_label_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    registry: Any = OneModel(tmp_path)
    with pytest.raises(RecipeError, match=r"^models:/x/1: this model knows no label 'b'; it knows a$"):
        generate(registry, "x/1", "b", count=2, seed=0, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_autoencoder_draws_nothing(tmp_path: Path) -> None:
    registry: Any = OneModel(tmp_path)
    with pytest.raises(RecipeError, match="models:/x/1 is an autoencoder"):
        generate(registry, "x/1", "b", count=2, seed=0, out=tmp_path / "out")


def test_the_end_of_a_prompt_that_is_not_read_is_told(tmp_path: Path) -> None:
    """Where one of several encoders reads on, nothing is lost."""
    words = " ".join(["a handwritten seven"] * 8)
    assert unread(tmp_path, words) == "", "a model that is asked by labels"
    source = locate("builtin:digits-text-encoder").path
    for name, length in (("tokenizer", 16), ("tokenizer_2", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
        settings = json.loads((source / "tokenizer_config.json").read_text())
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": length}))
    assert unread(tmp_path, "a handwritten seven") == ""
    left = unread(tmp_path, words)
    assert left
    assert words.endswith(left)
    silent_t5(8)[0].save_pretrained(tmp_path / "tokenizer_3")
    assert unread(tmp_path, words) == left, "what stands in for a T5 reads nothing"
    (tmp_path / "tokenizer_2/tokenizer_config.json").unlink()
    (tmp_path / "tokenizer_2/tokenizer.json").unlink()
    (tmp_path / "tokenizer_2").rmdir()
    assert len(unread(tmp_path, words)) > len(left)
