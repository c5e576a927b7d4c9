"""The recipe: validated whole, every mistake named in full, and digests that follow what can change a result."""

from pathlib import Path

import pytest

from darkroom.errors import RecipeError
from darkroom.recipe import Overrides, Recipe, load, parse, read_assignments

MINIMAL = {
    "version": 1,
    "name": "tiny",
    "collect": {"source": "digits"},
    "model": {"vae": "builtin:a", "text_encoder": "builtin:b"},
    "train": {"steps": 10},
}


def changed(**sections: dict[str, object]) -> dict[str, object]:
    return {**MINIMAL, **{name: {**MINIMAL.get(name, {}), **fields} for name, fields in sections.items()}}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"stpes": 3}}, ["train.stpes", "did you mean train.steps?", "learning_rate"]),
        ({"train": {"batch": 0}}, ["train.batch = 0", "greater than or equal to 1"]),
        ({"evaluate": {"sampler": {"step": 3}}}, ["evaluate.sampler.step", "did you mean evaluate.sampler.steps?"]),
        ({"gate": {"limits": {"fid": {"mx": 1}}}}, ["gate.limits.fid.mx", "did you mean gate.limits.fid.max?"]),
        ({"gate": {"limits": {"fid": {}}}}, ["gate.limits.fid", "min, max or both"]),
        ({"collect": {"source": "ftp"}}, ["collect.source = 'ftp'", "'digits', 'folder'"]),
        ({"collect": {"source": "folder"}}, ["path is needed"]),
        ({"preprocess": {"size": 20}}, ["preprocess.size = 20", "multiple of 8"]),
        ({"model": {"unet": {"norm_num_groups": 7}}}, ["multiple of norm_num_groups (7)"]),
        ({"register": {"promote": "maybe"}}, ["register.promote = 'maybe'"]),
    ],
)
def test_a_mistake_is_named_in_full(sections: dict[str, dict[str, object]], words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(changed(**sections), "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    for word in words:
        assert word in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse(changed(train={"batch": 0, "stpes": 1}, split={"validation_share": 2}), "mine.toml")
    for field in ("train.batch", "train.stpes", "split.validation_share"):
        assert field in str(caught.value)


def test_another_version_is_refused() -> None:
    with pytest.raises(RecipeError, match="recipes of version 1, not 2"):
        parse({**MINIMAL, "version": 2}, "mine.toml")


def test_digest_fields_leave_out_defaults_and_what_has_no_effect() -> None:
    plain = parse(MINIMAL, "x").train.digest_fields()
    assert plain == {"steps": 10}
    same = parse(changed(train={"log_every": 3, "prompts": ["a"], "batch": 128}), "x").train.digest_fields()
    assert same == plain
    assert parse(changed(train={"batch": 64}), "x").train.digest_fields() != plain


def test_overrides_are_typed_and_validated(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'version = 1\nname = "tiny"\n[collect]\nsource = "digits"\n[model]\nvae = "a"\ntext_encoder = "b"\n'
    )
    recipe = load(str(path), Overrides(steps=7, seed=3, fields=read_assignments(["train.learning_rate=1e-3"])))
    assert (recipe.train.steps, recipe.seed, recipe.train.learning_rate) == (7, 3, 1e-3)
    with pytest.raises(RecipeError, match=r"train\.learning_rat is not a field; did you mean train\.learning_rate\?"):
        load(str(path), Overrides(steps=7, fields={"train.learning_rat": 1.0}))


@pytest.mark.parametrize("text", ["train.steps", "=3"])
def test_an_assignment_without_both_sides_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="FIELD=VALUE"):
        read_assignments([text])


def test_a_missing_recipe_and_broken_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'nowhere'"):
        load("nowhere")
    broken = tmp_path / "broken.toml"
    broken.write_text("version = = 1")
    with pytest.raises(RecipeError, match=r"broken\.toml is not valid TOML"):
        load(str(broken))


def test_a_relative_folder_starts_at_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'version = 1\nname = "tiny"\n[collect]\nsource = "folder"\npath = "photos"\n'
        '[model]\nvae = "a"\ntext_encoder = "b"\n[train]\nsteps = 1\n'
    )
    assert load(str(tmp_path / "mine.toml")).collect.path == str(tmp_path / "photos")


def test_the_built_in_recipe_is_found_by_name_and_valid() -> None:
    assert isinstance(load("digits"), Recipe)


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("photos", "{}/photos"),
        ("../photos/{{000..012}}.tar", "{}/../photos/{{000..012}}.tar"),
        ("zip://::photos.zip", "zip://::{}/photos.zip"),
        ("zip::photos.zip", "zip::{}/photos.zip"),
        ("zip://inside::photos.zip", "zip://inside::{}/photos.zip"),
        ("zip://::s3://bucket/photos.zip", "zip://::s3://bucket/photos.zip"),
        ("s3://bucket/photos", "s3://bucket/photos"),
        ("/a/b", "/a/b"),
    ],
)
def test_paths_are_relative_to_the_recipe(tmp_path: Path, path: str, absolute: str) -> None:
    text = (
        Path("recipes/digits.toml")
        .read_text()
        .replace('source = "digits"', f'source = "folder"\npath = "{path.format()}"')
    )
    (tmp_path / "mine.toml").write_text(text)
    found = load(str(tmp_path / "mine.toml")).collect.path
    wanted = absolute.format(tmp_path)
    assert found is not None
    assert found == (str(Path(wanted).resolve()) if "::" not in wanted and "://" not in wanted else wanted)
