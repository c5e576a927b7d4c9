"""Removal requests: pictures that never again enter, whatever source or data set offers them.

``store/data/removals.json`` holds them for the whole store: a picture by its bytes wherever it turns up, a row by its
place in one data set. In a data set whose history knows the picture, files with the same pixels are refused, too, and
what is a near copy of it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from darkroom.reasons import reason
from darkroom.store import Store, write_json

if TYPE_CHECKING:
    import pandas as pd

FILE = "removals.json"
REMOVED, NEAR = "removed on request", "near copy of a removed picture"


@dataclass(frozen=True)
class Removal:
    """One request: the picture ``id``, or the row ``row_id`` of ``dataset``; ``when`` is a time (UTC)."""

    id: str | None
    row_id: str | None
    dataset: str | None
    who: str
    when: str
    note: str = ""
    erased: bool = False


def read(store: Store) -> list[Removal]:
    """All requests, the oldest first."""
    path = store.root / "data" / FILE
    return [Removal(**one) for one in json.loads(path.read_text("utf-8"))] if path.is_file() else []


def erased_ids(store: Store) -> frozenset[str]:
    """The pictures whose bytes may not come back into the store."""
    return frozenset(one.id for one in read(store) if one.erased and one.id)


def add(new: Sequence[Removal], store: Store) -> list[Removal]:
    """Enter requests; one that is known already stays as it is, but is erased when the new one is. Returns all."""
    with store.lock("data-removals"):
        known = {(one.id, one.row_id, one.dataset): one for one in read(store)}
        for one in new:
            key = (one.id, one.row_id, one.dataset)
            before = known.get(key, one)
            known[key] = replace(before, erased=before.erased or one.erased)
        _write(list(known.values()), store)
    return list(known.values())


def undo(ids: Iterable[str], store: Store) -> list[Removal]:
    """Withdraw requests by picture id or row_id; returns those that there were."""
    wanted = set(ids)
    with store.lock("data-removals"):
        known = read(store)
        taken = [one for one in known if one.id in wanted or one.row_id in wanted]
        if taken:
            _write([one for one in known if one not in taken], store)
    return taken


def concerning(
    removals: Sequence[Removal], dataset: str, table: "pd.DataFrame", history: "pd.DataFrame | None"
) -> list[Removal]:
    """The requests that can change the outcome of checking this manifest upon this history."""
    parts = [table["id"].dropna(), *([history["id"]] if history is not None else [])]
    wanted = [one.id for one in removals if one.id]
    ids = {one for part in parts for one in part[part.isin(wanted)]}
    rows = set(table["row_id"][table["row_id"].isin([one.row_id for one in removals if one.row_id])])
    return [one for one in removals if one.id in ids or (one.dataset == dataset and one.row_id in rows)]


def digest_fields(concerned: Sequence[Removal]) -> list[Any]:
    """What of such requests enters the digest."""
    return sorted([one.id or "", one.row_id or ""] for one in concerned)


def refuse(table: "pd.DataFrame", concerned: Sequence[Removal]) -> "pd.DataFrame":
    """The table with a reason for every row that was removed by its bytes or place.

    To be asked before measuring, which leaves these rows out: their bytes may be erased.
    """
    rows = table["id"].isin([one.id for one in concerned if one.id])
    rows |= table["row_id"].isin([one.row_id for one in concerned if one.row_id])
    return _with_reason(table, rows, reason("check", REMOVED))


def refuse_copies(
    table: "pd.DataFrame",
    names: Sequence[str | None],
    joined: Mapping[str, Sequence[str]],
    concerned: Sequence[Removal],
    history: "pd.DataFrame | None",
) -> "pd.DataFrame":
    """The table with a reason for every copy of a removed picture that the history knows.

    ``names`` and ``joined`` are the rows' clusters and the history's clusters that these join: a row is a near copy
    when its cluster has a removed picture.
    """
    import pandas as pd

    if history is None or not concerned:
        return table
    removed = history[history["id"].isin([one.id for one in concerned if one.id])]
    done = table["reasons"].map(lambda reasons: reason("check", REMOVED) in reasons)
    same = table["pixels"].isin(removed["pixels"].dropna()) & ~done
    clusters = set(removed["cluster"])
    clusters |= {name for name, olds in joined.items() if clusters.intersection(olds)}
    near = pd.Series(list(names), index=table.index, dtype=object).isin(clusters) & ~same & ~done
    table = _with_reason(table, same, reason("check", REMOVED, "the same pixels in another file"))
    return _with_reason(table, near, reason("check", NEAR))


def _with_reason(table: "pd.DataFrame", rows: "pd.Series", text: str) -> "pd.DataFrame":
    import pandas as pd

    reasons = list(table["reasons"])
    for position in rows.to_numpy().nonzero()[0]:
        reasons[position] = [*reasons[position], text]
    return table.assign(reasons=pd.Series(reasons, index=table.index, dtype=object))


def _write(known: list[Removal], store: Store) -> None:
    path = store.root / "data" / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(one) for one in known])
