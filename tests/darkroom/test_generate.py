"""Pictures as files: nothing is left where the model refuses what it is asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darkroom.errors import RecipeError
from darkroom.generate import generate


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
