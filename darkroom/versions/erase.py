"""Erasing pictures that were removed: all that a home folder has of them is gone, or is there without them.

Gone are their bytes, working copies and thumbnails, the shards that have them as numbers with the caches below, the
reference and the evaluations that show them, and pages of runs. Reports on the data stay, for they say what was
accepted when: without what the source said of the picture, and with a notice where the page of review and Data Docs
were, also in the next report, which shows what went. Manifests lose the same words. What stays is a row of facts,
hashes and 8x8 colours among them, by which the picture and its copies are recognised and kept out.
"""

import os
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.artifacts import Artifact, Manifest, QualityReport
from darkroom.collect.manifest import UNSAID, picture_path
from darkroom.preprocess.shards import CACHE as SHARD_CACHE
from darkroom.pruning import rows
from darkroom.pruning.keep import CHECKED, EVALUATION, MANIFEST, REFERENCE, SHARDS, VERDICT, Found, Name, artifacts
from darkroom.pruning.sweep import REPORT
from darkroom.pruning.trash import Freed, Item, freed, take
from darkroom.quality.picture import Rules, thumbnail_path, working_path
from darkroom.store import Store

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("checked.parquet", "quarantine.parquet", "manifest.parquet")
NOTICE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Erased on request</title></head>
<body><p>This page showed pictures that were erased on request. <code>darkroom check</code> writes a new one of the data
as they are now.</p></body></html>
"""
OURS = ("store", "artifacts", "prefect", "logs", "reports")  # what of a home folder is no export
SHOWN_OF_ROW = 16  # digits of a row's id that an exported file has in its name


@dataclass(frozen=True)
class Erased:
    """What went, by kind, and how many reports on the data and manifests were changed."""

    freed: tuple[Freed, ...]
    changed: int


def erase(ids: Collection[str], home: Path, store: Store) -> Erased:
    """Erase these pictures; safe to repeat, also after a kill. Raises :class:`InUse` while a run uses the store."""
    if not ids:
        return Erased((), 0)
    with store.alone():
        there = artifacts(store)
        tables = {name: _rows(one, ids) for name, one in there.items() if name[0] in (CHECKED, MANIFEST)}
        tables = {name: found for name, found in tables.items() if len(found)}
        items = [*_files(store, tables, ids), *_made_of(there, ids, home)]
        showing = {name for name, one in there.items() if name[0] == CHECKED and (CHECKED, one.named("base")) in tables}
        changed = sum(_amended(name, ids, store) for name in sorted({*tables, *showing}))
        row_ids = {row for found in tables.values() for row in found["row_id"]}
        tokens = {*ids, *(row[:SHOWN_OF_ROW] for row in row_ids)}
        exports = [*_exports(home, tokens)]
        items += [Item("exports", path) for path in exports if path.suffix not in (".jsonl", ".tar")]
        told = freed(items)
        take(items, store.root)
        for path in exports:
            if path.suffix in (".jsonl", ".tar"):
                _without(path, tokens)
        left = [Item(SHARD_CACHE, path) for path in _unshared(store)]
        told += freed(left)
        take(left, store.root)
        cached = rows.drop(store, (), dry=False)
    return Erased(tuple(one for one in (*told, cached) if one.count), changed)


def _rows(one: Found, ids: Collection[str]) -> "pd.DataFrame":
    """The rows of an artifact's tables that are of these pictures: ``row_id``, ``id`` and ``working``."""
    import pandas as pd
    import pyarrow.parquet as pq

    parts = [pd.DataFrame({"row_id": [], "id": [], "working": []}, dtype="str")]
    for path in (one.path / name for name in TABLES):
        if path.is_file():
            names = [name for name in ("row_id", "id", "working") if name in pq.read_schema(path).names]
            table = pd.read_parquet(path, columns=names)
            parts.append(table[table["id"].isin(list(ids))])
    return pd.concat(parts, ignore_index=True)


def _files(store: Store, tables: "dict[Name, pd.DataFrame]", ids: Collection[str]) -> Iterator[Item]:
    """Bytes, working copies and thumbnails: by the keys that reports name, and by those of every size in use here."""
    keys = {key for found in tables.values() for key in found["working"].dropna()}
    keys |= {Rules(0, 0, side, 0).key(picture) for side in rows.sides(store) for picture in ids}
    pictures, copies = [picture_path(store, one) for one in ids], [working_path(store.root, key) for key in keys]
    for kind, paths in (
        ("pictures", pictures),
        ("working", copies),
        ("thumbnails", [thumbnail_path(store.root, path) for path in (*pictures, *copies)]),
    ):
        yield from (Item(kind, path) for path in sorted(paths) if path.is_file())


