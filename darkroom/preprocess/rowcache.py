"""Tensors of single pictures and texts by key, kept in files of many rows: loose files are slow to read.

The store's SQLite says which row of which file a key has. Losing either costs time, never a result.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np

from darkroom.cache import Cache
from darkroom.store import digest_of

from . import tensorfile
from .tensorfile import Column

PACK = "rows-"  # how the names of files begin that only bridge the time until a shard has their rows


@dataclass(frozen=True)
class Place:
    """Where a row lies."""

    file: str
    row: int


class RowCache:
    """The rows of one kind: those in ``root/kind/*.safetensors``. A context manager, as the cache below it."""

    def __init__(self, root: Path, kind: str) -> None:
        self.folder, self._kind = root / kind, kind
        self._index = Cache(root / "cache.db")
        self._open: dict[str, dict[str, np.ndarray] | None] = {}

    def find(self, keys: Iterable[str]) -> dict[str, Place]:
        """Where the known ones among ``keys`` lie; a file that is gone or cut short counts as not known."""
        known = self._index.get(self._kind, keys)
        places = {key: Place(str(file), int(row)) for key, (file, row) in known.items()}
        return {key: place for key, place in places.items() if self._has(place)}

    def path(self, name: str) -> Path:
        """The file of this name."""
        return self.folder / f"{name}.safetensors"

    def is_whole(self, name: str) -> bool:
        """Whether the file of this name is there and not cut short."""
        return self._tensors(name) is not None

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """The tensors of a file that :meth:`is_whole`."""
        found = self._tensors(name)
        assert found is not None, "only whole files are asked for"
        return found

    def add(self, keys: Sequence[str], columns: Mapping[str, np.ndarray]) -> dict[str, Place]:
        """Keep new rows, ``columns[name][i]`` for ``keys[i]``, in a file of their own."""
        name = PACK + digest_of(list(keys))
        spec = {column: Column(rows.dtype, rows.shape) for column, rows in columns.items()}
        return self._write(name, keys, spec, lambda column: [columns[column]])

    def gather(self, name: str, keys: Sequence[str], places: Mapping[str, Place]) -> None:
        """Write the rows of ``keys``, in this order, to the file ``name``, which is where they lie from now on."""
        ordered = [places[key] for key in keys]
        first = self.tensors(ordered[0].file)
        spec = {column: Column(rows.dtype, (len(keys), *rows.shape[1:])) for column, rows in first.items()}
        self._write(name, keys, spec, lambda column: self._blocks(ordered, column))

    def read(self, keys: Sequence[str], places: Mapping[str, Place], column: str) -> np.ndarray:
        """The rows of ``keys``, in this order."""
        return np.concatenate(list(self._blocks([places[key] for key in keys], column)))

    def drop(self, names: Iterable[str]) -> None:
        """Delete files whose rows lie elsewhere by now."""
        for name in names:
            self._open.pop(name, None)
            self.path(name).unlink(missing_ok=True)

    def _has(self, place: Place) -> bool:
        tensors = self._tensors(place.file)
        return tensors is not None and all(place.row < len(rows) for rows in tensors.values())

    def _tensors(self, name: str) -> dict[str, np.ndarray] | None:
        if name not in self._open:
            try:
                self._open[name] = tensorfile.read(self.path(name))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                self._open[name] = None
        return self._open[name]

    def _blocks(self, places: Sequence[Place], column: str) -> Iterator[np.ndarray]:
        """The rows of places, neighbours in one piece."""
        runs = groupby(enumerate(places), key=lambda entry: (entry[1].file, entry[1].row - entry[0]))
        for (file, _), entries in runs:
            rows = [place.row for _, place in entries]
            yield self.tensors(file)[column][rows[0] : rows[-1] + 1]

    def _write(
        self, name: str, keys: Sequence[str], spec: Mapping[str, Column], blocks: tensorfile.Blocks
    ) -> dict[str, Place]:
        tensorfile.write(self.path(name), spec, blocks)
        self._open.pop(name, None)
        places = {key: Place(name, row) for row, key in enumerate(keys)}
        self._index.put(self._kind, {key: [place.file, place.row] for key, place in places.items()})
        return places

    def __enter__(self) -> "RowCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._index.__exit__(kind, error, trace)
