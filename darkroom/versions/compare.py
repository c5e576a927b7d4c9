"""What differs between two versions of a data set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import QualityReport
from darkroom.reasons import kind_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COMPARED = ("id", "caption", "label", "licence")
READ = ("row_id", *COMPARED, "path", "pixels", "working", "duplicate_cluster", "split", "reasons", "flags")
RELEASED = "check: released: "  # how the flag of a released row begins


@dataclass(frozen=True)
class Changes:
    """Rows by ``row_id``: those of ``new`` and ``changed`` as they are now, those of ``gone`` as they were.

    ``changed`` has also ``columns``: which of id, caption, label and licence differ, as one text. ``moved`` counts the
    new rows whose very picture went away under another path.
    """

    new: "pd.DataFrame"
    changed: "pd.DataFrame"
    gone: "pd.DataFrame"
    unchanged: int
    moved: int


def rows_of(report: QualityReport, columns: Sequence[str] = READ) -> "pd.DataFrame":
    """All rows of a report, in quarantine or not: those of ``columns`` that it has, and ``accepted``.

    ``reasons`` and ``flags`` hold lists; accepted rows have no reasons.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    parts = []
    for name, accepted in (("checked.parquet", True), ("quarantine.parquet", False)):
        path = report.path / name
        there = set(pq.read_schema(path).names)
        part = pd.read_parquet(path, columns=[column for column in columns if column in there])
        for column in ("reasons", "flags"):
            if column in columns:
                part[column] = pd.Series(
                    [list(one) for one in part[column]] if column in there else [[]] * len(part),
                    index=part.index,
                    dtype=object,
                )
        parts.append(part.assign(accepted=accepted))
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True)


def changes(old: "pd.DataFrame | None", new: "pd.DataFrame") -> Changes:
    """What is new, changed and gone; both tables have ``row_id`` and the columns of :data:`COMPARED`.

    Rows that share a row_id (a path that a source names twice) are compared in their order.
    """
    if old is None:
        return Changes(new, new.iloc[:0].assign(columns=""), new.iloc[:0], 0, 0)
    now, before = _meet(old, new)
    different = {column: _differ(new[column].iloc[now], old[column].iloc[before]) for column in COMPARED}
    touched = _any(different)
    positions = now[touched]
    texts = [", ".join(column for column in COMPARED if different[column][row]) for row in touched.nonzero()[0]]
    fresh, gone = _without(new, now), _without(old, before)
    moved = int(fresh["id"].isin(gone["id"].dropna()).sum())
    return Changes(fresh, new.iloc[positions].assign(columns=texts), gone, len(now) - len(positions), moved)


def diff(old: QualityReport, new: QualityReport) -> "pd.DataFrame":
    """One row for every difference, with columns ``what``, ``row_id``, ``id``, ``path`` and ``detail``.

    ``what`` is new, gone, changed, quarantined (accepted before), readmitted (in quarantine before), released, changed
    side, or refused anew (for another reason than before). A row can have several.
    """
    import pandas as pd

    was, now = rows_of(old), rows_of(new)
    found = changes(was, now)
    parts = [
        _told("new", found.new, _standing(found.new)),
        _told("changed", found.changed, list(found.changed["columns"])),
        _told("gone", found.gone, _standing(found.gone)),
    ]
    left, right = _meet(was, now)
    here, there = now.iloc[left].reset_index(drop=True), was.iloc[right].reset_index(drop=True)
    accepted, before = here["accepted"].to_numpy(), there["accepted"].to_numpy()
    parts.append(_told("quarantined", rows := here[before & ~accepted], _standing(rows)))
    parts.append(_told("readmitted", rows := here[~before & accepted], _standing(there[~before & accepted])))
    both = here[~before & ~accepted]
    again = _mask(_kinds(a) != _kinds(b) for a, b in zip(both["reasons"], there["reasons"][both.index], strict=True))
    parts.append(_told("refused anew", rows := both[again], _standing(rows)))
    released = _mask(
        _release(a) is not None and _release(a) != _release(b)
        for a, b in zip(here["flags"], there["flags"], strict=True)
    )
    parts.append(_told("released", rows := here[released], [str(_release(flags)) for flags in rows["flags"]]))
    sides = before & accepted & _differ(here["split"], there["split"])
    parts.append(
        _told(
            "changed side",
            rows := here[sides],
            [f"{a} to {b}" for a, b in zip(there.loc[rows.index, "split"], rows["split"], strict=True)],
        )
    )
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def counts(table: "pd.DataFrame") -> dict[str, int]:
    """How many rows of a :func:`diff` say what, in the order of the table."""
    return {str(what): int(count) for what, count in table["what"].value_counts(sort=False).items()}


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """A table's rows for JSON: None where a value is missing."""
    plain = table.astype(object).where(table.notna(), None)
    return [dict(zip(plain.columns, values, strict=True)) for values in plain.itertuples(index=False, name=None)]


def _meet(old: "pd.DataFrame", new: "pd.DataFrame") -> "tuple[np.ndarray, np.ndarray]":
    """Positions (in ``new``, in ``old``) of the rows that both have."""
    import pandas as pd

    sides = [
        pd.DataFrame({"row_id": table["row_id"].to_numpy(), "turn": table.groupby("row_id").cumcount().to_numpy()})
        for table in (old, new)
    ]
    pairs = sides[1].reset_index().merge(sides[0].reset_index(), on=["row_id", "turn"], suffixes=("", "_old"))
    return pairs["index"].to_numpy(), pairs["index_old"].to_numpy()


def _differ(a: "pd.Series", b: "pd.Series") -> "np.ndarray":
    """Where two columns differ, by position; missing equals missing."""
    left, right = a.reset_index(drop=True).astype("str"), b.reset_index(drop=True).astype("str")
    same = (left == right).fillna(False).to_numpy(dtype=bool) | (left.isna() & right.isna()).to_numpy()
    differ: np.ndarray = ~same
    return differ


def _mask(values: Iterable[bool]) -> "np.ndarray":
    """An empty one, too, chooses rows; an empty list would choose columns."""
    import numpy as np

    return np.fromiter(values, dtype=bool)


def _any(masks: "dict[str, np.ndarray]") -> "np.ndarray":
    import numpy as np

    found: np.ndarray = np.any(list(masks.values()), axis=0)
    return found


def _without(table: "pd.DataFrame", positions: "np.ndarray") -> "pd.DataFrame":
    import numpy as np

    keep = np.ones(len(table), dtype=bool)
    keep[positions] = False
    return table[keep]


def _told(what: str, rows: "pd.DataFrame", detail: list[str]) -> "pd.DataFrame":
    return rows[["row_id", "id", "path"]].assign(what=what, detail=detail)[["what", "row_id", "id", "path", "detail"]]


def _standing(rows: "pd.DataFrame") -> list[str]:
    """The side of accepted rows, the reasons of the others."""
    return [
        str(side) if accepted else "; ".join(reasons)
        for accepted, side, reasons in zip(rows["accepted"], rows["split"], rows["reasons"], strict=True)
    ]


def _kinds(reasons: list[str]) -> set[str]:
    return {kind_of(one) for one in reasons}


def _release(flags: list[str]) -> str | None:
    return next((flag.removeprefix(RELEASED) for flag in flags if flag.startswith(RELEASED)), None)
