"""The rules over whole tables: what stops a run, what does not, and that nothing passes unevaluated."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from darkroom.errors import RecipeError
from darkroom.quality import checkpoint, drift

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
    digests = numbers.map(lambda number: f"{number + 5000:064x}")
    words = pd.Series(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[numbers % 10]
    words = words.reset_index(drop=True)
    return pd.DataFrame(
        {
            "row_id": numbers.map("{:064x}".format),
            "id": digests,
            "path": numbers.map("{:04d}.png".format),
            "source": "digits",
            "licence": "CC-BY-4.0",
            "origin": None,
            "caption": ("a handwritten " + words).where(numbers % 3 > 0, "手写数字" + words),
            "label": words,
            "sidecar": None,
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
            "border": 0.0,
            "alpha": 0.0,
            "pixels": digests,
            "phash": None,
            "dhash": None,
            "crops": None,
            "descriptor": digests.map(lambda digest: digest * 6),
            "converted": [[] for _ in numbers],
            "working": digests,
            "caption_source": "source",
            "mended": [[] for _ in numbers],
            "caption_words": 3,
            "caption_tokens": None,
            "caption_language": ["en" if number % 3 else "zh" for number in numbers],
            "duplicate_cluster": digests,
            "split": ["train" if number % 5 else "validation" for number in numbers],
            "flags": [[] for _ in numbers],
            "reasons": [[] for _ in numbers],
            "accepted": True,
        }
    )


def judge_all(table: pd.DataFrame, out: Path, *names: str) -> checkpoint.Outcome:
    """By the built-in suites, or some of them."""
    tables = {"manifest": table, "pictures": table[table["accepted"]], "drift": drift.compare(table, None).table()}
    tables = {name: tables[name] for name in names or tables}
    return checkpoint.run(tables, {name: SUITES / f"{name}.json" for name in tables}, out, run_name="test")


def refused(table: pd.DataFrame, rows: int, reason: str) -> pd.DataFrame:
    """The table with its first rows refused and unmeasured."""
    table = table.astype({"width": "float64", "height": "float64", "entropy": "float64"})
    table.loc[: rows - 1, ["width", "height", "entropy", "working", "split", "duplicate_cluster"]] = None
    kept = table.index >= rows
    return table.assign(reasons=[[] if good else [reason] for good in kept], accepted=kept)


def test_the_built_in_suites_hold_for_the_digits(tmp_path: Path) -> None:
    outcome = judge_all(digits(), tmp_path)
    assert outcome.passed
    assert outcome.findings == ()
    assert outcome.evaluated == sum(len(json.loads(path.read_text())["expectations"]) for path in SUITES.glob("*.json"))
    assert (tmp_path / outcome.docs).is_file()
    assert json.loads((tmp_path / "result.json").read_text())["passed"] is True


def test_ten_good_pictures_suffice_and_one_bad_file_stops_nothing(tmp_path: Path) -> None:
    assert judge_all(digits(10), tmp_path / "ten", "pictures").passed
    outcome = judge_all(refused(digits(20), 1, "check: undecodable: OSError: cut short"), tmp_path / "bad", "manifest")
    assert outcome.passed
    assert any("unreadable" in finding.rule for finding in outcome.findings)


@pytest.mark.parametrize("reason", ["collect: unreadable: gone", "check: no caption"])
def test_mostly_refused_pictures_stop_a_run(tmp_path: Path, reason: str) -> None:
    assert not judge_all(refused(digits(40), 25, reason), tmp_path, "manifest").passed


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
    assert not judge_all(digits(12).head(0), tmp_path / "rows").passed
    suite = {"manifest": SUITES / "manifest.json"}
    assert not checkpoint.run({"manifest": pd.DataFrame()}, suite, tmp_path / "columns", run_name="test").passed


def test_the_same_table_gives_the_same_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = refused(digits(20), 5, "check: no caption")
    texts = []
    for name in ("one", "two"):
        judge_all(table, tmp_path / name, "manifest", "drift")
        texts.append((tmp_path / name / "result.json").read_bytes())
    assert texts[0] == texts[1]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("great_expectations").level != logging.CRITICAL + 1


def test_rules_are_plenty_and_every_one_explains_itself() -> None:
    suites = {path.stem: json.loads(path.read_text("utf-8"))["expectations"] for path in SUITES.glob("*.json")}
    rules = [rule for suite in suites.values() for rule in suite]
    assert len(rules) >= 30
    assert {rule["severity"] for rule in rules} == set(checkpoint.SEVERITIES)
    assert all(rule["notes"].endswith(".") and len(rule["notes"].split()) >= 5 for rule in rules)
    for suite in suites.values():
        asked = [json.dumps([rule["type"], rule["kwargs"]], sort_keys=True) for rule in suite]
        assert len(set(asked)) == len(asked)


def test_what_makes_training_wrong_stops_a_run(tmp_path: Path) -> None:
    table = digits(60)
    spoilt = {name: table[name].where(table.index > 1, "x") for name in ("duplicate_cluster", "row_id", "id")}
    sides = ["train" if number == 1 else "validation" for number in range(60)]
    table = table.assign(**spoilt, working=table["working"].where(table.index > 1), width=4, split=sides)
    outcome = judge_all(table, tmp_path, "manifest", "pictures")
    said = " ".join(finding.rule for finding in outcome.findings if finding.severity == "critical")
    for rule in (
        "both sides of the split", "id of its own", "sha256 of its bytes", "a working copy", "8 pixels wide",
        "there to train on", "Row ids are sha256",
    ):  # fmt: skip
        assert rule in said


def test_what_asks_for_a_look_is_a_warning(tmp_path: Path) -> None:
    table = digits(400).assign(
        label=lambda rows: rows["label"].where(rows.index > 0, "rare"),
        licence=lambda rows: rows["licence"].where(rows.index > 2, "CC BY-NC 4.0"),
        caption="a photo",
        sharpness=3.0,
        flags=[["check: blurred: 3"]] * 400,
        caption_source="label",
        mended=[["spaces"]] * 400,
        split=["train" if number else "validation" for number in range(400)],
        border=0.5,
    )
    outcome = judge_all(table, tmp_path, "pictures")
    assert outcome.passed
    said = " ".join(finding.rule for finding in outcome.findings if finding.severity == "warning")
    for word in (
        "rarest",
        "licence forbids",
        "shared by",
        "sharp",
        "remark",
        "came with",
        "mended",
        "kept for",
        "frames",
    ):
        assert word in said
    seen = {finding.rule: finding.observed for finding in outcome.findings}
    assert any('"rare", 1' in observed for observed in seen.values())
    assert any('"CC BY-NC 4.0" in "0000.png"' in observed for observed in seen.values())


def test_data_without_labels_captions_and_numbers_raise_nothing(tmp_path: Path) -> None:
    blank = {
        "label": None,
        "caption": None,
        "caption_language": None,
        "licence": None,
        "bytes": None,
        "sharpness": None,
    }
    outcome = judge_all(digits(30).assign(**blank), tmp_path, "manifest", "pictures")
    assert not [finding for finding in outcome.findings if "could not be evaluated" in finding.observed]
    assert outcome.passed


def test_drift_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    old = digits(300)
    found = drift.compare(old.assign(brightness_p99=100.0), old)
    outcome = checkpoint.run({"drift": found.table()}, {"drift": SUITES / "drift.json"}, tmp_path, run_name="test")
    assert outcome.passed
    assert [finding.severity for finding in outcome.findings] == ["warning", "info"]
    assert "the median is 100 and was 254" in outcome.findings[0].observed


def test_rules_see_the_kinds_of_reasons_and_not_their_details(judge: Callable[..., checkpoint.Outcome]) -> None:
    table = digits(12)
    table["reasons"] = [["check: duplicate: of a; check: no caption.png"], *[[] for _ in range(11)]]
    outcome = judge(
        table,
        expectation("column_values_to_not_match_regex", column="reasons", regex="no caption"),
        expectation("share_of_flag_at_most", column="reasons", kinds=["no caption"], max_share=0),
        expectation("share_of_flag_at_most", "info", column="reasons", kinds=["dup*"], max_share=0),
    )
    assert [finding.severity for finding in outcome.findings] == ["info"]
    assert "duplicate" in outcome.findings[0].observed


def test_rows_are_named_whatever_the_index_and_condition(judge: Callable[..., checkpoint.Outcome]) -> None:
    table = digits(40).iloc[::-1].set_index(pd.Index(range(7, 47)))
    table["width"] = [int(path[:4]) for path in table["path"]]
    condition = {"row_condition": 'label=="seven"', "condition_parser": "pandas"}
    outcome = judge(
        table,
        expectation("column_values_to_be_between", column="width", max_value=38),
        expectation("column_values_to_be_between", column="width", max_value=30, **condition),
        expectation("column_values_to_not_be_null", column="sidecar"),
        expectation("column_pair_values_to_be_equal", column_A="width", column_B="height"),
    )
    observed = [finding.observed for finding in outcome.findings]
    assert '1 of 40 rows (2.5 %), such as 39 in "0039.png"' in observed[0]
    assert '1 of 4 rows (25 %), such as 37 in "0037.png"' in observed[1]
    assert 'null in "0039.png"' in observed[2]
    assert "39 of 40 rows" in observed[3]


def test_rows_among_a_table_are_judged_as_a_table_of_them_is(tmp_path: Path) -> None:
    table = refused(digits(60), 7, "check: undecodable: cut short")
    table.loc[20:29, "caption"] = "a buy now"
    suite = {"expectations": [
        expectation("column_values_to_not_match_regex", column="caption", regex="buy"),
        expectation("column_values_to_not_match_regex", column="label", regex="^eight$", row_condition="crops.isna()",
                    condition_parser="pandas"),
        expectation("column_value_lengths_to_equal", column="descriptor", value=384, severity="info"),
        expectation("table_row_count_to_equal", value=60, severity="info"),
    ]}  # fmt: skip
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(suite), "utf-8")
    apart, among = tmp_path / "apart", tmp_path / "among"
    one = checkpoint.run({"mine": table[table["accepted"]]}, {"mine": file}, apart, run_name="test")
    other = checkpoint.run({"mine": table}, {"mine": file}, among, run_name="test", among={"mine": table["accepted"]})
    assert one == other
    assert len(one.findings) == 3
    assert (apart / "result.json").read_text() == (among / "result.json").read_text()
    every_column = [expectation("table_column_count_to_equal", value=len(table.columns))]
    file.write_text(json.dumps({"expectations": every_column}), "utf-8")
    assert checkpoint.run(
        {"mine": table}, {"mine": file}, among, run_name="9" * 11, among={"mine": table["accepted"]}
    ).passed
