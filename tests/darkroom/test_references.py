"""How versions are named, and told from recipes."""

from pathlib import Path

import pytest

from darkroom.references import full, is_reference, model_of


@pytest.mark.parametrize(
    ("text", "whole", "model"),
    [
        ("digits", "digits@champion", "digits"),
        ("models:/digits", "digits@champion", "digits"),
        ("digits@challenger", "digits@challenger", "digits"),
        ("digits/3", "digits/3", "digits"),
        ("models:/digits/3", "digits/3", "digits"),
        ("models:/digits@champion", "digits@champion", "digits"),
    ],
)
def test_every_way_to_name_a_version(text: str, whole: str, model: str) -> None:
    assert (full(text), model_of(text)) == (whole, model)


def test_a_recipe_comes_before_a_version_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_reference("digits/3")
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "3").write_text("a file")
    assert not is_reference("digits/3")
    assert is_reference("models:/digits/3"), "which names no file"


@pytest.mark.parametrize("text", ["digits", "recipes/digits.toml", "https://host/digits/3", "a/b/3", "digits/x"])
def test_what_names_a_recipe(text: str) -> None:
    assert not is_reference(text)
