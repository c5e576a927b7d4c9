"""The rules over whole tables: one Great Expectations run of all suites, its findings and its Data Docs.

A suite is a JSON file in expectations/: what ``great_expectations.ExpectationSuite(**json)`` takes, with the
expectations of :mod:`.custom` besides Great Expectations' own. Each expectation has a ``severity`` (critical stops a
run, warning asks for a look, info is shown) and ``notes``, the rule in one sentence.
"""

import contextlib
import json
import logging
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DarkroomError, RecipeError
from ..reasons import kind_of
from ..store import write_json
from . import docs

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from great_expectations.expectations.expectation import Expectation

SEVERITIES = ("critical", "warning", "info")
SITE = "data_docs"
BROKEN = {
    "expect_column_quantile_values_to_be_between": "Great Expectations 1.24 cannot store its result; "
    "use expect_column_median_to_be_between, or expect_column_values_to_be_between with mostly"
}
EXAMPLES = 3  # unexpected values named in a finding; the page has up to 20
# Results hold counts and the first 20 unexpected rows; with the index query Great Expectations would write out all.
RESULTS = {"result_format": "SUMMARY", "partial_unexpected_count": 20, "return_unexpected_index_query": False}
TEXT, SENTENCE = 300, 2000  # longest value and longest sentence that are kept, in characters
VALUE = "value"  # of an unexpected row, beside its path
WIDE = ("descriptor", "crops", "phash", "dhash")  # more than half of a table's memory, and seldom judged
REASONS = ("reasons", "flags")  # columns of lists of reasons, of which rules see the kinds

_log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()  # Great Expectations keeps its context in a global


@dataclass(frozen=True)
class Finding:
    """One expectation that was not met, or could not be evaluated."""

    suite: str
    severity: str
    rule: str
    observed: str


@dataclass(frozen=True)
class Outcome:
    """What all suites said together."""

    passed: bool
    """No finding is critical."""
    findings: tuple[Finding, ...]
    """The most severe first, then in the order of the suites."""
    evaluated: int
    """Expectations evaluated, those that raised included."""
    docs: Path
    """The index of the Data Docs, relative to the folder given."""


def preload() -> None:
    """Import Great Expectations, which takes seconds, while something else is waited for."""
    with _quiet():
        import great_expectations as great_expectations


