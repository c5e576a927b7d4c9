"""A table of pictures: a CSV, TSV, JSON Lines or Parquet file, or a plain list of addresses; here or behind fsspec.

A line names a file, relative to the table's folder and never outside it, or an address on the web, or (in Parquet)
holds the picture's bytes itself. Every line is a row, also one that is wrong.
"""

import importlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Protocol

from darkroom.errors import RecipeError
from darkroom.recipe import Collect
from darkroom.store import Store

from .folder import file_item, look_up
from .lines import KINDS, USUAL, Line, Picker, Record, columns_of, read_lines
from .remote import Remote, local_path
from .source import Item, problem_item
from .tree import Local


class Web(Protocol):
    """What fetches addresses: the module ``darkroom.collect.http``, or a test's own."""

    Address: Callable[..., Any]
    items: Callable[[Iterable[Any], Collect, Store], Generator[Item]]


def items(plan: Collect, store: Store, web: Web | None = None) -> Iterator[Item]:
    """Every line of the table at ``plan.path``, in its order; the addresses among them are fetched by ``web``.

    Raises :class:`RecipeError` when the table cannot be read or lacks the columns that are needed.
    """
    path = str(plan.path)
    tree, name = open_parent(path)
    kind = PurePosixPath(name).suffix.lower()
    if kind not in KINDS:
        raise RecipeError(
            f"collect.path = {path!r}: a table must be one of {', '.join(KINDS)}; "
            "for a folder of pictures use collect.source = 'folder', for tars 'webdataset'"
        )
    problem = tree.find(name).problem
    if problem is not None:
        raise RecipeError(f"collect.path = {path!r} cannot be read: {problem}")
    opener = partial(tree.open, name)
    picker = Picker(plan.columns)
    have = columns_of(opener, kind, name, picker.chosen())
    picker.need(have, name)
    if have and not (picker.names(have, "file") or picker.names(have, "url")):
        raise RecipeError(
            f"{name} has neither a column of files ({', '.join(USUAL['file'])}) nor of addresses "
            f"({', '.join(USUAL['url'])}): name one in collect.columns; it has {', '.join(have)}"
        )
    yield from rows(read_lines(opener, kind, name), name, tree, plan, store, web)


def open_parent(path: str) -> tuple[Local | Remote, str]:
    """(the folder that a file lies in, the file's name)."""
    here = local_path(path)
    if here is None:
        return Remote.beside(path)
    if not here.is_file():
        raise RecipeError(f"collect.path = {path!r}: there is no such file")
    return Local(here.parent), here.name


def rows(
    lines: Iterable[Line], name: str, tree: Local | Remote | None, plan: Collect, store: Store, web: Web | None = None
) -> Iterator[Item]:
    """Items of a table's lines; ``tree`` is what files are looked up in, None where no line may name one.

    Where a line has an address, the rest is read as fast as ``web`` asks for addresses.
    """
    picker = Picker(plan.columns)
    stream = (_entry(f"{name}:{number}", values, tree, plan, picker) for number, values in lines)
    for entry in stream:
        if isinstance(entry, Item):
            yield entry
            continue
        fetcher: Any = web or importlib.import_module("darkroom.collect.http")
        others: deque[Item] = deque()
        fetched = fetcher.items(_addresses(chain([entry], stream), others, fetcher, plan), plan, store)
        with closing(fetched):  # downloads that are under way end with the collection
            for item in fetched:
                while others:
                    yield others.popleft()
                yield item
        yield from others


def _addresses(entries: Iterable[Item | Record], others: deque[Item], web: Web, plan: Collect) -> Iterator[Any]:
    """The addresses among entries; what is none goes to ``others``."""
    for entry in entries:
        if isinstance(entry, Item):
            others.append(entry)
        else:
            origin = None if entry.origin is None else str(entry.origin)
            licence = str(entry.licence or plan.licence)
            yield web.Address(url=entry.url, caption=entry.caption, label=entry.label, licence=licence, origin=origin)


def _entry(
    place: str, values: dict[str, Any] | str, tree: Local | Remote | None, plan: Collect, picker: Picker
) -> Item | Record:
    """A line's item, or its record when the picture is to be fetched from ``record.url``."""
    if isinstance(values, str):
        return problem_item(place, values, plan.licence)
    record = picker(values)
    wants_file = record.url is None or (plan.columns.file is not None and record.file is not None)
    problem = None
    if not wants_file:
        if isinstance(record.url, str) and record.url.lower().startswith(("http://", "https://")):
            return record
        problem = f"{str(record.url)[:200]!r} is not an address of the web (http or https)"
    elif record.file is None:
        problem = "names neither a file nor an address"
    content = record.file.get("bytes") if isinstance(record.file, dict) else record.file
    if problem is None and isinstance(content, bytes):
        return _held(place, record, content, plan)
    if problem is None and (tree is None or not isinstance(record.file, str)):
        problem = f"the file is {str(record.file)[:200]!r}, not a path"
    if problem is None and record.file.lower().startswith(("http://", "https://")):
        problem = f"{record.file[:200]!r} is an address: name its column as collect.columns.url to have it fetched"
    if problem is not None:
        return problem_item(place, problem, plan.licence, record.caption, record.label)
    assert tree is not None
    path, entry = look_up(tree, record.file)
    return file_item(tree, path, entry, record, plan.licence)


def _held(place: str, record: Record, content: bytes, plan: Collect) -> Item:
    """A picture whose bytes lie in the table."""
    name = record.file.get("path") if isinstance(record.file, dict) else None
    return Item(
        path=f"{place.rpartition(':')[0]}/{name}" if isinstance(name, str) and name else place,
        caption=record.caption,
        label=record.label,
        licence=str(record.licence or plan.licence),
        fingerprint=None,
        size=len(content),
        read=partial(bytes, content),
        origin=None if record.origin is None else str(record.origin),
        key=None if record.key is None else str(record.key),
    )
