"""Collection: from a source to a manifest, the table of its pictures, and a copy of their bytes."""

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import Manifest
from darkroom.cache import Cache
from darkroom.errors import RecipeError
from darkroom.reasons import reason
from darkroom.recipe import Collect
from darkroom.secrets import without_secret
from darkroom.stages import stage_digest
from darkroom.store import Store

from . import digits, folder, huggingface, table, webdataset
from .keep import Keeper, TooLarge
from .keep import picture_path as picture_path
from .remote import is_address, last_part
from .source import Item

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int], None]
COLUMNS = (
    "row_id",
    "id",
    "path",
    "source",
    "origin",
    "key",
    "licence",
    "caption",
    "label",
    "sidecar",
    "bytes",
    "reasons",
)
IDENTITY = ("row_id", "id", "caption", "label", "licence", "reasons", "origin", "key", "sidecar")
# What is not kept of a picture that was erased on request, whatever its source says of it.
UNSAID = dict.fromkeys(("caption", "sidecar", "origin", "key"))
SOURCES: dict[str, Callable[[Collect, Store], Iterator[Item]]] = {
    "digits": lambda plan, store: digits.items(),
    "folder": folder.items,
    "table": table.items,
    "webdataset": lambda plan, store: webdataset.items(plan),
    "huggingface": huggingface.items,
}

# Items are taken together, so that the cache is asked once for many; not for longer than the person who watches waits.
BATCH_ITEMS, BATCH_BYTES, BATCH_SECONDS = 1_000, 64_000_000, 1.0
UNKNOWN_SIZE = 250_000  # bytes that a picture of unknown size counts for
READERS = 16  # pictures read from a network at a time


@dataclass(frozen=True)
class Source:
    """A source that was opened.

    ``name`` enters every row's id and is the same after the data has moved to another place; ``place`` is that place,
    and keeps what is remembered of two places with one name apart.
    """

    name: str
    place: str
    items: Iterator[Item]


def collect(plan: Collect, store: Store, progress: Progress = lambda done: None) -> Manifest:
    """Read the source and return the manifest of what it holds now; ``progress`` is told how many rows are done.

    Bytes of files that were not seen before are kept in the store. The digest is of the content: a source that did not
    change gives the manifest that the store has. Raises :class:`RecipeError` for a source that is wrong or empty,
    :class:`ServiceUnavailable` for one that does not answer, and :class:`DiskFull` before the disk is full.
    """
    source = open_source(plan, store)
    rows = read_rows(source.name, source.items, plan.max_bytes, store, progress, source.place)
    if not rows:
        raise RecipeError(f"collect: the source {source.name} has no pictures; put some there, or name another source")
    identity = sorted(
        ([row[key] for key in IDENTITY] for row in rows),
        key=lambda values: str(values[0]),
    )
    digest = stage_digest("manifest", {}, {"rows": identity})

    def build(work: Any) -> None:
        frame(rows).to_parquet(work / "manifest.parquet", index=False)

    return store.get_or_build(Manifest, digest, build, inputs={"source": source.name}, fields=plan.digest_fields())


def open_source(plan: Collect, store: Store) -> Source:
    """The source that a recipe names; nothing is read before the first item is asked for."""
    path = str(plan.path or "")
    place = path if is_address(path) or plan.source == "huggingface" else os.path.abspath(path)  # noqa: PTH100
    parts = (plan.source, place, plan.config or "", plan.split, plan.revision or "")
    return Source(source_name(plan), "\0".join(parts), SOURCES[plan.source](plan, store))


def source_name(plan: Collect) -> str:
    """``digits``, ``folder:photos``, ``table:list.csv``, ``huggingface:owner/name:config``.

    Tars go by the folder that they lie in: there will be more of them.
    """
    path = str(plan.path or "")
    if plan.source == "digits":
        return digits.NAME
    if plan.source == "huggingface":
        name = last_part(path) if os.path.isdir(path) else path  # noqa: PTH112
        return ":".join(["huggingface", name, *([plan.config] if plan.config else [])])
    if plan.source == "webdataset":
        path = path.rpartition("/")[0] if not is_address(path) or "/" in path.partition("://")[2] else path
    return f"{plan.source}:{last_part(path)}"


def frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """Rows -> the manifest's table, by path."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["path", "row_id"], ignore_index=True)
    text = [column for column in COLUMNS if column not in ("bytes", "reasons")]
    return table.astype({**dict.fromkeys(text, "str"), "bytes": "int64"})


def read_rows(
    name: str,
    items: Iterator[Item],
    max_bytes: int,
    store: Store,
    progress: Progress = lambda done: None,
    place: str | None = None,
) -> list[dict[str, Any]]:
    """One row an item; bytes that the store lacks are read and kept, those of a known fingerprint are not read.

    A path that a source gives a second time is another row. ``name`` and ``place`` are those of :class:`Source`.
    """
    rows: list[dict[str, Any]] = []
    times: Counter[str] = Counter()
    mine = hashlib.sha256(_plain(place or name).encode()).hexdigest()[:24]
    keeper = Keeper(store, max_bytes)
    with Cache(store.root / "cache.db") as cache, _closing(items):
        for batch in batches(items):
            paths = [_plain(item.path) for item in batch]
            counts = []
            for path in paths:
                times[path] += 1
                counts.append(times[path])
            keys = [_key(mine, path, count) for path, count in zip(paths, counts, strict=True)]
            learnt: dict[str, list[Any]] = {}
            try:
                for index, had in _have(batch, keys, keeper, cache, learnt):
                    row_key = _key(name, paths[index], counts[index])
                    row = _row(name, row_key, batch[index], paths[index], had)
                    rows.append(row | UNSAID if had.picture_id in keeper.erased else row)
                    progress(len(rows))
            finally:
                cache.put("seen", learnt)  # what an interrupted collection has read need not be read again
    return rows


def _key(name: str, path: str, count: int) -> str:
    """What stands for the ``count``-th occurrence of a path; no path, whatever is in it, can stand for another's."""
    return f"{name}\0{path}" if count == 1 else f"{count}\0\0{name}\0{path}"