def run(
    tables: Mapping[str, "pd.DataFrame"],
    suites: Mapping[str, Path],
    out: Path,
    *,
    run_name: str,
    among: "Mapping[str, pd.Series] | None" = None,
) -> Outcome:
    """Evaluate each suite on the table of the same key; write ``out/data_docs/`` and ``out/result.json``.

    Of a table that is named in ``among``, only the rows are judged for which that is true: a copy of them by the caller
    would be of all columns, among which those that no rule looks at are the widest. Rules see columns of lists as
    :func:`flat` makes them. About 15 CPU seconds a million rows with the suites of expectations/
    (benchmarks/expectations.py).

    Raises :class:`RecipeError` for a suite that cannot be read, has an unknown expectation or names a column that its
    table lacks. An expectation that raises while it is evaluated is a critical finding, whatever its own severity.
    """
    if tables.keys() != suites.keys():
        raise ValueError(f"tables {sorted(tables)} and suites {sorted(suites)} must have the same keys")
    contents = {name: _read(path) for name, path in suites.items()}  # cheap mistakes before the slow import
    with _one_at_a_time, _quiet():
        import great_expectations as gx
        from great_expectations.core import RunIdentifier

        from . import custom  # registers its expectations

        loaded = {name: _suite(name, content, suites[name], tables[name].columns) for name, content in contents.items()}
        context = _context(out / SITE)
        # For the rest of this process; nothing else in darkroom gives Great Expectations tables.
        gx.datasource.fluent.PandasDatasource.execution_engine_override = custom.Engine
        source = context.data_sources.add_pandas("tables")
        # It names a folder. Without a time, it would be read as one where it looks so, as a digest's digits can.
        run_id = RunIdentifier(run_name=re.sub(r"[^\w-]+", "-", run_name), run_time=datetime.now(UTC))
        results: dict[str, list[dict[str, Any]]] = {}
        for name, suite in loaded.items():
            # A data frame is a parameter of the whole checkpoint, so each table has its own; the run is the same.
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
            judged = _needed(tables[name], suite.expectations, (among or {}).get(name))
            table, suite = flat(judged, suite.expectations), context.suites.add(suite)
            definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
            checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format=RESULTS)
            ran = context.checkpoints.add(checkpoint).run({"dataframe": table}, run_id=run_id)
            order = {expectation.id: place for place, expectation in enumerate(suite.expectations)}
            for key, result in ran.run_results.items():
                plain: dict[str, Any] = result.to_json_dict()
                plain["results"].sort(key=lambda entry: order[entry["expectation_config"]["id"]])
                for entry in plain["results"]:
                    _name_rows(entry, table)
                results[name] = [_plain(entry) for entry in plain["results"]]
                _store_masked(context, key, plain, results[name])
            if len(results[name]) != len(suite.expectations):
                raise DarkroomError(f"the suite {suites[name]}: Great Expectations left out some of its expectations")
        context.build_data_docs(site_names=[SITE])
    for name in results:
        if not any((out / SITE / "validations" / name).rglob("*.html")):  # Great Expectations only logs such a failure
            _log.warning("Great Expectations drew no page of the suite %s; its findings are on the index", name)
    outcome = _outcome(results)
    docs.rewrite(out / SITE, outcome.passed, outcome.findings)
    write_json(out / "result.json", {**asdict(outcome), "docs": outcome.docs.as_posix(), "suites": results})
    return outcome


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"the suite {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("expectations"), list):
        raise RecipeError(f'the suite {path} must be a JSON object with a list "expectations"')
    if not content["expectations"]:
        raise RecipeError(f"the suite {path} has no expectations: add one, or leave the suite out")
    return content


def _suite(name: str, content: dict[str, Any], path: Path, columns: "pd.Index[Any]") -> "ExpectationSuite":
    """The suite of one file. Each expectation is tried alone: a suite leaves out, silently, what it cannot make."""
    import great_expectations as gx
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    for place, entry in enumerate(content["expectations"], start=1):
        kind = entry.get("type") if isinstance(entry, dict) else None
        where = f"the suite {path}, expectation {place} ({kind or 'without a type'})"
        if kind in BROKEN:
            raise RecipeError(f"{where}: {BROKEN[kind]}")
        try:
            ExpectationConfiguration(**entry).to_domain_obj()
        except Exception as error:  # whatever Great Expectations finds wrong with it
            reason = re.sub(r"\s*\n\s*", "; ", str(error).strip())
            raise RecipeError(f"{where}: {reason or type(error).__name__}") from error
        if len(columns) and kind != "expect_column_to_exist":
            missing = sorted(_columns_of(entry.get("kwargs", {})) - set(columns))
            if missing:
                raise RecipeError(
                    f"{where}: there is no column {', '.join(missing)}; the table has {', '.join(map(str, columns))}"
                )
    suite = gx.ExpectationSuite(**{**content, "name": name})
    for expectation in suite.expectations:
        config: dict[str, Any] = expectation.configuration.to_json_dict()
        expectation.description = docs.description(config["severity"], _rule(config), config["type"], config["kwargs"])
    return suite


def _columns_of(arguments: Mapping[str, Any]) -> set[str]:
    one = {arguments[key] for key in ("column", "column_A", "column_B", "group") if isinstance(arguments.get(key), str)}
    return one | set(arguments.get("column_list") or ())


