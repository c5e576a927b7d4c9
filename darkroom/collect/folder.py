"""A folder of pictures, here or behind an fsspec address: with metadata, with caption files, or in class folders.

- **metadata.jsonl, metadata.csv, metadata.parquet**, as Hugging Face's imagefolder has them, in the folder or any below
  it: a line a picture, with its ``file_name`` relative to the metadata file, and ``text`` (see ``recipe.Columns``).
- **a.txt or a.caption beside a.jpg**, as kohya's trainers have them: the caption, or where a line of the metadata gives
  one the sidecar, from which a bad caption can be mended.
- **cat/1.jpg, dog/2.jpg**, where there is no metadata: the folder's name is the label.

A picture that nothing describes has no caption; a line without a picture is a row that cannot be read. Neither ends
the run.
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from darkroom.cache import Cache
from darkroom.errors import RecipeError
from darkroom.recipe import Collect
from darkroom.store import Store

from .lines import Picker, Record, columns_of, read_lines
from .remote import Remote, local_path
from .source import Item, problem_item, refuse, text_of
from .tree import SIDECARS, Entry, Listing, Local, inside, spellings

# Folders that hold pictures of every class.
NO_LABELS = {
    *("images", "image", "imgs", "img", "pictures", "photos", "data"),
    *("train", "training", "test", "testing", "val", "valid", "validation", "dev"),
}
NOTHING = Record(*[None] * len(Record._fields))


def items(plan: Collect, store: Store | None = None) -> Iterator[Item]:
    """Every picture below ``plan.path`` and every line of its metadata, by path; the store itself is left out.

    Raises :class:`RecipeError` when the folder or a metadata file cannot be read.
    """
    tree = open_tree(str(plan.path))
    listing = tree.listing(store.root if store else None)
    records, problems = _metadata(tree, listing, plan)
    sidecars = _Sidecars(tree, listing, store)
    names = sorted(listing.pictures.keys() | records.keys() | problems.keys())
    for start in range(0, len(names), 1000):  # so many sidecars at a time
        some = names[start : start + 1000]
        texts = sidecars.read(some)
        for name in some:
            if name in problems:
                problem, record = problems[name]
                yield problem_item(name, problem, str(record.licence or plan.licence), record.caption, record.label)
                continue
            record = records.get(name, NOTHING)
            entry = listing.pictures.get(name) or tree.find(name)
            label = record.label
            if label is None and not listing.metadata:
                label = class_of(name, bool(listing.sidecars))
            yield file_item(tree, name, entry, record._replace(label=label), plan.licence, texts.get(name))


def open_tree(path: str) -> Local | Remote:
    """The folder at a path or an address; a path that is a zip is looked into."""
    here = local_path(path)
    if here is None:
        return Remote(path)
    if here.suffix.lower() == ".zip" and here.is_file():
        return Remote(f"zip://::{here}")
    return Local(here)


def class_of(path: str, numbered: bool) -> str | None:
    """The label that a picture's folder gives it: ``cat/1.jpg`` -> ``cat``; with ``numbered``, kohya's ``10_cat``, too.

    Each picture is looked at alone, so that one more picture never changes the label of another.
    """
    return _class_of_folder(path.rpartition("/")[0], numbered)


@functools.lru_cache(maxsize=10_000)
def _class_of_folder(folder: str, numbered: bool) -> str | None:
    for part in reversed(folder.split("/")):
        if part and part.lower() not in NO_LABELS:
            return re.sub(r"^\d+_(?=.)", "", part) if numbered else part
    return None


def file_item(
    tree: Local | Remote, name: str, entry: Entry, record: Record, licence: str, text: bytes | OSError | None = None
) -> Item:
    """The item of a file; ``text`` is what its caption file holds, or why that cannot be read."""
    caption, sidecar, problem = record.caption, None, entry.problem
    if isinstance(text, OSError):
        problem = problem or f"its caption file cannot be read: {text.strerror or text}"
    elif text is not None and caption is None:
        caption = text_of(text)
    elif text is not None:
        sidecar = text_of(text)
    return Item(
        path=name,
        caption=caption,
        label=record.label,
        licence=str(record.licence or licence),
        fingerprint=None if problem else entry.fingerprint,
        size=entry.size,
        read=refuse(problem) if problem else partial(tree.read, name),
        origin=None if record.origin is None else str(record.origin),
        key=None if record.key is None else str(record.key),
        sidecar=sidecar,
        open=None if problem or not isinstance(tree, Local) else partial(tree.open, name),
        remote=tree.remote,
    )


def look_up(tree: Local | Remote, name: str) -> tuple[str, Entry]:
    """(path, file) of a name that a table gives, also where the file's own name is spelt in another way."""
    try:
        path = inside(name)
    except OSError as error:
        return name, Entry(problem=str(error))
    entry = tree.find(path)
    if entry.problem is not None:
        for spelling in sorted({*spellings(path)} - {path}):
            other = tree.find(spelling)
            if other.problem is None:
                return spelling, other
    return path, entry