def _made_of(there: dict[Name, Found], ids: Collection[str], home: Path) -> Iterator[Item]:
    """Shards with these pictures, and what shows pictures of such shards."""
    import pandas as pd

    shards = {
        name[1]
        for name, one in there.items()
        if name[0] == SHARDS
        and (path := one.path / "rows.parquet").is_file()
        and pd.read_parquet(path, columns=["id"])["id"].isin(list(ids)).any()
    }
    gone = {(SHARDS, digest) for digest in shards}
    for name, one in there.items():
        inputs = one.marker.get("inputs", {})
        if name[0] in (REFERENCE, EVALUATION) and shards.intersection(map(str, inputs.values())):
            gone.add(name)
    yield from (Item(name[0], there[name].path) for name in sorted(gone))
    shown = {
        name[1][:12]
        for name, one in there.items()
        if name[0] == VERDICT and (EVALUATION, one.named("challenger") or "") in gone
    }
    for path in sorted((home / "reports").glob("*.html")):
        match = REPORT.fullmatch(path.name)
        if match and match[1] in shown:
            yield Item("reports", path)


def _amended(name: Name, ids: Collection[str], store: Store) -> bool:
    """Take the words out of a manifest or report, and the pictures out of its pages; False where that was done."""
    family: type[Artifact] = Manifest if name[0] == MANIFEST else QualityReport
    changed = [False]

    def change(work: Path) -> None:
        for table in TABLES:
            if (work / table).is_file():
                changed[0] |= _wordless(work / table, ids)
        pages = [work / "review" / "index.html", *sorted((work / "data_docs").rglob("*.html"))]
        for page in pages:
            if page.is_file() and page.read_text("utf-8", errors="replace") != NOTICE:
                _replace(page, NOTICE.encode())
                changed[0] = True
        if (result := work / "result.json").is_file():  # what Great Expectations found, with examples
            _replace(result, b"{}")

    store.amend(family, name[1], change)
    return changed[0]


def _wordless(path: Path, ids: Collection[str]) -> bool:
    """Rewrite a table without what was said of these pictures; False where it says nothing."""
    import pandas as pd

    table = pd.read_parquet(path)
    mine = table["id"].isin(list(ids))
    columns = [column for column in UNSAID if column in table and table.loc[mine, column].notna().any()]
    if not columns:
        return False
    table.loc[mine, columns] = None
    temporary = path.with_name(f".{path.name}.tmp")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)
    return True


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _unshared(store: Store) -> Iterator[Path]:
    """Cached tensors that no shards of the store share: nobody knows any more which pictures these have."""
    shared = {
        (facts.st_dev, facts.st_ino)
        for path in (store.root / SHARDS).glob("*/shards/*.safetensors")
        for facts in [path.stat()]
    }
    for path in sorted((store.root / SHARD_CACHE).glob("*")):
        facts = path.stat()
        if (facts.st_dev, facts.st_ino) not in shared:
            yield path


# Exports inside the home folder


def _exports(home: Path, tokens: Collection[str]) -> Iterator[Path]:
    """Files outside darkroom's own folders that hold one of the pictures, by the names that exports give."""
    tops = [path for path in sorted(home.glob("*")) if path.is_dir() and path.name not in OURS]
    for folder in tops:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and _holds(path, tokens):
                yield path


def _holds(path: Path, tokens: Collection[str]) -> bool:
    if path.suffix == ".jsonl":
        return _names_any(path.read_text("utf-8", errors="replace"), tokens)
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            return any(_names_any(member.name, tokens) for member in archive)
    return _names_any(path.name, tokens)


def _names_any(text: str, tokens: Iterable[str]) -> bool:
    return any(token in text for token in tokens)


def _without(path: Path, tokens: Collection[str]) -> None:
    """Rewrite a metadata file or an archive without the pictures."""
    if path.suffix == ".jsonl":
        lines = path.read_text("utf-8").splitlines(keepends=True)
        _replace(path, "".join(line for line in lines if not _names_any(line, tokens)).encode())
        return
    temporary = path.with_name(f".{path.name}.tmp")
    with tarfile.open(path) as archive, tarfile.open(temporary, "w") as kept:
        for member in archive:
            if not _names_any(member.name, tokens):
                kept.addfile(member, archive.extractfile(member))
    os.replace(temporary, path)
