"""Releases: a person's word for a row counts until its file or the rules change, but not for what no one can judge."""

import multiprocessing
from typing import Any

import pandas as pd
import pytest

from darkroom.errors import RecipeError
from darkroom.quality import releases
from darkroom.reasons import reason
from darkroom.store import Store
from darkroom.versions.compare import rows_of
from darkroom.versions.log import latest_report, report_of
from darkroom.versions.trace import pick


def quarantine(press: Any) -> pd.DataFrame:
    rows = rows_of(latest_report("photos", press.store))
    return rows[~rows["accepted"]]


def release(press: Any, *paths: str, **more: Any) -> list[releases.Release]:
    rows = quarantine(press)
    return releases.release("photos", rows[rows["path"].isin(paths)], press.store, who="Ann", **more)


def test_a_released_row_is_accepted_with_a_flag_and_comes_back_when_unreleased(press: Any) -> None:
    files = {**press.files(1), "soft.png": press.shot(2, faults=("spam", "too small"))}
    before = press.version(files)
    made = release(press, "soft.png", note="fine by me")
    assert made[0].kinds == ("spam", "too small")
    after = press.version(files)
    assert (before.accepted, after.accepted) == (1, 2)
    row = rows_of(report_of(after, press.store)).set_index("path").loc["soft.png"]
    assert row["accepted"]
    assert row["flags"] == [f"check: released: by Ann on {made[0].when}: spam, too small"]
    assert press.version(files) == after, "and nothing new happens"
    releases.unrelease("photos", [made[0].row_id], press.store)
    assert press.version(files) == before


def test_a_changed_file_needs_a_new_release(press: Any) -> None:
    press.version({"soft.png": press.shot(2, faults=("spam",))})
    release(press, "soft.png")
    changed = press.version({"soft.png": press.shot(2, faults=("spam",), copy=1)})
    assert changed.accepted == 0


def test_another_kind_of_reason_needs_a_new_release_which_keeps_the_old_one(press: Any) -> None:
    press.version({"soft.png": press.shot(2, faults=("spam",))})
    release(press, "soft.png")
    worse = {"soft.png": press.shot(2, faults=("spam", "border"))}
    assert press.version(worse).accepted == 0
    assert next(iter(quarantine(press)["reasons"])) == ["check: border"]
    assert release(press, "soft.png")[0].kinds == ("border", "spam")
    assert press.version(worse).accepted == 1


@pytest.mark.parametrize("kind", sorted(releases.FIRM))
def test_what_no_person_can_judge_away_is_not_released(press: Any, kind: str) -> None:
    press.version({"soft.png": press.shot(1, faults=("spam",)), "hard.png": press.shot(2, faults=("spam", kind))})
    with pytest.raises(RecipeError, match=rf"nothing was released.*'hard\.png'\): {kind} cannot be released, "):
        release(press, "soft.png", "hard.png")
    assert releases.read("photos", press.store) == {}


def test_a_row_without_a_picture_is_not_released(press: Any) -> None:
    press.version({"soft.png": press.shot(1, faults=("spam",))})
    rows = quarantine(press)
    for column in ("id", "working"):
        with pytest.raises(RecipeError, match="there is no picture to use"):
            releases.release("photos", rows.assign(**{column: None}), press.store)


def test_a_second_copy_does_not_slip_in_with_a_release(press: Any) -> None:
    files = {"a.png": press.shot(1), "b.png": press.shot(1, copy=1, faults=("spam",))}
    press.version(files)
    release(press, "b.png")
    assert press.version(files).accepted == 1


def test_only_what_concerns_the_manifest_enters_the_digest(press: Any) -> None:
    mine = {"a.png": press.shot(1, faults=("spam",)), "b.png": press.shot(2)}
    press.version({**mine, "c.png": press.shot(3, faults=("spam",))})
    table = pd.read_parquet(press.collect(mine).path / "manifest.parquet")
    release(press, "c.png")
    assert releases.digest_fields(releases.read("photos", press.store), table) == {}
    release(press, "a.png")
    known = releases.read("photos", press.store)
    assert list(releases.digest_fields(known, table)) == [press.row_id("a.png")]
    assert releases.digest_fields(known, table.assign(id="other bytes")) == {}


def test_applying_twice_is_applying_once_and_changes_no_other_row() -> None:
    table = pd.DataFrame({"row_id": ["a", "b"], "id": ["1", "2"]})
    table["reasons"] = [[reason("check", "spam"), reason("check", "duplicate", "of x")], [reason("check", "spam")]]
    table["flags"] = [["check: noted"], []]
    one = {"a": releases.Release("a", "1", ("spam", "duplicate"), "Ann", "2026-01-01")}
    done = releases.apply(table, one)
    assert list(done["reasons"]) == [["check: duplicate: of x"], ["check: spam"]], "firm kinds stay"
    assert list(done["flags"]) == [["check: noted", one["a"].flag], []]
    pd.testing.assert_frame_equal(releases.apply(done, one), done)
    assert list(table["flags"]) == [["check: noted"], []], "what was given is not changed"


def _release_one(root: Any, name: str) -> None:
    row = {"row_id": name, "id": "1", "path": "p", "working": "w", "reasons": ["check: spam"]}
    releases.release("photos", pd.DataFrame([row]), Store(root))


def test_releases_of_two_processes_are_both_kept(press: Any) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_release_one, args=(press.store.root, f"row {index}")) for index in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(releases.read("photos", press.store)) == 6


@pytest.mark.parametrize("text", ["short", "00000000", "", "g" * 8])
def test_a_row_is_named_by_eight_digits_or_more_that_mean_it_alone(press: Any, text: str) -> None:
    press.version({"a.png": press.shot(1, faults=("spam",))})
    rows = quarantine(press)
    assert len(pick([press.row_id("a.png")[:8]], rows)) == 1
    with pytest.raises(RecipeError, match="no row"):
        pick([text], rows)
