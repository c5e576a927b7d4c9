"""Keeping the bytes of pictures in the store: each under its sha256, whole or not at all."""

import errno
import fcntl
import hashlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from darkroom.errors import DiskFull, Stopped
from darkroom.quality.removals import erased_ids
from darkroom.store import Store

from .tree import fingerprint

FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file, on file systems that can (btrfs, XFS)
BLOCK = 8_000_000  # bytes read at a time
STALE_SECONDS = 3600
FULL = (errno.ENOSPC, errno.EDQUOT)
SETTLED_NS = 20_000_000  # clocks of file systems tick up to ten milliseconds apart

Clone = Callable[[int, int], None]


def picture_path(store: Store, picture_id: str) -> Path:
    """Where the store keeps the bytes of a picture."""
    return store.root / "pictures" / picture_id[:2] / picture_id


class TooLarge(Exception):
    """More bytes than are allowed."""


class _Unreadable(Exception):
    """The source's file failed, not the store's; holds the ``OSError``."""


class Keeper:
    """Copies pictures of at most ``max_bytes`` into a store.

    A copy is made in ``pictures/.incoming`` and moved into place, so a picture in the store is whole. Blocks are
    shared with the source where the file system can (``clone``), so that a copy takes no room. What was erased on
    request counts as kept and is not: no source brings its bytes back.
    """

    def __init__(
        self, store: Store, max_bytes: int, clone: Clone | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._store, self.max_bytes, self._clock = store, max_bytes, clock
        self._pictures = f"{store.root}/pictures"
        self.erased = erased_ids(store)
        self._incoming = Path(self._pictures, ".incoming")
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._clone: Clone | None = clone or _clone
        self._numbers = itertools.count()
        for left in self._incoming.iterdir():  # by a process that was killed
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink(missing_ok=True)

    def has(self, picture_id: str, size: int) -> bool:
        """Whether the store has this picture whole: after a power cut a file can be there and empty."""
        if picture_id in self.erased:
            return True
        try:
            return os.stat(f"{self._pictures}/{picture_id[:2]}/{picture_id}").st_size == size  # noqa: PTH116  (hot)
        except OSError:
            return False

    def need_room(self, size: int) -> None:
        """Raise :class:`DiskFull` when so many bytes more cannot be kept."""
        self._store.need_room(size, "the copy of new pictures")

    def keep(self, content: bytes) -> str:
        """Keep bytes that are in memory; returns their sha256. Raises :class:`TooLarge`."""
        if len(content) > self.max_bytes:
            raise TooLarge
        picture_id = hashlib.sha256(content).hexdigest()
        if not self.has(picture_id, len(content)):
            with self._writing() as (temporary, file):
                file.write(content)
            self._place(temporary, picture_id)
        return picture_id

    def keep_file(self, source: BinaryIO, mark: str | None) -> tuple[str, int, bool]:
        """Keep a regular local file, read once; returns its sha256, its size, and whether ``mark`` is still its print.

        Raises :class:`TooLarge`, and what reading raises.
        """
        handle = source.fileno()
        picture_id, size = self._cloned(handle) or self._copied(source)
        facts = os.fstat(handle)
        # A file that was changed just now may change once more within one tick of its clock, unseen.
        settled = fingerprint(facts) == mark and self._clock() - facts.st_ctime_ns > SETTLED_NS
        return picture_id, size, settled

    def _cloned(self, handle: int) -> tuple[str, int] | None:
        """Share the file's blocks, then hash the clone, which nobody changes any more; None where that cannot be."""
        if self._clone is None:
            return None
        with self._writing() as (temporary, file):
            try:
                self._clone(file.fileno(), handle)
            except OSError as error:
                if error.errno in FULL:
                    raise
                temporary.unlink()
                self._clone = None  # nor will it for the next picture
                return None
        size = temporary.stat().st_size
        if size > self.max_bytes:
            temporary.unlink()
            raise TooLarge
        with temporary.open("rb") as file:
            picture_id = hashlib.file_digest(file, "sha256").hexdigest()
        self._place_or_drop(temporary, picture_id, size)
        return picture_id, size

    def _copied(self, source: BinaryIO) -> tuple[str, int]:
        first = source.read(min(BLOCK, self.max_bytes + 1))
        if len(first) < BLOCK:
            return self.keep(first), len(first)
        digest, size = hashlib.sha256(first), len(first)
        try:
            with self._writing() as (temporary, file):
                block = first
                while block:
                    file.write(block)
                    block = _read(source)
                    digest.update(block)
                    size += len(block)
                    if size > self.max_bytes:
                        raise TooLarge
        except _Unreadable as error:
            raise error.args[0] from None
        self._place_or_drop(temporary, digest.hexdigest(), size)
        return digest.hexdigest(), size

    def _place_or_drop(self, temporary: Path, picture_id: str, size: int) -> None:
        if self.has(picture_id, size):
            temporary.unlink()
        else:
            self._place(temporary, picture_id)

    def _place(self, temporary: Path, picture_id: str) -> None:
        place = f"{self._pictures}/{picture_id[:2]}/{picture_id}"
        try:
            os.replace(temporary, place)
        except FileNotFoundError:
            Path(place).parent.mkdir(exist_ok=True)
            os.replace(temporary, place)

    def _writing(self) -> "_Writing":
        return _Writing(self._incoming / f"{os.getpid()}-{next(self._numbers)}", self._store)


class _Writing:
    """A new file of the store, gone again when writing it failed; a disk's fault is told as :class:`Stopped`."""

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store

    def __enter__(self) -> tuple[Path, BinaryIO]:
        try:
            self._file = open(self._path, "wb")  # noqa: PTH123  (closed by __exit__)
        except OSError as error:
            raise _stopped(self._store, error) from None
        return self._path, self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._file.close()
        except OSError as late:  # what was buffered did not fit
            error = late
        if error is not None:
            self._path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _stopped(self._store, error) from None


def _stopped(store: Store, error: OSError) -> Stopped:
    kept = "what was collected is kept, and the same command goes on from there"
    if error.errno in FULL:
        return DiskFull(
            f"the disk below {store.root} is full: make room there, or set DARKROOM_HOME to a larger disk; {kept}"
        )
    return Stopped(f"the store at {store.root} cannot be written: {error.strerror or error}; {kept}")


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(BLOCK)
    except OSError as error:
        raise _Unreadable(error) from None


def _clone(target: int, source: int) -> None:
    fcntl.ioctl(target, FICLONE, source)
