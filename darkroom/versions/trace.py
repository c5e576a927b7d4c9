"""Where a picture appears: in which versions, on which side, in which shards, and which models were trained on it."""

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import Artifact, Checkpoint, Evaluation, QualityReport, Shards
from darkroom.collect.manifest import picture_path
from darkroom.errors import RecipeError
from darkroom.store import MARKER, Store

from .compare import records, rows_of
from .log import Version, latest_report, versions

if TYPE_CHECKING:
    import pandas as pd

PREFIX = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Appearance:
    """One row of one version; ``side`` is None where the row is in quarantine, for ``reasons``.

    ``version`` is None in the last report when that is no version (yet).
    """

    version: Version | None
    row_id: str
    id: str | None
    path: str
    caption: str | None
    licence: str | None
    cluster: str | None
    side: str | None
    reasons: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """An artifact that was made of versions with the picture: its kind, digest, name and the sides it has it on."""

    kind: str
    digest: str
    name: str
    sides: tuple[str, ...]


def trace(texts: Iterable[str], dataset: str, store: Store) -> list[Appearance]:
    """Every row, of any version, that one of the texts names, the oldest version first.

    A text is a path inside the source, or the beginning (8 digits or more) of a row_id or a picture's id.
    """
    wanted = list(texts)
    found: list[Appearance] = []
    for version, report in _reports(dataset, store):
        rows = rows_of(report)
        rows = rows[named(rows, wanted)]
        found += [_appearance(version, row) for row in records(rows)]
    return found


def named(rows: "pd.DataFrame", texts: Iterable[str]) -> "pd.Series":
    """Which rows the texts name, as :func:`trace` reads them."""
    import pandas as pd

    mask = pd.Series(False, index=rows.index)
    for text in texts:
        mask |= rows["path"] == text
        if PREFIX.fullmatch(text):
            mask |= rows["row_id"].str.startswith(text) | rows["id"].str.startswith(text).fillna(False).astype(bool)
    return mask


def pick(texts: Iterable[str], rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a quarantine whose row_id begins with these texts, each with 8 digits or more and meaning one row.

    Raises :class:`RecipeError` for a text that means none or several.
    """
    positions = []
    for text in texts:
        if not PREFIX.fullmatch(text):
            raise RecipeError(
                f"{text!r} is no row: give the first 8 or more of its 64 hex digits, as shown in the lists"
            )
        found = rows["row_id"].str.startswith(text).to_numpy().nonzero()[0]
        if rows["row_id"].iloc[found].nunique() != 1:
            what = "several rows" if len(found) else "no row in quarantine"
            raise RecipeError(f"{text!r} means {what}; `darkroom data quarantine` lists them")
        positions.extend(found.tolist())
    return rows.iloc[sorted(set(positions))]


def uses(appearances: Iterable[Appearance], store: Store) -> list[Use]:
    """The shards, checkpoints and evaluations in the store that were made of accepted appearances."""
    sides: dict[str, set[str]] = {}
    for one in appearances:
        if one.side is not None and one.version is not None:
            sides.setdefault(one.version.checked, set()).add(one.side)
    found = []
    for kind, parent in ((Shards, "checked"), (Checkpoint, "shards"), (Evaluation, "shards")):
        for path in sorted((store.root / kind.kind).glob(f"*/{MARKER}")):
            inputs = _inputs(path)
            origin = str(inputs.get(parent))
            if origin in sides:
                sides.setdefault(path.parent.name, set()).update(sides[origin])
                found.append(_use(kind, path.parent, tuple(sorted(sides[origin]))))
    return found


def trained_on(found: Iterable[Use]) -> list[Use]:
    """The checkpoints among them whose training side had the picture."""
    return [one for one in found if one.kind == Checkpoint.kind and "train" in one.sides]


def files_of(appearances: Iterable[Appearance], dataset: str, store: Store) -> list[Path]:
    """The picture's bytes, working copies and thumbnails that the store still has."""
    from darkroom.quality.picture import thumbnail_path, working_path

    found = list(appearances)
    ids = {one.id for one in found if one.id}
    paths = {picture_path(store, picture) for picture in ids}
    for _, report in _reports(dataset, store):
        rows = rows_of(report, ("id", "working"))
        if "working" in rows:
            keys = rows.loc[rows["id"].isin(ids), "working"].dropna()
            paths.update(working_path(store.root, key) for key in keys)
    paths.update([thumbnail_path(store.root, path) for path in paths])
    return sorted(path for path in paths if path.is_file())


def _reports(dataset: str, store: Store) -> list[tuple[Version | None, QualityReport]]:
    """The reports of all versions that the store still has, and the last report where it is no version."""
    known = versions(dataset, store)
    found: list[tuple[Version | None, QualityReport]] = []
    for version in known:
        report = store.find(QualityReport, version.checked)
        if report is not None:
            found.append((version, report))
    with contextlib.suppress(RecipeError):
        last = latest_report(dataset, store)
        if last.digest not in {version.checked for version in known}:
            found.append((None, last))
    return found


def _appearance(version: Version | None, row: dict[str, Any]) -> Appearance:
    return Appearance(
        version,
        row["row_id"],
        row["id"],
        row["path"],
        row["caption"],
        row["licence"],
        row.get("duplicate_cluster"),
        row["split"] if row["accepted"] else None,
        tuple(row["reasons"]),
        tuple(row["flags"]),
    )


def _use(kind: type[Artifact], path: Path, sides: tuple[str, ...]) -> Use:
    try:
        name = str(json.loads((path / "recipe.json").read_text("utf-8")).get("name", ""))
    except (OSError, ValueError, AttributeError):
        name = ""
    return Use(kind.kind, path.name, name, sides)


def _inputs(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8"))["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
