"""Expectations that Great Expectations has not: about groups of rows, shares of flags, balance, licences and drift.

A class ``ExpectClassBalance`` is the ``type`` ``expect_class_balance`` of a suite; its fields are the ``kwargs``. Each
looks at whole columns at once, and says what it saw in one sentence. What is not known (None) is left out, and a table
in which nothing is known meets every one of them: that there are rows, and no gaps, is for other rules to say.

Importing this module registers the classes; only :mod:`darkroom.quality.checkpoint` does, since it takes seconds.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from great_expectations.validator.metric_configuration import MetricConfiguration

from .docs import shorten
from .drift import LEVELS, NOTHING
from .licences import restrictions

EXAMPLES = 20  # rows that a result names; a page has no room for more
METRIC = "table.darkroom_columns"


class Engine(PandasExecutionEngine):  # type: ignore[misc]
    """Hands each metric the columns that it asks for.

    Great Expectations' own copies the whole table several times a rule, to leave out the rows without a value, and
    hashes all of it before.
    """

    def get_domain_records(self, domain_kwargs: dict[str, Any]) -> pd.DataFrame:
        """The rows, cut to the domain's columns."""
        table: pd.DataFrame = super().get_domain_records(domain_kwargs)
        names = [domain_kwargs[key] for key in ("column", "column_A", "column_B") if domain_kwargs.get(key)]
        names = list(dict.fromkeys([*names, *(domain_kwargs.get("column_list") or ())]))
        return table[names] if names and set(names) <= set(table.columns) else table

    def get_batch_data_and_markers(self, batch_spec: Any) -> tuple[Any, Any]:
        """Nothing is read and no fingerprint made: the manifest's digest says which data it is."""
        from great_expectations.core.batch import BatchMarkers
        from great_expectations.execution_engine.pandas_batch_data import PandasBatchData

        table, batch_spec.batch_data = batch_spec.batch_data, "PandasDataFrame"
        return PandasBatchData(self, table), BatchMarkers({"ge_load_time": "unknown"})


class _Columns(TableMetricProvider):  # type: ignore[misc]
    """The table, cut to named columns."""

    metric_name = METRIC
    value_keys = ("names",)

    @metric_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator,unused-ignore]
    def _pandas(
        cls,  # noqa: N805 - Great Expectations makes it a class method
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],  # noqa: ARG002
        runtime_configuration: dict[str, Any],  # noqa: ARG002
    ) -> pd.DataFrame:
        table: pd.DataFrame = execution_engine.get_domain_records(metric_domain_kwargs)
        names = list(metric_value_kwargs["names"])
        return table[names] if len(table.columns) else table.reindex(columns=names)


class _Fact(BatchExpectation, ABC):  # type: ignore[misc]
    """An expectation about named columns of the whole table."""

    column_fields: ClassVar[tuple[str, ...]] = ("column",)
    domain_type: ClassVar[MetricDomainTypes] = MetricDomainTypes.TABLE

    @abstractmethod
    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        """``{"success": bool, "result": {...}}`` of a table that has the columns."""

    def get_validation_dependencies(self, execution_engine: Any = None, runtime_configuration: Any = None) -> Any:
        needed = super().get_validation_dependencies(execution_engine, runtime_configuration)
        names = [getattr(self, field) for field in self.column_fields]
        needed.set_metric_configuration(
            METRIC, MetricConfiguration(METRIC, {"batch_id": self.batch_id}, {"names": names})
        )
        return needed

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        del runtime_configuration, execution_engine  # results are small in every format, and made with pandas
        return self.look(metrics[METRIC])


