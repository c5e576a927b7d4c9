"""Differences between versions: equal to a reference of dictionaries, and told row by row."""

import random
from typing import Any

import pandas as pd
import pytest

from darkroom.quality import releases
from darkroom.versions.compare import COMPARED, changes, counts, diff, records, rows_of
from darkroom.versions.log import latest_report, report_of
from darkroom.versions.trace import pick


def table(rows: dict[str, tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame([(row_id, *values) for row_id, values in rows.items()], columns=["row_id", *COMPARED])


@pytest.mark.parametrize("trial", range(10))
def test_changes_equal_a_reference(trial: int) -> None:
    dice = random.Random(trial)

    def some() -> dict[str, tuple[Any, ...]]:
        names = dice.sample("abcdefghijkl", dice.randint(1, 12))
        return {name: tuple(dice.choice(["x", "y", None]) for _ in COMPARED) for name in names}

    old, new = some(), some()
    found = changes(table(old), table(new))
    assert set(found.new["row_id"]) == new.keys() - old.keys()
    assert set(found.gone["row_id"]) == old.keys() - new.keys()
    wanted = {
        name: ", ".join(column for column, a, b in zip(COMPARED, old[name], new[name], strict=True) if a != b)
        for name in old.keys() & new.keys()
    }
    assert dict(found.changed[["row_id", "columns"]].values) == {name: text for name, text in wanted.items() if text}
    assert found.unchanged == sum(not text for text in wanted.values())


def test_everything_is_new_at_first_and_nothing_the_second_time() -> None:
    rows = table({"a": ("1", None, None, None), "b": ("2", "two", None, None)})
    assert len(changes(None, rows).new) == 2
    same = changes(rows, rows.sample(frac=1, random_state=0))
    assert (len(same.new), len(same.changed), len(same.gone), same.unchanged) == (0, 0, 0, 2)


def test_a_picture_under_another_path_is_new_gone_and_moved() -> None:
    old, new = table({"a": ("1", None, None, None)}), table({"b": ("1", None, None, None)})
    assert changes(old, new).moved == 1


def test_rows_that_share_a_row_id_are_compared_in_their_order() -> None:
    twice = pd.concat([table({"a": ("1", "x", None, None)}), table({"a": ("2", "y", None, None)})], ignore_index=True)
    assert changes(twice, twice).unchanged == 2
    assert len(changes(twice, twice.iloc[:1]).gone) == 1


def test_a_diff_tells_every_kind_of_difference(press: Any) -> None:
    good, bad = press.files(1, 2, 3, 4), {"bad.png": press.shot(9, faults=("too small",))}
    one = press.version({**good, **bad, "soft.png": press.shot(8, faults=("spam",))})
    quarantine = rows_of(latest_report("photos", press.store))
    releases.release("photos", pick([press.row_id("soft.png")], quarantine), press.store, who="Ann")
    two = press.version(
        {
            **press.files(1, 5),
            "02.png": press.shot(2, caption="other words"),
            "03.png": press.shot(3, faults=("broken",)),
            "bad.png": press.shot(9, faults=("spam",)),
            "soft.png": press.shot(8, faults=("spam",)),
        }
    )
    found = diff(report_of(one, press.store), report_of(two, press.store))
    told = {(row["what"], row["path"]): row["detail"] for row in records(found)}
    assert told.keys() == {
        ("new", "05.png"), ("gone", "04.png"), ("changed", "02.png"), ("quarantined", "03.png"),
        ("refused anew", "bad.png"), ("readmitted", "soft.png"), ("released", "soft.png"),
    }  # fmt: skip
    assert told["changed", "02.png"] == "caption"
    assert told["quarantined", "03.png"] == "check: broken"
    assert told["released", "soft.png"].startswith("by Ann on ")
    assert sum(counts(found).values()) == len(found) == 7
    assert diff(report_of(one, press.store), report_of(one, press.store)).empty
    back = diff(report_of(two, press.store), report_of(one, press.store))
    assert {row["what"] for row in records(back) if row["path"] == "03.png"} == {"readmitted"}


def test_a_change_of_sides_is_told(press: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = press.version(press.files(*range(12)))
    monkeypatch.setitem(press.check.__func__.__globals__, "SEED", 5)
    press.rules = {"seed": 5}
    two = press.version(press.files(*range(12)))
    found = diff(report_of(one, press.store), report_of(two, press.store))
    assert set(found["what"]) == {"changed side"}
    assert set(found["detail"]) <= {"train to validation", "validation to train"}
