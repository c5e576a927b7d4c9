"""A suggested recipe is a valid one, and says what the folder is like."""

import random
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from darkroom.collect.suggest import suggest, survey, toml_text
from darkroom.errors import RecipeError
from darkroom.recipe import Recipe, load, parse


def pictures(folder: Path, names: list[str], side: int = 300) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side + 50)).save(folder / name)
    return folder


def recipe(folder: Path, tmp_path: Path) -> Recipe:
    """What is written down is what is read."""
    text = suggest("mine", folder)
    (tmp_path / "mine.toml").write_text(text, "utf-8")
    assert load(str(tmp_path / "mine.toml")) == parse(tomllib.loads(text), "here")
    return load(str(tmp_path / "mine.toml"))


def test_captions_are_required_where_all_have_one(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", ["a.png", "b.png"])
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"caption of {name}")
    plan = recipe(folder, tmp_path)
    assert plan.check.captions == "required"
    assert plan.check.mend == ("text", "sidecar")
    assert plan.collect.path == str(folder)
    assert plan.preprocess.size == 256
    assert set(plan.train.prompts) == {"caption of a.txt", "caption of b.txt"}


def test_captions_are_optional_where_some_are_missing(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", ["a.png", "b.png"])
    (folder / "a.txt").write_text("caption")
    assert recipe(folder, tmp_path).check.captions == "optional"


def test_class_folders_give_captions(tmp_path: Path) -> None:
    plan = recipe(pictures(tmp_path / "photos", ["cat/a.png", "dog/b.png"]), tmp_path)
    assert (plan.check.captions, plan.check.mend[-1]) == ("required", "template")
    assert set(plan.train.prompts) == {"a photo of cat", "a photo of dog"}


@pytest.mark.parametrize(("side", "size"), [(10, 64), (64, 64), (200, 128), (512, 512), (3000, 512)])
def test_the_size_is_the_largest_that_the_pictures_have(tmp_path: Path, side: int, size: int) -> None:
    plan = recipe(pictures(tmp_path / "photos", ["a.png"], side), tmp_path)
    assert plan.preprocess.size == size


def test_what_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", ["a.png"])
    (folder / "broken.png").write_bytes(b"broken")
    (folder / "link.png").symlink_to("/etc/hostname")
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "x"}\n{"file_name": "a.png", "text": 5}')
    found = survey(folder)
    assert (found.pictures, found.captions, found.side) == (2, 0, 300)


def test_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="has no pictures"):
        suggest("mine", tmp_path / "empty")
    with pytest.raises(RecipeError, match="no such folder"):
        suggest("mine", tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="name = 'My Model'"):
        suggest("My Model", pictures(tmp_path / "photos", ["a.png"]))


def test_any_text_is_a_toml_text(tmp_path: Path) -> None:
    chance = random.Random(0)
    letters = [chr(number) for number in range(0x90)] + list('\\\\""\'é😀\u2028')
    for _ in range(300):
        text = "".join(chance.choices(letters, k=20))
        assert tomllib.loads(f"text = {toml_text(text)}")["text"] == text
    assert tomllib.loads(f"text = {toml_text(chr(0xD800))}")["text"] == "?"


def test_hostile_names_and_captions_stay_texts(tmp_path: Path) -> None:
    folder = pictures(tmp_path / 'quote" \\ name\n[train]', ["a.png"])
    (folder / "a.txt").write_text('"]\nsteps = 1\n\x00\x7f')
    plan = recipe(folder, tmp_path)
    assert plan.collect.path == str(folder)
    assert plan.train.prompts == ('"] steps = 1 \x00\x7f',)