def _context(site: Path) -> "EphemeralDataContext":
    """A context of this run alone, in memory, with one site and without analytics and progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    place = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={
            SITE: {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": place,
                "site_index_builder": index,
            }
        },
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _needed(table: "pd.DataFrame", expectations: Iterable["Expectation"], rows: "pd.Series | None") -> "pd.DataFrame":
    """The rows to judge, without those columns of :data:`WIDE` that no expectation speaks of."""
    if rows is None:
        return table
    configurations = [one.configuration for one in expectations]
    said = " ".join(text for one in configurations for text in (one.type, *_texts(one.kwargs)))
    if "table_column" in said:  # those on the columns of a table see all of them
        return table[rows]
    return table.loc[rows, [name for name in table.columns if name not in WIDE or name in said]]


def flat(table: "pd.DataFrame", expectations: Iterable["Expectation"]) -> "pd.DataFrame":
    """The table as expectations see it: lists in the columns that they name become texts, joined by "; ".

    Of reasons and flags only the kinds are left, as their details hold texts of the data, "; " included.
    """
    named = set().union(*(set(_texts(one.configuration.kwargs)) for one in expectations))
    texts = {
        name: _joined(table[name], name in REASONS)
        for name in table.columns
        if name in named and _has_lists(table[name])
    }
    return table.assign(**texts).reset_index(drop=True)  # rows are found again by their place


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _has_lists(column: "pd.Series") -> bool:
    import numpy as np

    if column.dtype != object:
        return False
    first = column.first_valid_index()
    return first is not None and isinstance(column.iloc[column.index.get_loc(first)], list | tuple | np.ndarray)


def _joined(column: "pd.Series", kinds: bool) -> "pd.Series":
    import pandas as pd

    taken = kind_of if kinds else str
    texts = [
        "; ".join(dict.fromkeys(map(taken, items))) if items is not None and len(items) else "" for items in column
    ]
    return pd.Series(texts, index=column.index, dtype="str")


def _name_rows(entry: dict[str, Any], table: "pd.DataFrame") -> None:
    """Add the paths of the rows that a result names by their place.

    Great Expectations can do it, but looks up every unexpected row one by one before it keeps the first 20.
    """
    result = entry["result"]
    rows, values = result.get("partial_unexpected_index_list"), result.get("partial_unexpected_list")
    if "path" not in table.columns or not rows or not values or not all(isinstance(row, int) for row in rows):
        return
    paths = table["path"].loc[rows]
    named = [
        {**(value if isinstance(value, dict) else {VALUE: value}), "path": path}
        for value, path in zip(values, paths, strict=True)
    ]
    result["partial_unexpected_index_list"] = named
    result["unexpected_index_column_names"] = ["path"]


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs from run to run: identifiers, times, tracebacks with folders of this machine."""
    config = entry["expectation_config"]
    raised = _raised(entry["exception_info"])
    return {
        "type": config["type"],
        "kwargs": {key: value for key, value in config["kwargs"].items() if key != "batch_id"},
        "rule": _rule(config),
        # What could not be evaluated has not passed, however mild the rule.
        "severity": SEVERITIES[0] if raised else config.get("severity") or SEVERITIES[0],
        "success": entry["success"] is True,
        "raised": raised,
        "result": docs.shorten(entry["result"], _longest(entry)),
    }


def _longest(entry: Mapping[str, Any]) -> int:
    """Characters of a result's texts. The values in a sentence are short already, but there can be many."""
    return SENTENCE if entry["result"].get("is_sentence") else TEXT


def _rule(config: Mapping[str, Any]) -> str:
    """The expectation's own sentence, or at least its name and arguments."""
    in_meta = (config.get("meta") or {}).get("notes")
    for said in (config.get("notes"), in_meta):
        said = said.get("content") if isinstance(said, dict) else said  # meta's older form: {"format", "content"}
        text = " ".join(map(str, said)) if isinstance(said, list) else str(said or "")
        if text.strip():
            return " ".join(text.split())
    return "This expectation has no notes that explain it."


