"""Tables of pictures, line by line: CSV, TSV, JSON Lines, Parquet, or a plain list; and which column holds what.

What stands in such a file is hostile: a line that is wrong becomes a text that says so, and the next ones are read.
"""

import csv
import io
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from darkroom.errors import RecipeError
from darkroom.recipe import Columns

Open = Callable[[], BinaryIO]
Line = tuple[int, dict[str, Any] | str]  # its number, and its values or what is wrong with it

USUAL = {
    "file": ("file_name", "file", "path", "image"),
    "url": ("url", "image_url"),
    "caption": ("text", "caption", "prompt"),
    "label": ("label", "class", "category"),
    "licence": ("license", "licence"),
    "origin": ("source", "origin"),
    "key": ("id", "key"),
}
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt")
RECORD_LINES = 1_000  # a quoted CSV value that goes on for longer was never closed


class Record(NamedTuple):
    """What a line says, by meaning."""

    file: Any
    url: Any
    caption: Any
    label: Any
    licence: Any
    origin: Any
    key: Any


class Picker:
    """Takes values out of lines by the recipe's names of columns, or the first usual name that has one."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._known: dict[tuple[str, ...], list[list[str]]] = {}

    def __call__(self, line: dict[str, Any]) -> Record:
        keys = tuple(line)
        names = self._known.get(keys)
        if names is None:
            names = [self.names(keys, what) for what in Record._fields]
            if len(self._known) < 1000:  # lines that all have other keys must not fill the memory
                self._known[keys] = names
        return Record(*(next((line[name] for name in some if line[name] is not None), None) for some in names))

    def names(self, keys: Iterable[str], what: str) -> list[str]:
        """Those of ``keys`` that can hold ``what``, the first choice first; large letters matter only in the recipe."""
        chosen = getattr(self._columns, what)
        keys = list(keys)
        if chosen is not None:
            return [chosen] if chosen in keys else []
        exact = [name for name in USUAL[what] if name in keys]
        return exact + [key for name in USUAL[what] for key in keys if key.lower() == name and key != name]

    def need(self, have: list[str], where: str) -> None:
        """Raise :class:`RecipeError` when a column that the recipe names is not there."""
        for what in Record._fields:
            chosen = getattr(self._columns, what)
            if chosen is not None and chosen not in have:
                raise RecipeError(
                    f"collect.columns.{what} = {chosen!r}: {where} has no such column; "
                    f"it has {', '.join(have) or 'none'}"
                )

    def chosen(self) -> set[str]:
        """The columns that the recipe names."""
        return {value for what in Record._fields if (value := getattr(self._columns, what)) is not None}


def read_lines(open_file: Open, kind: str, where: str, strict: bool = True) -> Iterator[Line]:
    """Every line of a table of this kind (one of :data:`KINDS`) with its values.

    ``where`` names it in messages. Text must be UTF-8: otherwise :class:`RecipeError`, or with ``strict`` off
    replacement characters.
    """
    with open_file() as file:
        if kind == ".parquet":
            yield from _parquet(file, where)
            return
        with _text(file, where, strict, newline="" if kind in (".csv", ".tsv") else "\n") as text:
            try:
                if kind in (".csv", ".tsv"):
                    yield from _csv(text, kind, where)
                elif kind == ".txt":
                    yield from ((number, {"url": line.strip()}) for number, line in enumerate(text, 1) if line.strip())
                else:
                    yield from _jsonl(text)
            except UnicodeDecodeError as error:
                raise RecipeError(f"{where} is not UTF-8 ({error.reason}): save it as UTF-8") from None


def columns_of(open_file: Open, kind: str, where: str, wanted: set[str], strict: bool = True) -> list[str]:
    """The names of a table's columns; of JSON Lines, all up to where ``wanted`` were met (at least 100 lines)."""
    if kind == ".parquet":
        with open_file() as file:
            return list(_parquet_file(file, where).schema_arrow.names)
    if kind in (".csv", ".tsv"):
        with open_file() as file, _text(file, where, strict, newline="") as text:
            return _header(text, kind, where)[0]
    if kind == ".txt":
        return ["url"]
    found: dict[str, None] = {}
    for count, (_, values) in enumerate(read_lines(open_file, kind, where, strict)):
        if count >= 100 and wanted <= found.keys():
            break
        if isinstance(values, dict):
            found.update(dict.fromkeys(values))
    return list(found)


