"""What was learnt about single files and pictures, kept so that it is learnt once: one SQLite table of JSON values.

Losing it costs time, never a result: every value follows from its key.
"""

import itertools
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ENCODE = json.JSONEncoder(sort_keys=True).encode  # json.dumps would make an encoder for every value
CHUNK = 500  # keys a question: SQLite before 3.32 takes 999 variables


class Cache:
    """Values by (table, key); a context manager that commits on leaving, also when the work was interrupted."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS entries"
            " (kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )

    def get(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """The known values among ``keys``, asked for by the hundred."""
        found: dict[str, Any] = {}
        keys = iter(keys)
        while chunk := list(itertools.islice(keys, CHUNK)):
            marks = ",".join("?" * len(chunk))
            question = f"SELECT key, value FROM entries WHERE kind=? AND key IN ({marks})"
            found.update((key, json.loads(value)) for key, value in self._connection.execute(question, (kind, *chunk)))
        return found

    def put(self, kind: str, values: Mapping[str, Any]) -> None:
        """Remember values, in one transaction."""
        if not values:
            return
        rows = [(kind, key, ENCODE(value)) for key, value in values.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)

    def __enter__(self) -> "Cache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
