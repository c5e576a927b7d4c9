"""Tracing: from a row, a picture or a path to every version, shard and model that has it, and to its bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from darkroom.collect.manifest import picture_path
from darkroom.errors import DarkroomError, RecipeError
from darkroom.quality import removals
from darkroom.quality.picture import thumbnail_path
from darkroom.recipe import Collect
from darkroom.store import file_digest
from darkroom.versions.log import checked_of
from darkroom.versions.restore import restore
from darkroom.versions.trace import files_of, trace, trained_on, uses


def test_a_row_is_found_by_its_id_its_bytes_and_its_path(press: Any) -> None:
    press.version(press.files(1, 2))
    press.version({"01.png": press.shot(1, caption="new words"), "b.png": press.shot(2, faults=("spam",))})
    by_row = trace([press.row_id("01.png")[:8]], "photos", press.store)
    assert [(one.version.number, one.path, one.caption) for one in by_row] == [
        (1, "01.png", "a caption"),
        (2, "01.png", "new words"),
    ]
    assert trace(["01.png"], "photos", press.store) == by_row
    by_picture = trace([press.shot(2).id], "photos", press.store)
    assert [(one.version.number, one.path, one.reasons) for one in by_picture] == [
        (1, "02.png", ()),
        (2, "b.png", ("check: spam",)),
    ]
    assert by_picture[1].side is None
    assert trace(["nowhere.png", "0" * 64, ".*"], "photos", press.store) == []


def test_the_last_report_is_looked_at_though_it_was_refused(press: Any) -> None:
    press.check(press.collect(press.files(1)), None, passed=False)
    assert [one.version for one in trace(["01.png"], "photos", press.store)] == [None]


def test_models_that_were_trained_on_a_picture_are_found_and_no_others(press: Any) -> None:
    batch = press.files(*range(8))
    one, two = press.version(batch), press.version({**batch, "new.png": press.shot(99)})
    made, later = press.train(one), press.train(two)
    everywhere = {found.path: uses([found], press.store) for found in trace(batch, "photos", press.store)}
    assert {found.digest for found in uses(trace(["00.png"], "photos", press.store), press.store)} == {*made, *later}
    assert {found.digest for found in uses(trace(["new.png"], "photos", press.store), press.store)} == set(later)
    for path, used in everywhere.items():
        side = trace([path], "photos", press.store)[-1].side
        assert {found.sides for found in used} == {(side,)}
        assert [found.name for found in trained_on(used)] == ["painter"] * (side == "train")
    assert {side for used in everywhere.values() for found in used for side in found.sides} == {"train", "validation"}


def test_its_files_are_its_bytes_copies_and_thumbnails_and_nobody_elses(press: Any) -> None:
    press.version(press.files(1, 2))
    shown = thumbnail_path(press.store.root, picture_path(press.store, press.shot(1).id))
    shown.parent.mkdir(parents=True, exist_ok=True)
    shown.write_bytes(b"small")
    found = files_of(trace(["01.png"], "photos", press.store), "photos", press.store)
    assert len(found) == 3
    assert shown in found
    assert picture_path(press.store, press.shot(1).id) in found
    others = files_of(trace(["02.png"], "photos", press.store), "photos", press.store)
    assert not set(found) & set(others)


def test_a_version_whose_pictures_were_erased_is_not_gone_back_to(press: Any) -> None:
    one = press.version(press.files(1, 2))
    removals.add([removals.Removal(press.shot(1).id, None, None, "Ann", "2026-01-01", "", True)], press.store)
    with pytest.raises(DarkroomError, match="1 of its pictures were erased"):
        checked_of(one, press.store)
    two = press.version(press.files(1, 2))
    assert checked_of(two, press.store).digest == two.checked


def test_a_restored_folder_has_the_bytes_and_the_words_and_no_hostile_name(press: Any, tmp_path: Path) -> None:
    from darkroom.collect.folder import items

    files = {"../../evil.png": press.shot(1, caption="one"), "b.png": press.shot(2, caption="two")}
    version = press.version(files)
    target = tmp_path / "back"
    assert restore(checked_of(version, press.store), target, press.store).written == 2
    names = {path.name for path in target.iterdir()}
    assert {file_digest(target / name) for name in names - {"metadata.jsonl"}} == {one.id for one in files.values()}
    assert not (tmp_path.parent / "evil.png").exists()
    assert {item.caption for item in items(Collect(source="folder", path=str(target)))} == {"one", "two"}
    lines = [json.loads(line) for line in (target / "metadata.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines} == set(files)
    with pytest.raises(RecipeError, match="not empty"):
        restore(checked_of(version, press.store), target, press.store)


def test_bytes_that_were_lost_or_changed_are_named(press: Any, tmp_path: Path) -> None:
    version = press.version(press.files(1, 2, 3))
    picture_path(press.store, press.shot(1).id).unlink()
    picture_path(press.store, press.shot(2).id).write_bytes(b"changed")
    found = restore(checked_of(version, press.store), tmp_path / "back", press.store)
    assert (found.written, sorted(found.lost)) == (1, ["01.png", "02.png"])
