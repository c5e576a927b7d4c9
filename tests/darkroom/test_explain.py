"""An explanation as text: recipes as TOML, and what is not recorded said."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from darkroom.explain import explain, lines, toml
from darkroom.provenance import portable
from darkroom.recipe import load
from darkroom.registry import Version
from darkroom.settings import Settings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def without_none(table: Any) -> Any:
    """What TOML can say: no nulls, nor sections of nothing else."""
    if isinstance(table, dict):
        kept = {key: without_none(value) for key, value in table.items()}
        return {key: one for key, one in kept.items() if one is not None and (one != {} or table[key] == {})}
    return [without_none(one) for one in table] if isinstance(table, list) else table


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_survives_as_toml(path: Path) -> None:
    table = portable(load(str(path)))
    assert tomllib.loads("\n".join(toml(table))) == without_none(table)


def test_texts_keys_and_tables_of_all_kinds_survive_as_toml() -> None:
    table = {
        "text": 'quotes " \\ \n\t\x7f\x00 手寫 🦓',
        "odd key": 1,
        "ключ": {"a.b": {"c": True}},
        "list": [{"a": 1.5}, {"b": [1, 2]}],
        "big": 1e30,
        "none at all": {},
    }
    assert tomllib.loads("\n".join(toml(table))) == table


class Foreign:
    """A registry with one version that darkroom did not register."""

    def resolve(self, reference: str) -> Version:
        assert reference == "theirs@champion"
        return Version("theirs", "7", "run", {}, "made by hand", ("champion",), 1_790_000_000_000)

    def artifact(self, run_id: str, path: str) -> None:
        return None

    def run(self, run_id: str) -> dict[str, Any]:
        return {
            "info": {"experiment_id": "3"},
            "data": {"metrics": {"loss": 0.5, "other/loss": 0.7, "train/loss": 1.0}},
            "inputs": None,
        }


def test_a_version_that_somebody_else_registered_is_explained_as_far_as_it_goes(tmp_path: Path) -> None:
    found = explain(Foreign(), "theirs", Settings(home=tmp_path, mlflow_uri="https://user:word@mlflow.example.org/a"))
    assert found["missing"] == ["recipe.json", "provenance.json", "the verdict"]
    assert found["measures"] == {"loss": 0.5, "other/loss": 0.7}
    assert found["links"]["version"] == "https://mlflow.example.org/a/#/models/theirs/versions/7"
    assert found["links"]["run"] == "https://mlflow.example.org/a/#/experiments/3/runs/run"
    text = "\n".join(lines(found))
    assert "theirs, version 7 (champion)" in text
    assert "not recorded    recipe.json, provenance.json, the verdict" in text
    assert "word" not in text
