"""The rules over whole tables: what stops a run, what does not, and that nothing passes unevaluated."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from darkroom.errors import RecipeError
from darkroom.quality import checkpoint

SUITES = Path(__file__).parents[3] / "expectations"


def expectation(kind: str, severity: str = "critical", notes: str = "a rule", **arguments: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": arguments, "severity": severity, "notes": notes}


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., checkpoint.Outcome]:
    def run(table: pd.DataFrame, *expectations: object) -> checkpoint.Outcome:
        suite = tmp_path / "mine.json"
        suite.write_text(json.dumps({"expectations": expectations}), "utf-8")
        return checkpoint.run({"mine": table}, {"mine": suite}, tmp_path, run_name="test")

    return run


def digits(rows: int = 1797) -> pd.DataFrame:
    """A table like that of the digits: captions in two languages, everything accepted."""
    numbers = pd.Series(range(rows))
    return pd.DataFrame(
        {
            "row_id": numbers.map("{:064x}".format),
            "id": numbers.map(lambda number: f"{number + 5000:064x}"),
            "path": numbers.map("{:04d}.png".format),
            "source": "digits",
            "licence": "CC-BY-4.0",
            "caption": numbers.map(lambda number: "手写数字七" if number % 2 else "a handwritten seven"),
            "label": "seven",
            "width": 8,
            "height": 8,
            "format": "PNG",
            "mode": "L",
            "frames": 1,
            "orientation": 1,
            "bytes": 140,
            "sharpness": 67102.6,
            "entropy": 2.76,
            "brightness_p5": 0.0,
            "brightness_p99": 254.2,
            "saturation": 0.0,
            "duplicate_cluster": numbers.map("{:064x}".format),
            "caption_words": 2,
            "reasons": "",
            "accepted": True,
        }
    )


def judge_both(table: pd.DataFrame, out: Path) -> checkpoint.Outcome:
    accepted = table[table["accepted"]].reset_index(drop=True)
    files = {name: SUITES / f"{name}.json" for name in ("manifest", "pictures")}
    return checkpoint.run({"manifest": table, "pictures": accepted}, files, out, run_name="test")


def refused(table: pd.DataFrame, rows: int, reason: str) -> pd.DataFrame:
    """The table with its first rows refused and unmeasured."""
    table = table.astype({"width": "float64", "height": "float64", "entropy": "float64"})
    table.loc[: rows - 1, ["width", "height", "entropy"]] = None
    table.loc[: rows - 1, "reasons"] = reason
    table.loc[: rows - 1, "accepted"] = False
    return table


def test_the_built_in_suites_hold_for_the_digits(tmp_path: Path) -> None:
    outcome = judge_both(digits(), tmp_path)
    assert outcome.passed
    assert outcome.findings == ()
    assert outcome.evaluated == sum(len(json.loads(path.read_text())["expectations"]) for path in SUITES.glob("*.json"))
    assert (tmp_path / outcome.docs).is_file()
    assert json.loads((tmp_path / "result.json").read_text())["passed"] is True


def test_ten_good_pictures_suffice_and_one_bad_file_stops_nothing(tmp_path: Path) -> None:
    assert judge_both(digits(10), tmp_path / "ten").passed
    outcome = judge_both(refused(digits(20), 1, "check: undecodable: OSError: cut short"), tmp_path / "bad")
    assert outcome.passed
    assert any("unreadable" in finding.rule for finding in outcome.findings)


@pytest.mark.parametrize("reason", ["collect: unreadable: gone", "check: no caption"])
def test_mostly_refused_pictures_stop_a_run(tmp_path: Path, reason: str) -> None:
    assert not judge_both(refused(digits(40), 25, reason), tmp_path).passed


def test_only_critical_findings_stop_a_run(judge: Callable[..., checkpoint.Outcome]) -> None:
    for severity, passed in (("critical", False), ("warning", True), ("info", True)):
        outcome = judge(digits(12), expectation("column_values_to_be_between", severity, column="width", min_value=9))
        assert outcome.passed is passed
        assert [(finding.severity, finding.rule) for finding in outcome.findings] == [(severity, "a rule")]


def test_findings_are_ordered_and_say_what_was_seen_and_where(judge: Callable[..., checkpoint.Outcome]) -> None:
    outcome = judge(
        digits(12),
        expectation("column_mean_to_be_between", "info", "third", column="width", min_value=9),
        expectation("column_values_to_be_in_set", "critical", "first", column="format", value_set=["JPEG"]),
        expectation("table_row_count_to_be_between", "critical", "second", min_value=13),
    )
    assert [finding.rule for finding in outcome.findings] == ["first", "second", "third"]
    assert '12 of 12 rows (100 %), such as "PNG" in "0000.png"' in outcome.findings[0].observed
    assert outcome.findings[1].observed == "12"


def test_what_raises_is_critical_however_mild_and_never_a_pass(judge: Callable[..., checkpoint.Outcome]) -> None:
    mild = expectation("column_values_to_be_between", "info", column="caption", min_value=0)  # text against a number
    outcome = judge(digits(12), mild, expectation("column_values_to_not_be_null", column="id"))
    assert not outcome.passed
    assert outcome.evaluated == 2
    assert [finding.severity for finding in outcome.findings] == ["critical"]
    assert "could not be evaluated" in outcome.findings[0].observed


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (expectation("nonsense"), "expect_nonsense"),
        (expectation("column_values_to_be_unique", column="widht"), "no column widht"),
        (expectation("column_values_to_be_unique", colunm="width"), "colunm"),
        (expectation("column_values_to_be_unique", "dire", column="width"), "dire"),
        (expectation("column_quantile_values_to_be_between", column="width"), "median"),
        ("not an object", "expectation 2"),
    ],
)
def test_a_mistake_in_a_suite_is_named(judge: Callable[..., checkpoint.Outcome], bad: object, says: str) -> None:
    with pytest.raises(RecipeError, match=r"mine\.json") as caught:
        judge(digits(12), expectation("column_values_to_be_unique", column="id"), bad)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"expectations": []}', "\xff"])
def test_a_file_that_is_no_suite_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text, "latin-1")
    with pytest.raises(RecipeError, match=r"mine\.json"):
        checkpoint.run({"mine": digits(12)}, {"mine": tmp_path / "mine.json"}, tmp_path, run_name="test")


def test_empty_tables_are_refused_and_do_not_crash(tmp_path: Path) -> None:
    assert not judge_both(digits(12).head(0), tmp_path / "rows").passed
    suite = {"manifest": SUITES / "manifest.json"}
    assert not checkpoint.run({"manifest": pd.DataFrame()}, suite, tmp_path / "columns", run_name="test").passed


def test_the_same_table_gives_the_same_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = refused(digits(20), 5, "check: no caption")
    texts = []
    for name in ("one", "two"):
        judge_both(table, tmp_path / name)
        texts.append((tmp_path / name / "result.json").read_bytes())
    assert texts[0] == texts[1]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("great_expectations").level != logging.CRITICAL + 1
