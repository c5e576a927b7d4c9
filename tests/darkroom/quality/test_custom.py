"""Darkroom's own expectations, against what their sentences say, on tables small enough to count by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from darkroom.quality import custom, drift


def look(expectation: Any, **columns: list[Any]) -> tuple[bool, str]:
    """(met, what was seen)."""
    found = expectation.look(pd.DataFrame(columns))
    assert isinstance(found["success"], bool)
    result = found["result"]
    return found["success"], result.get("observed_value", result.get("partial_unexpected_list"))


def test_a_cluster_on_both_sides_is_seen_however_large_the_table() -> None:
    rule = custom.ExpectOneValuePerGroup(column="split", group="duplicate_cluster")
    sides, clusters = ["train", "validation"] * 500, [f"c{number}" for number in range(1000)]
    assert look(rule, split=sides, duplicate_cluster=clusters)[0]
    clusters[1] = "c0"
    met, seen = look(rule, split=sides, duplicate_cluster=clusters)
    assert not met
    assert seen.startswith('1 of 999 groups have more than one split; "c0" has "train", "validation"')
    assert look(custom.ExpectOneValuePerGroup(column="split", group="duplicate_cluster", mostly=0.99),
                split=sides, duplicate_cluster=clusters)[0]  # fmt: skip


def test_groups_agree_with_brute_force() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        values = random.choice(["a", "b", None], 30, p=[0.8, 0.1, 0.1]).tolist()
        groups = random.choice(["x", "y", "z", "w", None], 30).tolist()
        known: dict[str, set[str]] = {}
        for value, group in zip(values, groups, strict=True):
            if value is not None and group is not None:
                known.setdefault(group, set()).add(value)
        mixed = sum(len(inside) > 1 for inside in known.values())
        met, seen = look(custom.ExpectOneValuePerGroup(column="label", group="group"), label=values, group=groups)
        assert met == (mixed == 0)
        assert seen.startswith(f"{mixed} of {len(known)} groups")


def test_balance_is_that_of_the_counts() -> None:
    labels = ["cat"] * 40 + ["dog"] * 10 + [None] * 5
    met, seen = look(custom.ExpectClassBalance(column="label", min_ratio=0.25), label=labels)
    assert met
    assert '"cat", has 40 rows and the rarest, "dog", 10: ratio 0.25' in seen
    assert not look(custom.ExpectClassBalance(column="label", min_ratio=0.26), label=labels)[0]
    assert look(custom.ExpectClassBalance(column="label", min_evenness=0.72), label=labels)[0]
    assert not look(custom.ExpectClassBalance(column="label", min_evenness=0.73), label=labels)[0]


def test_small_groups_are_counted() -> None:
    labels = ["a"] * 5 + ["b"] * 4 + ["c"]
    assert look(custom.ExpectGroupsOfAtLeast(column="label", min_rows=4, mostly=0.6), label=labels)[0]
    met, seen = look(custom.ExpectGroupsOfAtLeast(column="label", min_rows=5), label=labels)
    assert (met, seen) == (False, '2 of 3 have fewer than 5 rows, such as "b", "c"')


def test_flags_are_counted_by_kind() -> None:
    flags = ["", "blurred", "blurred; dark", "dark", None, ""]
    for kinds, count in (
        (None, 3),
        (["dark"], 2),
        (["blur*"], 2),
        (["dark", "blurred"], 3),
        (["blurred; dark"], 0),
        (["*k"], 2),
        ([], 0),
    ):
        rule = custom.ExpectShareOfFlagAtMost(column="flags", kinds=kinds, max_share=count / 6)
        found = rule.look(pd.DataFrame({"flags": flags}))
        assert (found["success"], found["result"]["unexpected_count"]) == (True, count)
        if count:
            strict = custom.ExpectShareOfFlagAtMost(column="flags", kinds=kinds, max_share=(count - 1) / 6)
            assert not strict.look(pd.DataFrame({"flags": flags}))["success"]


def test_shares_of_values() -> None:
    split = ["train"] * 9 + ["validation"] + [None]
    rule = custom.ExpectShareOfValueBetween(column="split", value="validation", min_share=0.1, max_share=0.2)
    assert look(rule, split=split) == (True, '"validation": 1 of 10 rows (10 %)')
    assert not look(custom.ExpectShareOfValueBetween(column="split", value="x", min_share=0.01), split=split)[0]
    captions = ["a"] * 30 + [f"{number}" for number in range(70)]
    assert not look(custom.ExpectCommonestShareAtMost(column="caption", max_share=0.29), caption=captions)[0]
    assert look(custom.ExpectCommonestShareAtMost(column="caption", max_share=0.3), caption=captions)[0]
    assert look(custom.ExpectCommonestShareAtMost(column="caption", max_share=0.1, min_rows=30), caption=captions)[0]


def test_shown_shares_are_of_single_values() -> None:
    seen = look(custom.ExpectSharesToBeShown(column="mended"), mended=["spaces; markup", "spaces", "", ""])[1]
    assert seen == '"spaces" 50 %, "markup" 25 %'
    seen = look(custom.ExpectSharesToBeShown(column="format", top=1), format=["PNG; x", "PNG; x", "JPEG", None])[1]
    assert seen == '"PNG; x" 50 % and 1 more'


def test_quantiles_are_bounded_on_both_sides() -> None:
    words = [*range(101), None, float("nan")]
    for bounds, met in (
        ({}, True),
        ({"0.5": [50, 50]}, True),
        ({"0.5": [51, None]}, False),
        ({"1": [None, 99]}, False),
    ):
        rule = custom.ExpectQuantilesBetween(column="words", quantiles=bounds)
        assert look(rule, words=words)[0] is met
    assert "median 50, 90 % between 5 and 95, all between 0 and 100" in look(rule, words=words)[1]


def test_long_pictures_are_named() -> None:
    rule = custom.ExpectAspectRatioAtMost(column_A="width", column_B="height", max_ratio=3, mostly=0.5)
    sides = {"width": [100, 301, 10, None], "height": [300, 100, 10, 5]}
    assert look(rule, **sides) == (True, ["301x100"])
    assert not look(custom.ExpectAspectRatioAtMost(max_ratio=1.5, mostly=0.5), **sides)[0]


def test_licences_that_forbid_are_counted() -> None:
    licences = ["CC BY-NC 4.0", "MIT", "unknown", None, "© all rights reserved"]
    assert look(custom.ExpectLicencesToBeOpen(column="licence"), licence=licences) == (
        False,
        [licences[0], licences[4]],
    )
    assert look(custom.ExpectLicencesToBeOpen(column="licence", max_share=0.4), licence=licences)[0]


def test_drift_is_bounded_by_level_kind_and_measure() -> None:
    rows = {
        "measure": ["label", "width"],
        "kind": ["category", "number"],
        "level": ["much", "some"],
        "sentence": ["Labels.", "Widths."],
    }
    assert look(custom.ExpectDriftAtMost(), **rows) == (False, "Labels. Widths.")
    assert look(custom.ExpectDriftAtMost(level="some"), **rows) == (False, "Labels.")
    assert look(custom.ExpectDriftAtMost(level="some", kinds=["number"]), **rows)[0]
    assert look(custom.ExpectDriftAtMost(measures=["height"]), **rows) == (True, drift.NOTHING)


EVERY = (
    custom.ExpectOneValuePerGroup(column="a", group="b"),
    custom.ExpectClassBalance(column="a", min_ratio=0.5),
    custom.ExpectGroupsOfAtLeast(column="a", min_rows=5),
    custom.ExpectShareOfFlagAtMost(column="a", max_share=0),
    custom.ExpectShareOfValueBetween(column="a", value="x", min_share=0.5),
    custom.ExpectCommonestShareAtMost(column="a", max_share=0.1),
    custom.ExpectSharesToBeShown(column="a"),
    custom.ExpectQuantilesBetween(column="a", quantiles={"0.5": [1, 2]}),
    custom.ExpectAspectRatioAtMost(column_A="a", column_B="b", max_ratio=2),
    custom.ExpectLicencesToBeOpen(column="a"),
)


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: type(rule).__name__)
def test_where_nothing_is_known_nothing_is_wrong(rule: Any) -> None:
    for table in (
        pd.DataFrame({"a": [], "b": []}),
        pd.DataFrame({"a": [None, None], "b": [None, None]}),
        pd.DataFrame({"a": [np.nan] * 3, "b": [1.0, np.nan, 2.0]}),
        pd.DataFrame({"a": pd.Series([None], dtype="str"), "b": pd.Series([None], dtype="str")}),
    ):
        assert rule.look(table)["success"] is True


def test_every_expectation_is_tested_where_nothing_is_known() -> None:
    kinds = {
        value for value in vars(custom).values()
        if isinstance(value, type) and value.__name__.startswith("Expect") and value.__module__ == custom.__name__
    }  # fmt: skip
    assert kinds == {type(rule) for rule in EVERY} | {custom.ExpectDriftAtMost}