class ExpectOneValuePerGroup(_Fact):
    """The rows of a ``group`` have the same value in ``column``; ``mostly`` is the share of groups that must."""

    column: str
    group: str
    mostly: float = 1.0
    column_fields: ClassVar[tuple[str, ...]] = ("column", "group")

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        values, value_names = _codes(table[self.column])
        groups, group_names = _codes(table[self.group])
        known = (values >= 0) & (groups >= 0)
        pairs = np.unique(groups[known].astype(np.int64) * max(1, len(value_names)) + values[known])
        counts = np.bincount(pairs // max(1, len(value_names)), minlength=len(group_names))
        total, mixed = int((counts > 0).sum()), np.flatnonzero(counts > 1)
        said = f"{len(mixed):,} of {total:,} groups have more than one {self.column}"
        for one in mixed[:3]:
            inside = [value_names[pair % len(value_names)] for pair in pairs[pairs // len(value_names) == one]]
            said += f"; {_named(group_names[one])} has {_listed(inside)}"
        return _seen(not total or 1 - len(mixed) / total >= self.mostly, said if total else "no group is known")


class ExpectClassBalance(_Fact):
    """The rarest class has at least ``min_ratio`` of the rows of the commonest.

    ``min_evenness`` bounds the entropy of the shares over its largest value, that of equal shares: 1 is even.
    """

    column: str
    min_ratio: float = 0.0
    min_evenness: float = 0.0

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        names, counts = _counted(table[self.column])
        if len(names) < 2:
            return _seen(True, f"only one class: {_named(names[0])}" if len(names) else "no row has a label")
        shares = counts / counts.sum()
        ratio = float(counts[-1] / counts[0])
        evenness = float(-(shares * np.log(shares)).sum() / np.log(len(shares)))
        said = (
            f"{len(names):,} classes; the commonest, {_named(names[0])}, has {counts[0]:,} rows and the rarest, "
            f"{_named(names[-1])}, {counts[-1]:,}: ratio {ratio:.2g}, evenness {evenness:.2g}"
        )
        return _seen(ratio >= self.min_ratio and evenness >= self.min_evenness, said)


class ExpectGroupsOfAtLeast(_Fact):
    """Each value of ``column`` has at least ``min_rows`` rows; ``mostly`` is the share of values that must."""

    column: str
    min_rows: int
    mostly: float = 1.0

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        names, counts = _counted(table[self.column])
        if not len(names):
            return _seen(True, "nothing is known")
        small = int((counts < self.min_rows).sum())  # the last ones
        said = f"{small:,} of {len(names):,} have fewer than {self.min_rows:,} rows"
        said += f", such as {_listed(names[-small:][:3])}" if small else ""
        return _seen(1 - small / len(names) >= self.mostly, said)


class ExpectShareOfFlagAtMost(_Fact):
    """At most ``max_share`` of all rows carry one of ``kinds`` in a column of reasons, flags or remarks.

    In a kind, ``*`` stands for anything; None takes every kind. Such a column holds the kinds of a row as one text,
    joined by "; " (see :func:`darkroom.quality.checkpoint.flat`).
    """

    column: str
    max_share: float
    kinds: list[str] | None = None

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        codes, texts = _codes(table[self.column])
        wanted = ["?*"] if self.kinds is None else self.kinds
        hit = [any(fnmatchcase(kind, one) for kind in str(text).split("; ") for one in wanted) for text in texts]
        carrying = np.array([*hit, False])[codes]  # a code of -1, unknown, takes the last
        result = _rows(carrying, table[self.column])
        share = result["unexpected_count"] / max(1, len(table))
        return {"success": share <= self.max_share, "result": result}


class ExpectShareOfValueBetween(_Fact):
    """Among the rows where ``column`` is known, the share of ``value`` is within limits."""

    column: str
    value: str
    min_share: float = 0.0
    max_share: float = 1.0

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        known = int(table[self.column].notna().sum())
        if not known:
            return _seen(True, "nothing is known")
        count = int((table[self.column] == self.value).sum())
        said = f"{_named(self.value)}: {count:,} of {known:,} rows ({_percent(count / known)})"
        return _seen(self.min_share <= count / known <= self.max_share, said)


class ExpectCommonestShareAtMost(_Fact):
    """No value of ``column`` is shared by more than ``max_share`` of the rows; up to ``min_rows`` rows always may."""

    column: str
    max_share: float
    min_rows: int = 20

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        names, counts = _counted(table[self.column])
        if not len(names):
            return _seen(True, "nothing is known")
        share = float(counts[0] / counts.sum())
        said = f"{_named(names[0])} is shared by {counts[0]:,} of {counts.sum():,} rows ({_percent(share)})"
        return _seen(share <= self.max_share or counts[0] <= self.min_rows, said)


class ExpectSharesToBeShown(_Fact):
    """Always met: shows the commonest values of ``column``, or the commonest kinds where a row can have several."""

    column: str
    top: int = 8

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        names, counts = _counted(table[self.column])
        single: dict[str, int] = {}
        for name, count in zip(names, counts, strict=True):
            for part in str(name).split("; ") if self.column in LISTS else [str(name)]:
                single[part] = single.get(part, 0) + int(count)
        single.pop("", None)
        if not single:
            return _seen(True, "none")
        order = sorted(single.items(), key=lambda pair: -pair[1])
        said = ", ".join(f"{_named(name)} {_percent(count / len(table))}" for name, count in order[: self.top])
        more = f" and {len(order) - self.top:,} more" if len(order) > self.top else ""
        return _seen(True, said + more)


class ExpectQuantilesBetween(_Fact):
    """Quantiles of ``column`` are within ``[min, max]``, None being open: ``{"0.5": [2, null]}`` bounds the median.

    The least, the 5 %, 50 % and 95 % quantile and the largest value are shown whether they are bounded or not.
    """

    column: str
    quantiles: dict[str, tuple[float | None, float | None]] = {}  # noqa: RUF012 - pydantic copies it

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        values = pd.to_numeric(table[self.column]).to_numpy(np.float64, na_value=np.nan)
        values = values[np.isfinite(values)]
        if not len(values):
            return _seen(True, "nothing is known")
        at = [0.0, 0.05, 0.5, 0.95, 1.0]
        least, low, median, high, most = np.quantile(values, at)
        met, wrong = True, ""
        for level, (lowest, highest) in self.quantiles.items():
            value = float(np.quantile(values, float(level)))
            if (lowest is not None and value < lowest) or (highest is not None and value > highest):
                met, wrong = False, f"{wrong}; the {float(level):g} quantile is {_number(value)}"
        said = f"median {_number(median)}"
        said += f", 90 % between {_number(low)} and {_number(high)}, all between {_number(least)} and {_number(most)}"
        return _seen(met, said + wrong)


class ExpectAspectRatioAtMost(_Fact):
    """The longer side over the shorter is at most ``max_ratio`` in a share ``mostly`` of the rows."""

    column_A: str = "width"  # noqa: N815 - Great Expectations' names for a pair of columns
    column_B: str = "height"  # noqa: N815
    max_ratio: float
    mostly: float = 1.0
    column_fields: ClassVar[tuple[str, ...]] = ("column_A", "column_B")

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        one, other = (pd.to_numeric(table[name]).to_numpy(np.float64, na_value=np.nan) for name in self._names())
        with np.errstate(invalid="ignore", divide="ignore"):
            long = np.maximum(one, other) / np.minimum(one, other) > self.max_ratio  # False where a side is unknown
        known = np.isfinite(one) & np.isfinite(other)
        shown = [f"{one[row]:g}x{other[row]:g}" for row in np.flatnonzero(long)[:EXAMPLES]]
        result = _rows(long, shown, missing=int((~known).sum()))
        return {"success": int(long.sum()) <= (1 - self.mostly) * int(known.sum()), "result": result}

    def _names(self) -> tuple[str, str]:
        return self.column_A, self.column_B


class ExpectLicencesToBeOpen(_Fact):
    """At most ``max_share`` of the rows have a licence that forbids commercial use or changes, or grants nothing."""

    column: str
    max_share: float = 0.0

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        codes, names = _codes(table[self.column])
        hit = [bool(restrictions(str(name))) for name in names]
        result = _rows(np.array([*hit, False])[codes], table[self.column])
        return {"success": result["unexpected_count"] <= self.max_share * len(table), "result": result}


class ExpectDriftAtMost(_Fact):
    """No measure of the table of drift (:meth:`darkroom.quality.drift.Drift.table`) is above ``level``.

    ``kinds`` and ``measures`` choose the rows that are looked at; None takes all.
    """

    level: Literal["none", "some"] = "none"
    kinds: list[str] | None = None
    measures: list[str] | None = None
    column_fields: ClassVar[tuple[str, ...]] = ()

    def get_validation_dependencies(self, execution_engine: Any = None, runtime_configuration: Any = None) -> Any:
        needed = BatchExpectation.get_validation_dependencies(self, execution_engine, runtime_configuration)
        names = ["measure", "kind", "level", "sentence"]
        needed.set_metric_configuration(
            METRIC, MetricConfiguration(METRIC, {"batch_id": self.batch_id}, {"names": names})
        )
        return needed

    def look(self, table: pd.DataFrame) -> dict[str, Any]:
        if self.kinds is not None:
            table = table[table["kind"].isin(self.kinds)]
        if self.measures is not None:
            table = table[table["measure"].isin(self.measures)]
        if table.empty:
            return _seen(True, NOTHING)
        above = table[table["level"].map(LEVELS.index) > LEVELS.index(self.level)]
        said = " ".join(above["sentence"]) if len(above) else f"{len(table)} compared, none drifted further"
        return _seen(above.empty, said)


LISTS = ("reasons", "flags", "converted", "mended")  # columns in which a row can have several values


def _codes(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """(the number of each row's value, -1 where it has none; the values)."""
    codes, values = pd.factorize(column)
    return np.asarray(codes), pd.Index(values)


def _counted(column: pd.Series) -> tuple[pd.Index, np.ndarray]:
    """(values, rows of each), the commonest first and equally common ones as they come."""
    codes, values = _codes(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    order = np.argsort(-counts, kind="stable")
    return values[order], counts[order]


def _seen(success: bool, said: str) -> dict[str, Any]:
    return {"success": bool(success), "result": {"observed_value": said, "is_sentence": True}}


def _rows(unexpected: np.ndarray, shown: Any, missing: int = 0) -> dict[str, Any]:
    """A result like that of Great Expectations' own rules about rows: counts, and the first rows with their values."""
    count, first = int(unexpected.sum()), np.flatnonzero(unexpected)[:EXAMPLES]
    values = list(shown.iloc[first]) if isinstance(shown, pd.Series) else list(shown)
    share = 100 * count / max(1, len(unexpected) - missing)
    return {
        "element_count": len(unexpected),
        "missing_count": missing,
        "unexpected_count": count,
        "unexpected_percent": share,
        "partial_unexpected_list": values,
        "partial_unexpected_counts": _repeats(values),
        "partial_unexpected_index_list": first.tolist(),
    }


def _repeats(values: list[Any]) -> list[dict[str, Any]]:
    return [{"value": value, "count": values.count(value)} for value in dict.fromkeys(values)]


def _named(value: object) -> str:
    """A value of the data in a sentence: short and in quotation marks."""
    return str(shorten(json.dumps(str(value), ensure_ascii=False), 60))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(_named, values))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