class _Sidecars:
    """The caption files of a folder; those behind a network are read again only when they have changed."""

    def __init__(self, tree: Local | Remote, listing: Listing, store: Store | None) -> None:
        self._tree, self._store, self._prints = tree, store, listing.sidecars
        self._paths = {suffix: {} for suffix in SIDECARS}  # type: dict[str, dict[str, str]]
        for path in listing.sidecars:
            stem, dot, suffix = path.rpartition(".")
            self._paths[(dot + suffix).lower()][stem] = path

    def read(self, pictures: list[str]) -> dict[str, bytes | OSError]:
        """The text of each picture that has one: that of ``a.txt`` before that of ``a.caption``."""
        if not any(self._paths.values()):
            return {}
        wanted: dict[str, str] = {}
        for name in pictures:
            stem = name.rpartition(".")[0] if "." in name.rpartition("/")[2] else name
            path = next((found for suffix in SIDECARS if (found := self._paths[suffix].get(stem))), None)
            if path:
                wanted[name] = path
        paths = sorted(set(wanted.values()))
        if self._store is not None and isinstance(self._tree, Remote) and self._tree.remote:
            texts = self._remembered(paths, self._tree, self._store)
        else:
            texts = self._tree.texts(paths)
        return {name: texts[path] for name, path in wanted.items()}

    def _remembered(self, paths: list[str], tree: Remote, store: Store) -> dict[str, bytes | OSError]:
        # A digest, for there may be a password in an address. Latin-1 has a letter for every byte.
        keys = {path: hashlib.sha256(f"{tree.address}\0{path}".encode(errors="surrogateescape")) for path in paths}
        names = {path: key.hexdigest() for path, key in keys.items()}
        with Cache(store.root / "cache.db") as cache:
            known = cache.get("sidecar", names.values())
            texts: dict[str, bytes | OSError] = {
                path: known[name][1].encode("latin-1")
                for path, name in names.items()
                if name in known and self._prints[path] and known[name][0] == self._prints[path]
            }
            read = tree.texts([path for path in paths if path not in texts])
            learnt = {
                names[path]: [self._prints[path], content.decode("latin-1")]
                for path, content in read.items()
                if isinstance(content, bytes) and self._prints[path]
            }
            cache.put("sidecar", learnt)
        return texts | read


def _metadata(
    tree: Local | Remote, listing: Listing, plan: Collect
) -> tuple[dict[str, Record], dict[str, tuple[str, Record]]]:
    """({picture: what its line says}, {place of a line: what is wrong with it, what it says}).

    A line nearer to its picture goes before one that is further up.
    """
    picker = Picker(plan.columns)
    records: dict[str, Record] = {}
    problems: dict[str, tuple[str, Record]] = {}
    have: dict[str, None] = {}
    for path in sorted(listing.metadata, key=lambda path: (-path.count("/"), path.endswith(".csv"), path)):
        kind = PurePosixPath(path).suffix
        opener = partial(_open, tree, path)
        if plan.columns != type(plan.columns)():
            have.update(dict.fromkeys(columns_of(opener, kind, path, picker.chosen(), strict=False)))
        folder = path.rpartition("/")[0]
        for number, values in read_lines(opener, kind, path, strict=False):
            name, record, problem = _line(listing, folder, picker, values)
            if problem is None and name in records:
                problem = f"a second line for {name}"
            if problem is None and name is not None:
                records[name] = record
                continue
            taken = name is None or name in records or name in problems or name in listing.pictures
            problems[f"{path}:{number}" if taken else str(name)] = (str(problem), record)
    if have:
        picker.need(list(have), "its metadata")
    return records, problems


def _line(
    listing: Listing, folder: str, picker: Picker, values: dict[str, Any] | str
) -> tuple[str | None, Record, str | None]:
    """(path of the picture, what the line says, what is wrong)."""
    if isinstance(values, str):
        return None, NOTHING, values
    record = picker(values)
    if not isinstance(record.file, str) or not record.file:
        what = "no file_name" if record.file is None else f"file_name is {record.file!r}, not a path"
        return None, record, what
    named = f"{folder}/{record.file}" if folder and not record.file.startswith("/") else record.file
    try:
        path = inside(named)
    except OSError as error:
        return record.file, record, f"file_name: {error}"
    if path not in listing.pictures:
        path = next((other for other in spellings(path) if other in listing.pictures), path)
    return path, record, None


def _open(tree: Local | Remote, path: str) -> Any:
    try:
        return tree.open(path)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}") from None