def _text(file: BinaryIO, where: str, strict: bool, newline: str) -> io.TextIOWrapper:
    start = file.read(4)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecipeError(f"{where} is UTF-16: save it as UTF-8")
    file.seek(0)
    return io.TextIOWrapper(file, "utf-8-sig", "strict" if strict else "replace", newline)


def _jsonl(text: Iterable[str]) -> Iterator[Line]:
    for number, content in enumerate(text, start=1):
        if not content.strip():
            continue
        try:
            line = json.loads(content)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict):
            yield number, {key: _value(value) for key, value in line.items()}
        else:
            yield number, "not a JSON object"


def _header(text: Iterable[str], kind: str, where: str) -> tuple[list[str], str, int]:
    """(names of the columns, delimiter, lines that the header takes) of a CSV."""
    lines = iter(text)
    try:
        first = next(lines, "")
        delimiter = "\t" if kind == ".tsv" else max(",;\t", key=first.count)
        feed = _Feed(itertools.chain([first], lines))
        header = next(csv.reader(feed, delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise RecipeError(f"{where}: its first line, which names the columns, cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where} is not UTF-8 ({error.reason}): save it as UTF-8") from None
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise RecipeError(f"{where}: its first line names the column {twice[0]!r} twice")
    if not any(names):
        raise RecipeError(f"{where}: its first line must name the columns, and is empty")
    return names, delimiter, len(feed.taken)


def _csv(text: io.TextIOWrapper, kind: str, where: str) -> Iterator[Line]:
    """Lines whose values are as many as the columns; every other one, blank ones left out, says what is wrong.

    A quote that is never closed would swallow all that follows: its line is given up and the next ones are read afresh.
    """
    source = iter(text)
    # The header is read from the same iterator, so that what follows it is what comes next.
    names, delimiter, number = _header(source, kind, where)
    feed = _Feed(source)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number + 1, f"not a line of a CSV: {error}"
            number += 1
            feed.give_back(1)
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
            continue
        start, number = number + 1, number + len(feed.taken)
        if not values:
            continue
        if len(values) != len(names):
            yield start, f"{len(values)} values where the first line names {len(names)} columns"
        else:
            yield start, {name: value or None for name, value in zip(names, values, strict=True) if name}


class _Feed:
    """Lines for ``csv.reader``, which remembers those it took for the present record."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source, self._waiting, self.taken = source, deque[str](), list[str]()

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        if len(self.taken) >= RECORD_LINES:
            raise StopIteration
        line = self._waiting.popleft() if self._waiting else next(self._source)
        self.taken.append(line)
        return line

    def give_back(self, start: int) -> None:
        """Read the lines of the present record from ``start`` on once more."""
        self._waiting.extendleft(reversed(self.taken[start:]))


def _parquet_file(file: BinaryIO, where: str) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise RecipeError(f"{where} is not a Parquet file: {error}") from None


def _parquet(file: BinaryIO, where: str) -> Iterator[Line]:
    table, number = _parquet_file(file, where), 0
    try:
        for batch in table.iter_batches(batch_size=256):  # pictures may lie in it: not too many in memory at a time
            for values in batch.to_pylist():
                number += 1
                yield number, {key: _value(value) for key, value in values.items()}
    except (ValueError, OSError) as error:
        raise RecipeError(f"{where} is damaged after row {number}: {error}") from None


def _value(value: Any) -> Any:
    """Not a number stands for nothing."""
    return None if isinstance(value, float) and math.isnan(value) else value
