"""Releases: a person says that a row in quarantine may be used for all that, and the row is, until its file changes.

``store/data/<dataset>/releases.json`` names for each row the bytes and the kinds of reason that were released. A file
that changed, or a reason of another kind (because a rule changed), needs a new release. What no person can judge away
cannot be released: a file that is not a picture, a second copy, a copy that would leak from one side to the other.
"""

import getpass
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from darkroom.errors import RecipeError
from darkroom.reasons import kind_of, reason
from darkroom.store import Store, write_json
from darkroom.versions.compare import records
from darkroom.versions.log import folder

from .removals import REMOVED
from .split import WITHDRAWN

if TYPE_CHECKING:
    import pandas as pd

FILE = "releases.json"
# Why a kind cannot be released, and what helps instead. A row without bytes or a working copy cannot be either way.
FIRM = {
    "undecodable": "the file has to be mended",
    "unreadable": "the file has to be readable",
    "too large": "raise collect.max_bytes",
    "too many pixels": "raise check.max_pixels",
    "duplicate": "the same picture is used already",
    "no caption": "give it a caption, or set check.captions = 'optional'",
    WITHDRAWN: "its copies are on the validation side",
    REMOVED: "it was removed on request",
}


@dataclass(frozen=True)
class Release:
    """One row's release: ``id`` are the bytes it holds for, ``kinds`` the kinds of reason, ``when`` a date (UTC)."""

    row_id: str
    id: str
    kinds: tuple[str, ...]
    who: str
    when: str
    note: str = ""

    @property
    def flag(self) -> str:
        """What the row bears from then on."""
        return reason("check", "released", f"by {self.who} on {self.when}: {', '.join(self.kinds)}")


def read(dataset: str, store: Store) -> dict[str, Release]:
    """All releases of a data set by row_id."""
    path = folder(dataset, store) / FILE
    if not path.is_file():
        return {}
    content = json.loads(path.read_text("utf-8"))
    return {
        row_id: Release(row_id, **{**values, "kinds": tuple(values["kinds"])}) for row_id, values in content.items()
    }


def release(dataset: str, rows: "pd.DataFrame", store: Store, note: str = "", who: str | None = None) -> list[Release]:
    """Release rows of a quarantine (columns ``row_id``, ``id``, ``path``, ``working``, ``reasons``) from their reasons.

    All or nothing: raises :class:`RecipeError` that names every row that cannot be released, and why.
    """
    wrong = []
    made = []
    when = datetime.now(UTC).date().isoformat()
    for row in records(rows):
        kinds = tuple(sorted({kind_of(one) for one in row["reasons"]}))
        why = _firm(row, kinds)
        if why:
            wrong.append(f"{row['row_id'][:12]} ({row['path']!r}): {why}")
        else:
            made.append(Release(row["row_id"], row["id"], kinds, who or user(), when, note))
    if wrong:
        raise RecipeError(f"nothing was released, because of {len(wrong)} rows: {'; '.join(wrong)}")
    with store.lock(f"data-{dataset}"):
        known = read(dataset, store)
        for number, one in enumerate(made):
            before = known.get(one.row_id)
            if before and before.id == one.id:  # what was released of the same bytes stays so
                made[number] = one = replace(one, kinds=tuple(sorted({*before.kinds, *one.kinds})))
            known[one.row_id] = one
        _write(dataset, known, store)
    return made


def unrelease(dataset: str, row_ids: list[str], store: Store) -> list[Release]:
    """Take releases back; returns those that there were."""
    with store.lock(f"data-{dataset}"):
        known = read(dataset, store)
        taken = [known.pop(row_id) for row_id in row_ids if row_id in known]
        if taken:
            _write(dataset, known, store)
    return taken


def digest_fields(releases: Mapping[str, Release], table: "pd.DataFrame") -> dict[str, Any]:
    """What of the releases can change the outcome of checking this manifest: those of its rows with these bytes."""
    rows = table.loc[table["row_id"].isin(list(releases)), ["row_id", "id"]]
    return {
        row_id: [list(releases[row_id].kinds), releases[row_id].who, releases[row_id].when]
        for row_id, picture in zip(rows["row_id"], rows["id"], strict=True)
        if releases[row_id].id == picture
    }


def apply(table: "pd.DataFrame", releases: Mapping[str, Release]) -> "pd.DataFrame":
    """The table with released reasons taken from ``reasons`` and a flag in ``flags``; may be done again later on.

    A row bears the flag only where a reason was in fact released.
    """
    import pandas as pd

    reasons, flags = list(table["reasons"]), list(table["flags"])
    touched = table["row_id"].isin(list(releases)).to_numpy().nonzero()[0]
    for position in touched:
        one = releases[table["row_id"].iloc[position]]
        if one.id != table["id"].iloc[position]:
            continue
        kept = [text for text in reasons[position] if kind_of(text) not in one.kinds or kind_of(text) in FIRM]
        if len(kept) < len(reasons[position]):
            reasons[position] = kept
            if one.flag not in flags[position]:
                flags[position] = [*flags[position], one.flag]
    return table.assign(
        reasons=pd.Series(reasons, index=table.index, dtype=object),
        flags=pd.Series(flags, index=table.index, dtype=object),
    )


def _firm(row: Mapping[str, Any], kinds: tuple[str, ...]) -> str | None:
    """Why a row cannot be released."""
    for kind in kinds:
        if kind in FIRM:
            return f"{kind} cannot be released, {FIRM[kind]}"
    if not isinstance(row["id"], str) or not isinstance(row.get("working"), str):
        return f"there is no picture to use ({', '.join(kinds)})"
    return None


def user() -> str:
    """Who works here, as the system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return "unknown"


def _write(dataset: str, known: Mapping[str, Release], store: Store) -> None:
    path = folder(dataset, store) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        row_id: {key: value for key, value in asdict(one).items() if key != "row_id"}
        for row_id, one in sorted(known.items())
    }
    write_json(path, content)