def _raised(info: Any) -> str | None:
    """The message of the exception that an expectation raised, or None. ``info`` is one record, or one a metric."""
    if not isinstance(info, dict):
        return None
    if info.get("raised_exception") is True:
        return str(info.get("exception_message") or "no message").removeprefix("Error: ")
    messages = [message for value in info.values() if (message := _raised(value)) is not None]
    return "; ".join(dict.fromkeys(messages)) or None


def _outcome(results: Mapping[str, list[dict[str, Any]]]) -> Outcome:
    failed = [(suite, entry) for suite, entries in results.items() for entry in entries if not entry["success"]]
    failed.sort(key=lambda pair: SEVERITIES.index(pair[1]["severity"]))  # stable: then in the suites' order
    findings = tuple(Finding(suite, entry["severity"], entry["rule"], _observed(entry)) for suite, entry in failed)
    return Outcome(
        passed=all(finding.severity != SEVERITIES[0] for finding in findings),
        findings=findings,
        evaluated=sum(map(len, results.values())),
        docs=Path(SITE, docs.INDEX),
    )


def _observed(entry: Mapping[str, Any]) -> str:
    """What was seen instead, in words."""
    if entry["raised"]:
        return f"could not be evaluated: {docs.shorten(entry['raised'])}"
    result = entry["result"]
    count, total = result.get("unexpected_count"), result.get("element_count")
    if count is not None and total is not None:
        total -= result.get("missing_count") or 0
        share = f" ({100 * count / total:.3g} %)" if total else ""
        examples = _examples(result)
        return f"not so in {count:,} of {total:,} rows{share}{examples}"
    value = result.get("observed_value")
    unexpected = result.get("partial_unexpected_list") or []
    if value is None and unexpected:
        return f"unexpected: {', '.join(map(_shown, unexpected[:EXAMPLES]))}"
    if value is None:
        return "more than fits here; see the page of the suite"
    if result.get("is_sentence"):  # of darkroom's own expectations
        return str(value)
    return f"{value:,}" if isinstance(value, int | float) else _shown(value)


def _examples(result: Mapping[str, Any]) -> str:
    """A few unexpected values, with the paths of their rows where these are known."""
    rows = result.get("partial_unexpected_index_list") or []
    if rows and all(isinstance(row, dict) and "path" in row for row in rows):
        others = [[_shown(value) for name, value in row.items() if name != "path"] for row in rows]
        shown = [" ".join([*values, "in", _shown(row["path"])]) for values, row in zip(others, rows, strict=True)]
    else:
        shown = list(dict.fromkeys(map(_shown, result.get("partial_unexpected_list") or [])))
    return f", such as {', '.join(shown[:EXAMPLES])}" if shown else ""


def _shown(value: object) -> str:
    return str(docs.shorten(json.dumps(value, ensure_ascii=False, default=str), 60))


def _store_masked(context: "EphemeralDataContext", key: Any, whole: dict[str, Any], plain: list[Any]) -> None:
    """Replace what the Data Docs are made of by a copy whose strings from the data are harmless."""
    from great_expectations.core.expectation_validation_result import expectationSuiteValidationResultSchema

    entries = [_for_docs(entry, about["raised"]) for entry, about in zip(whole["results"], plain, strict=True)]
    masked = expectationSuiteValidationResultSchema.load({**whole, "results": entries})
    context.validation_results_store.set(key, masked)


def _for_docs(entry: dict[str, Any], raised: str | None) -> dict[str, Any]:
    """One result as its page shows it."""
    result = docs.mask(entry["result"], _longest(entry))
    if result.get("partial_unexpected_index_list") and result.get("partial_unexpected_counts"):
        result["unexpected_index_list"] = result["partial_unexpected_index_list"]  # shows the rows' paths
    info = {"raised_exception": raised is not None, "exception_message": docs.mask(raised)}
    info["exception_traceback"] = "Left out: it names folders of the machine."
    return {**entry, "result": result, "exception_info": info}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Great Expectations' loggers and warnings: what matters is in the findings."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