def _closing(items: Iterator[Item]) -> contextlib.AbstractContextManager[object]:
    """Ends a source that has work under way, such as downloads, also when the collection is interrupted."""
    return contextlib.closing(items) if isinstance(items, Generator) else contextlib.nullcontext()


def batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Items by the thousand; fewer where they are large, since some sources hold their bytes, or slow to come."""
    batch: list[Item] = []
    weight, start = 0, time.monotonic()
    for item in items:
        batch.append(item)
        weight += UNKNOWN_SIZE if item.size is None else item.size
        if len(batch) >= BATCH_ITEMS or weight >= BATCH_BYTES or time.monotonic() - start > BATCH_SECONDS:
            yield batch
            batch, weight, start = [], 0, time.monotonic()
    if batch:
        yield batch


@dataclass(frozen=True)
class Had:
    """What became of an item's bytes: id and size, or the reason why they were not had."""

    picture_id: str | None
    size: int
    why_not: str | None = None


def _have(
    items: list[Item], keys: list[str], keeper: Keeper, cache: Cache, learnt: dict[str, list[Any]]
) -> Iterator[tuple[int, Had]]:
    """(index, what was had) of every item, in order; what was read goes to ``learnt``."""
    known = cache.get("seen", (key for key, item in zip(keys, items, strict=True) if item.fingerprint))
    new = set()
    for index, (key, item) in enumerate(zip(keys, items, strict=True)):
        seen = _promised(item) or known.get(key)
        if seen:
            known[key] = seen
        if not (seen and seen[0] == item.fingerprint and keeper.has(seen[1], seen[2])):
            new.add(index)
    fits = [index for index in new if (items[index].size or 0) <= keeper.max_bytes]
    if needed := sum(items[index].size or 0 for index in fits):
        keeper.need_room(needed)
    slow = sorted(index for index in fits if items[index].remote)
    with ThreadPoolExecutor(READERS) as pool:  # starts no thread before it has work
        arriving = dict(zip(slow, [pool.submit(items[index].read) for index in slow], strict=True))
        try:
            for index, item in enumerate(items):
                if index not in new:
                    _, picture_id, size = known[keys[index]]
                    yield index, Had(picture_id, size)
                    continue
                future = arriving.pop(index, None)
                had, settled = _keep(item, item.read if future is None else future.result, keeper)
                if settled and item.fingerprint:
                    learnt[keys[index]] = [item.fingerprint, had.picture_id, had.size]
                yield index, had
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _promised(item: Item) -> list[Any] | None:
    """What a source says of bytes that it put into the store itself."""
    if item.size is None or not (item.fingerprint or "").startswith("sha256:"):
        return None
    return [item.fingerprint, str(item.fingerprint).removeprefix("sha256:"), item.size]


def _keep(item: Item, read: Callable[[], bytes], keeper: Keeper) -> tuple[Had, bool]:
    """Keep an item's bytes; (what was had, whether its fingerprint may be remembered)."""
    too_large = reason("collect", "too large", f"more than collect.max_bytes = {keeper.max_bytes:,} bytes")
    if item.size is not None and item.size > keeper.max_bytes:
        return Had(None, item.size, too_large), False
    try:
        if item.open is not None:
            with item.open() as file:
                picture_id, size, settled = keeper.keep_file(file, item.fingerprint)
                return Had(picture_id, size), settled
        content = read()
    except TooLarge:
        return Had(None, item.size or 0, too_large), False
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return Had(None, 0, reason("collect", "unreadable", _plain(str(why)))), False
    if item.size is None and len(content) <= keeper.max_bytes:
        keeper.need_room(len(content))
    try:
        return Had(keeper.keep(content), len(content)), True
    except TooLarge:
        return Had(None, len(content), too_large), False


def _row(name: str, key: str, item: Item, path: str, had: Had) -> dict[str, Any]:
    reasons: list[str] = []
    caption, label = _text("caption", item.caption, reasons), _text("label", item.label, reasons)
    sidecar = _text("sidecar", item.sidecar, reasons)
    if had.why_not is not None:
        reasons.append(had.why_not)
    return {
        "row_id": hashlib.sha256(key.encode()).hexdigest(),
        "id": had.picture_id,
        "path": path,
        "source": name,
        "origin": None if item.origin is None else _plain(without_secret(item.origin)),
        "key": None if item.key is None else _plain(item.key),
        "licence": _plain(item.licence),
        "caption": caption,
        "label": label,
        "sidecar": sidecar,
        "bytes": had.size,
        "reasons": reasons,
    }


def _plain(text: str) -> str:
    """A text that can be stored: what is not UTF-8 in it (names of files may not be) as an escape."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _text(what: str, value: object, reasons: list[str]) -> str | None:
    """A text or None; a value that is neither is refused with a reason (a number as label is a text)."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            reasons.append(reason("collect", f"{what} is not valid text", "it has half of a surrogate pair"))
            return None
        return value
    if what == "label" and isinstance(value, int | float):
        return str(value)
    reasons.append(reason("collect", f"{what} is not a text", f"it is {type(value).__name__}"))
    return None
