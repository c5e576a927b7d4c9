"""Captions that do not fit: the shipped CLIP model of digits judges real digits, some of them under a wrong caption."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from darkroom.collect import digits
from darkroom.collect.source import Item
from darkroom.errors import RecipeError
from darkroom.quality import fit
from darkroom.quality.picture import working_path
from darkroom.reasons import kind_of
from darkroom.recipe import Check
from darkroom.store import Store
from darkroom.weights.locate import locate

NAME = "builtin:clip-digits"
PLAN = Check(clip=NAME)
WRONG = range(0, 200, 10)


@pytest.fixture(scope="module")
def pictures() -> list[Item]:
    return list(digits.items())[:200]


@pytest.fixture
def store(tmp_path: Path, pictures: list[Item]) -> Store:
    store = Store(tmp_path / "store")
    for key, item in zip(keys(pictures), pictures, strict=True):
        path = working_path(store.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(item.read())).save(path, format="PNG")
    return store


def keys(pictures: list[Item]) -> list[str]:
    return [f"{number:064x}" for number, _ in enumerate(pictures)]


def mixed_up(pictures: list[Item]) -> list[str]:
    """The captions, each tenth of them that of another digit."""
    captions = [str(item.caption) for item in pictures]
    for place in WRONG:
        captions[place] = next(str(item.caption) for item in pictures[place:] if item.label != pictures[place].label)
    return captions


def test_wrong_captions_are_found_and_right_ones_left_alone(store: Store, pictures: list[Item]) -> None:
    found = fit.judge(keys(pictures), mixed_up(pictures), PLAN, store)
    flagged = {place for place, remark in enumerate(found) if remark is not None}
    assert flagged <= set(WRONG)
    assert len(flagged) >= 0.9 * len(WRONG)
    assert {kind_of(str(found[place])) for place in flagged} == {fit.KIND}
    assert not any(fit.judge(keys(pictures), [str(item.caption) for item in pictures], PLAN, store))
    plans = [Check(clip=NAME, clip_odds=odds) for odds in (2.0, 1e6)]
    bold, timid = (sum(map(bool, fit.judge(keys(pictures), mixed_up(pictures), plan, store))) for plan in plans)
    assert timid < len(flagged) <= bold


def test_what_was_seen_is_remembered_and_order_does_not_matter(
    store: Store, pictures: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = mixed_up(pictures)
    found = fit.judge(keys(pictures), captions, PLAN, store)
    monkeypatch.setattr(fit._Model, "_load", lambda self: pytest.fail("the model was loaded again"))
    assert fit.judge(keys(pictures)[::-1], captions[::-1], PLAN, store) == found[::-1]


def test_rows_without_picture_or_caption_and_data_with_few_captions_have_no_remark(
    store: Store, pictures: list[Item]
) -> None:
    found = fit.judge([None, *keys(pictures)[:50]], ["a seven", None, " ", *mixed_up(pictures)[2:50]], PLAN, store)
    assert found[:3] == [None] * 3
    assert not any(fit.judge(keys(pictures), ["a handwritten one", "a four"] * 100, PLAN, store))
    assert not any(fit.judge(keys(pictures), mixed_up(pictures), Check(), Store(Path("/nowhere"))))


def test_what_is_no_clip_model_is_a_mistake_in_the_recipe(tmp_path: Path, store: Store, pictures: list[Item]) -> None:
    with pytest.raises(RecipeError, match=r"check\.clip = 'builtin:digits-vae' has no scale"):
        fit.find(Check(clip="builtin:digits-vae"))
    with pytest.raises(RecipeError, match="no weights in safetensors"):
        fit.find(Check(clip=str(tmp_path)))
    broken = tmp_path / "broken"
    shutil.copytree(locate(NAME).path, broken)
    (broken / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="cannot be loaded as a CLIP model"):
        fit.judge(keys(pictures), mixed_up(pictures), Check(clip=str(broken)), store)
