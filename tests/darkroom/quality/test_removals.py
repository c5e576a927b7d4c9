"""Removals: what was removed never again enters, under no name, in no file, from no source."""

import dataclasses
from typing import Any

import pytest

from darkroom.quality import removals
from darkroom.quality.removals import Removal
from darkroom.versions.compare import rows_of
from darkroom.versions.log import report_of


def remove(press: Any, **what: Any) -> None:
    entry: dict[str, Any] = {"id": None, "row_id": None, "dataset": None, **what}
    removals.add([Removal(who="Ann", when="2026-01-01", **entry)], press.store)


def accepted(press: Any, files: dict[str, Any]) -> set[str]:
    rows = rows_of(report_of(press.version(files), press.store))
    return set(rows.loc[rows["accepted"], "path"])


def test_a_removed_picture_stays_out_under_every_name_and_in_every_data_set(press: Any) -> None:
    files = press.files(1, 2)
    assert accepted(press, files) == {"01.png", "02.png"}
    remove(press, id=press.shot(1).id)
    assert accepted(press, files) == {"02.png"}
    assert accepted(press, {"renamed.png": press.shot(1), **press.files(3)}) == {"03.png"}
    other = dataclasses.replace(press, dataset="other")
    assert accepted(other, {**files, "x.png": press.shot(4)}) == {"02.png", "x.png"}


def test_another_file_with_its_pixels_stays_out_too(press: Any) -> None:
    press.version(press.files(1, 2))
    remove(press, id=press.shot(1).id)
    assert accepted(press, {"again.png": press.shot(1, copy=7), **press.files(2)}) == {"02.png"}


def test_a_removed_row_stays_out_whatever_lies_there_but_only_in_its_data_set(press: Any) -> None:
    remove(press, row_id=press.row_id("01.png"), dataset="photos")
    assert accepted(press, {"01.png": press.shot(1), **press.files(2)}) == {"02.png"}
    assert accepted(press, {"01.png": press.shot(5), **press.files(2)}) == {"02.png"}
    other = dataclasses.replace(press, dataset="other")
    remove(other, row_id=press.row_id("02.png"), dataset="photos")
    assert accepted(other, press.files(2)) == {"02.png"}


def test_a_withdrawn_request_gives_the_version_from_before(press: Any) -> None:
    files = press.files(1, 2)
    before = press.version(files)
    remove(press, id=press.shot(1).id)
    assert press.version(files) != before
    assert len(removals.undo([press.shot(1).id], press.store)) == 1
    assert press.version(files) == before


def test_a_request_that_concerns_nothing_here_changes_no_digest(press: Any) -> None:
    files = press.files(1, 2)
    before = press.version(files)
    remove(press, id="0" * 64)
    remove(press, row_id="1" * 64, dataset="photos")
    remove(press, row_id=press.row_id("01.png"), dataset="other")
    assert press.version(files) == before


def test_near_copies_of_a_removed_picture_are_refused_also_where_clusters_were_joined(press: Any) -> None:
    import pandas as pd

    history = pd.DataFrame({"id": ["gone", "stays"], "pixels": ["p", "q"], "cluster": ["old", "other"]})
    table = pd.DataFrame({"pixels": ["p", "x", "y", "z"]})
    table["reasons"] = [[], [], [], []]
    concerned = [Removal("gone", None, None, "Ann", "2026-01-01")]
    found = removals.refuse_copies(table, ["a", "old", "new", "b"], {"new": ("old", "other")}, concerned, history)
    assert list(found["reasons"]) == [
        ["check: removed on request: the same pixels in another file"],
        ["check: near copy of a removed picture"],
        ["check: near copy of a removed picture"],
        [],
    ]


@pytest.mark.parametrize("erased", [(False, True), (True, False)])
def test_asking_twice_is_asking_once_and_what_is_erased_stays_so(press: Any, erased: tuple[bool, bool]) -> None:
    for each in erased:
        remove(press, id="0" * 64, erased=each)
    assert [one.erased for one in removals.read(press.store)] == [True]
