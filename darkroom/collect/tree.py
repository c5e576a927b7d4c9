"""A folder on this machine: what lies in it, and opening it safely. Nothing outside the folder is ever opened."""

import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from darkroom.errors import RecipeError

from .source import SUFFIXES

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SIDECARS = (".txt", ".caption")
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link is followed, no pipe waited for
MAX_TEXT = 1_000_000  # bytes of a small file beside a picture that are read: no caption is longer


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture's file: its size in bytes and fingerprint, or the ``problem`` for which it cannot be opened."""

    size: int | None = None
    fingerprint: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Listing:
    """What lies in a folder, by paths relative to it; ``pictures`` also holds what only looks like one.

    ``sidecars`` have fingerprints where reading them again costs more than remembering them.
    """

    pictures: dict[str, Entry] = field(default_factory=dict)
    sidecars: dict[str, str | None] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)

    def sort(self, path: str, fingerprint: str | None = None) -> str | None:
        """What a file is by its name; a sidecar or metadata is noted at once."""
        name = path.rpartition("/")[2]
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  (pathlib costs a tenth of the whole listing)
        if suffix in SUFFIXES:
            return "picture"
        if name in METADATA:
            self.metadata.append(path)
        elif suffix in SIDECARS:
            self.sidecars[path] = fingerprint
        return None


def hidden(name: str) -> bool:
    """Files and folders that systems leave behind (.DS_Store, ._a.jpg, __MACOSX) are no pictures."""
    return name.startswith(".") or name == "__MACOSX"


def inside(name: str) -> str:
    """A name from a metadata file as a path below its folder; raises ``OSError`` for one that leads elsewhere."""
    if "\0" in name:
        raise OSError("not a path: it has a NUL character")
    if "://" in name:
        raise OSError("an address, not a file in the folder")
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path in ("..", "."):
        raise OSError("leads out of the folder" if path != "." else "the folder itself, not a file")
    return path


def spellings(name: str) -> Iterator[str]:
    """Other ways in which the file of this name may be written: accents composed or not, separators of Windows."""
    slashes = name.replace("\\", "/")
    for spelling in (name, slashes):
        yield spelling
        yield unicodedata.normalize("NFC", spelling)
        yield unicodedata.normalize("NFD", spelling)


def fingerprint(facts: os.stat_result) -> str:
    """A file is unchanged only when its size, both times and its inode are."""
    return f"{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}:{facts.st_ino}"


class Local:
    """A folder on this machine."""

    remote = False

    def __init__(self, root: Path) -> None:
        """Raises :class:`RecipeError` when there is no such folder."""
        if not root.is_dir():
            raise RecipeError(
                f"collect.path = {str(root)!r}: there is no such folder" + (", it is a file" if root.is_file() else "")
            )
        self.root = os.path.realpath(root)
        self._folders: dict[str, str] = {"": self.root}  # relative path -> real path, of folders known to be inside

    def listing(self, without: Path | None = None) -> Listing:
        """Everything below the folder but hidden files, links to folders and the folder ``without``.

        One ``scandir`` a folder and one ``stat`` a picture.
        """
        found = Listing()
        skip = os.path.realpath(without) if without else None
        folders = [("", self.root)]
        while folders:
            prefix, where = folders.pop()
            try:
                entries = os.scandir(where)
            except OSError as error:
                if not prefix:
                    raise RecipeError(f"collect.path = {self.root!r} cannot be read: {error.strerror}") from None
                found.pictures[prefix.rstrip("/")] = Entry(problem=f"the folder cannot be read: {error.strerror}")
                continue
            with entries:
                for entry in entries:
                    if hidden(entry.name) or entry.path == skip:
                        continue
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((f"{path}/", entry.path))
                    elif found.sort(path) == "picture":
                        found.pictures[path] = self._entry(entry, path)
                    elif entry.is_symlink() and entry.is_dir():
                        found.pictures[path] = Entry(problem="a link to a folder, which is not followed")
        return found

    def _entry(self, entry: "os.DirEntry[str]", path: str) -> Entry:
        if not entry.is_file(follow_symlinks=False):
            return self.find(path)
        try:
            facts = entry.stat(follow_symlinks=False)
        except OSError as error:
            return Entry(problem=error.strerror or str(error))
        return Entry(facts.st_size, fingerprint(facts))

    def find(self, path: str) -> Entry:
        """The file at a path, whoever named it."""
        try:
            facts = os.lstat(self._real(path))
        except (OSError, ValueError) as error:
            return Entry(problem=getattr(error, "strerror", None) or str(error))
        return Entry(facts.st_size, fingerprint(facts))

    def open(self, path: str) -> BinaryIO:
        """Open a regular file inside the folder; raises ``OSError`` for anything else, and never waits for a pipe."""
        real = self._real(path)
        # Between the look and the opening the file may have become a link or a pipe.
        handle = os.open(real, FLAGS)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            _refuse_mode(os.lstat(real).st_mode)
        return os.fdopen(handle, "rb")

    def read(self, path: str) -> bytes:
        """The bytes of a file inside the folder."""
        with self.open(path) as file:
            return file.read()

    def texts(self, paths: Iterable[str]) -> dict[str, bytes | OSError]:
        """The first :data:`MAX_TEXT` bytes of small files of the listing, or why each cannot be read."""
        found: dict[str, bytes | OSError] = {}
        for path in paths:
            try:
                found[path] = self._text(path)
            except OSError as error:
                found[path] = error
        return found

    def _text(self, path: str) -> bytes:
        try:
            handle = os.open(f"{self.root}/{path}", FLAGS)  # the listing met no link on the way to it
        except OSError:
            handle = os.open(self._real(path), FLAGS)
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                _refuse_mode(facts.st_mode)
            return os.read(handle, min(facts.st_size, MAX_TEXT))
        finally:
            os.close(handle)

    def _real(self, path: str) -> str:
        """Where a regular file lies without any link; raises ``OSError`` for all else and for what lies outside."""
        parent, _, name = inside(path).rpartition("/")
        folder = self._folders.get(parent)
        if folder is None:
            folder = self._resolved(f"{self.root}/{parent}")
            if len(self._folders) < 100_000:
                self._folders[parent] = folder
        real = f"{folder}/{name}"
        mode = os.lstat(real).st_mode
        if stat.S_ISLNK(mode):
            real = self._resolved(real)
            mode = os.lstat(real).st_mode
        if not stat.S_ISREG(mode):
            _refuse_mode(mode)
        return real

    def _resolved(self, path: str) -> str:
        real = os.path.realpath(path)
        if real != self.root and not real.startswith(self.root.rstrip("/") + "/"):
            raise OSError("leads out of the folder")
        return real


def _refuse_mode(mode: int) -> NoReturn:
    kinds = {
        stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link that leads nowhere", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    raise OSError(f"{kinds.get(stat.S_IFMT(mode), 'something else')}, not a file")
