"""The rows of ``cache.db`` that speak of pictures which are gone: what was learnt of them, and where they were seen.

What a row says follows from its key, so that losing one costs time and never a result.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

from darkroom.collect._http_keep import KIND as HTTP
from darkroom.preprocess.shards import CACHE as SHARD_CACHE
from darkroom.preprocess.texts import CACHE as TEXT_CACHE
from darkroom.quality.measuring import KIND as MEASURES
from darkroom.quality.picture import Rules
from darkroom.quality.safety import TABLE as SAFETY
from darkroom.recipe import Check
from darkroom.store import Store

from .keep import CHECKED, artifacts
from .trash import BLOCK, Freed

SEEN = "seen"
KIND = "cache rows"


def drop(store: Store, gone: Collection[Path], dry: bool) -> Freed:
    """Drop the rows on pictures that the store has no longer, or will not have when ``gone`` is gone; shrink the file.

    A dry run counts the bytes of the rows' texts, the real one those of the disk.
    """
    path = store.root / "cache.db"
    if not path.is_file():
        return Freed(KIND, 0, 0)
    stays = _judges(store, gone)
    before = _disk(path)
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
        dead, size = [], 0
        for kind, key, value in connection.execute("SELECT kind, key, value FROM entries"):
            if kind in stays and not stays[kind](key, value):
                dead.append((kind, key))
                size += len(key) + len(value)
        if dry or not dead:
            return Freed(KIND, len(dead), size)
        with connection:
            connection.executemany("DELETE FROM entries WHERE kind=? AND key=?", dead)
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Freed(KIND, len(dead), max(0, before - _disk(path)))


def _judges(store: Store, gone: Collection[Path]) -> dict[str, Callable[[str, str], bool]]:
    """Whether a row stays, by its table: (key, value as JSON) -> bool. Tables that are not here keep every row."""
    taken = set(gone)
    ids = _names(store.root / "pictures", taken)
    working = _names(store.root / "working", taken)
    measured = {Rules(0, 0, side, 0).key(picture) for side in sides(store) for picture in ids} | working
    files = {
        kind: {path.stem for path in (store.root / kind).glob("*.safetensors") if path not in taken}
        for kind in (SHARD_CACHE, TEXT_CACHE)
    }

    def in_file(kind: str) -> Callable[[str, str], bool]:
        return lambda key, value: json.loads(value)[0] in files[kind]

    return {
        MEASURES: lambda key, value: key in measured,
        SEEN: lambda key, value: json.loads(value)[1] in ids,
        HTTP: lambda key, value: (known := json.loads(value).get("id")) is None or known in ids,
        SAFETY: lambda key, value: key.partition(":")[0] in working,
        SHARD_CACHE: in_file(SHARD_CACHE),
        TEXT_CACHE: in_file(TEXT_CACHE),
    }


def _names(folder: Path, taken: Collection[Path]) -> set[str]:
    return {path.name for path in folder.glob("*/*") if path not in taken}


def sides(store: Store) -> set[int]:
    """Every size that working copies may have here: the default one, and those that reports name."""
    default = int(Check.model_fields["working_side"].default)
    fields = (one.marker.get("fields", {}) for one in artifacts(store, (CHECKED,)).values())
    return {default, *(int(one["working_side"]) for one in fields if one.get("working_side"))}


def _disk(path: Path) -> int:
    return sum(one.stat().st_blocks for one in path.parent.glob(f"{path.name}*")) * BLOCK
