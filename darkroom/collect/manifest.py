"""Collection: from a source to a manifest, the table of its pictures, and a copy of their bytes."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import Manifest
from darkroom.cache import Cache
from darkroom.errors import RecipeError
from darkroom.reasons import reason
from darkroom.recipe import Collect
from darkroom.stages import stage_digest
from darkroom.store import Store

from . import digits, folder
from .source import Item

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int], None]
COLUMNS = ("row_id", "id", "path", "source", "origin", "licence", "caption", "label", "sidecar", "bytes", "reasons")
IDENTITY = ("row_id", "id", "caption", "label", "licence", "reasons", "origin", "sidecar")


def collect(plan: Collect, store: Store, progress: Progress = lambda done: None) -> Manifest:
    """Read the source and return the manifest of what it holds now; ``progress`` is told how many rows are done.

    Bytes of files that were not seen before are kept in the store. The digest is of the content: a source that did not
    change gives the manifest that the store has. Raises :class:`RecipeError` for a source that is wrong or empty.
    """
    name, items = open_source(plan)
    rows = read_rows(name, items, plan.max_bytes, store, progress)
    if not rows:
        raise RecipeError(f"collect: the source {name} has no pictures; put some there, or name another source")
    identity = sorted(
        ([row[key] for key in IDENTITY] for row in rows),
        key=lambda values: str(values[0]),
    )
    digest = stage_digest("manifest", {}, {"rows": identity})

    def build(work: Path) -> None:
        frame(rows).to_parquet(work / "manifest.parquet", index=False)

    return store.get_or_build(Manifest, digest, build, inputs={"source": name}, fields=plan.digest_fields())


def open_source(plan: Collect) -> tuple[str, Iterator[Item]]:
    """The source's name, which enters every row's id, and its pictures."""
    if plan.source == "digits":
        return digits.NAME, digits.items()
    assert plan.path is not None, "the recipe's validation saw to it"
    path = Path(plan.path)
    return f"folder:{path.name}", folder.items(path, plan.licence)


def frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """Rows -> the manifest's table, by path."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["path", "row_id"], ignore_index=True)
    text = [column for column in COLUMNS if column not in ("bytes", "reasons")]
    return table.astype({**dict.fromkeys(text, "str"), "bytes": "int64"})


def picture_path(store: Store, picture_id: str) -> Path:
    """Where the store keeps the bytes of a picture."""
    return store.root / "pictures" / picture_id[:2] / picture_id


def read_rows(
    name: str, items: Iterator[Item], max_bytes: int, store: Store, progress: Progress = lambda done: None
) -> list[dict[str, Any]]:
    """One row an item; bytes that the store lacks are read and kept, those of a known fingerprint are not read."""
    rows: list[dict[str, Any]] = []
    learnt: dict[str, Any] = {}
    with Cache(store.root / "cache.db") as cache:
        try:
            for item in items:
                rows.append(_row(name, item, max_bytes, store, cache, learnt))
                progress(len(rows))
        finally:
            cache.put("seen", learnt)  # what an interrupted collection has read need not be read again
    return rows


def _row(name: str, item: Item, max_bytes: int, store: Store, cache: Cache, learnt: dict[str, Any]) -> dict[str, Any]:
    reasons: list[str] = []
    item = replace(item, path=item.path.encode(errors="backslashreplace").decode())
    caption, label = _text("caption", item.caption, reasons), _text("label", item.label, reasons)
    sidecar = _text("sidecar", item.sidecar, reasons)
    picture_id, size = _keep(name, item, max_bytes, store, cache, learnt, reasons)
    return {
        "row_id": hashlib.sha256(f"{name}\0{item.path}".encode()).hexdigest(),
        "id": picture_id,
        "path": item.path,
        "source": name,
        "origin": item.origin,
        "licence": item.licence,
        "caption": caption,
        "label": label,
        "sidecar": sidecar,
        "bytes": size,
        "reasons": reasons,
    }


def _keep(
    name: str, item: Item, max_bytes: int, store: Store, cache: Cache, learnt: dict[str, Any], reasons: list[str]
) -> tuple[str | None, int]:
    """The picture's id and size, from the cache or by reading it; why it cannot be had goes to ``reasons``."""
    key = f"{name}\0{item.path}\0{item.fingerprint}"
    if item.fingerprint and (known := cache.get("seen", [key])):
        picture_id, size = known[key]
        if picture_path(store, picture_id).is_file():
            return picture_id, size
    too_large = reason("collect", "too large", f"more than collect.max_bytes = {max_bytes:,} bytes")
    if item.size is not None and item.size > max_bytes:
        reasons.append(too_large)
        return None, item.size
    try:
        content = item.read()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        reasons.append(reason("collect", "unreadable", str(why)))
        return None, 0
    if len(content) > max_bytes:
        reasons.append(too_large)
        return None, len(content)
    picture_id = hashlib.sha256(content).hexdigest()
    path = picture_path(store, picture_id)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{picture_id}.{os.getpid()}")
        temporary.write_bytes(content)
        os.replace(temporary, path)
    if item.fingerprint:
        learnt[key] = [picture_id, len(content)]
    return picture_id, len(content)


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
