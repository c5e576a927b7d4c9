"""The content-addressed store: get or build, atomically.

An artifact is a folder ``store/<kind>/<digest>/``. It is built in ``store/.work/<kind>-<digest>/``, flushed, and moved
into place by one ``os.replace``; ``artifact.json`` is written last. Two processes that want the same digest build it
once (``flock``), and a killed builder releases the lock.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from .artifacts import Artifact
from .errors import DiskFull, InUse

A = TypeVar("A", bound=Artifact)

MARKER = "artifact.json"
USE = "in-use"  # the lock that whoever builds or reads holds with others, and whoever deletes alone


def digest_of(value: object) -> str:
    """sha256 of a value's canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """A local folder of artifacts, on a disk of which ``reserve`` bytes are to stay free."""

    def __init__(self, root: Path, reserve: int = 0) -> None:
        self.root, self.reserve = root, reserve

    def place(self, kind: type[Artifact], digest: str) -> Path:
        """Where the artifact lies, or will lie."""
        return self.root / kind.kind / digest

    def workplace(self, kind: type[Artifact], digest: str) -> Path:
        """Where the artifact is built; a builder that can resume finds here what the last attempt left."""
        return self.root / ".work" / f"{kind.kind}-{digest}"

    def find(self, kind: type[A], digest: str) -> A | None:
        """The finished artifact, or None; one whose files are gone or cut short counts as missing."""
        path = self.place(kind, digest)
        try:
            marker = json.loads((path / MARKER).read_text("utf-8"))
            whole = all((path / name).stat().st_size == entry["bytes"] for name, entry in marker["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return kind(digest, path, reused=True) if whole else None

    def get_or_build(
        self,
        kind: type[A],
        digest: str,
        build: Callable[[Path], Mapping[str, Any] | None],
        *,
        inputs: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        resumable: bool = False,
        fresh: bool = False,
    ) -> A:
        """The artifact of this digest, built by ``build(folder)`` when the store lacks it.

        ``inputs`` and ``fields`` are recorded in ``artifact.json``, with what ``build`` returns (facts such as the
        device, which do not enter the digest). A failed build leaves no artifact; its work folder stays only where
        ``resumable``. ``fresh`` builds although the store has it.
        """
        with self.in_use(), self.lock(f"{kind.kind}-{digest}"):
            found = None if fresh else self.find(kind, digest)
            if found is not None:
                return found
            work, place = self.workplace(kind, digest), self.place(kind, digest)
            if fresh or not resumable:
                shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True, exist_ok=True)
            try:
                facts = build(work)
            except BaseException:
                if not resumable:
                    shutil.rmtree(work, ignore_errors=True)
                raise
            _seal(work, kind.kind, digest, inputs, fields or {}, facts or {})
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():  # damaged, or to be built afresh
                aside = work.with_name(f"{work.name}.old")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(place, aside)
                os.replace(work, place)
                shutil.rmtree(aside)
            else:
                os.replace(work, place)
            _flush(place.parent)
            return kind(digest, place)

    def amend(self, kind: type[Artifact], digest: str, change: Callable[[Path], None]) -> None:
        """Change an artifact that must not stay as it is, such as for a picture that is to be erased.

        ``change(folder)`` deletes files or moves others into their places, and never writes into one: what it does not
        touch is shared with the artifact as it was. Killed at any point, the same call does it again.
        """
        with self.lock(f"{kind.kind}-{digest}"):
            work, place = self.workplace(kind, digest), self.place(kind, digest)
            aside = work.with_name(f"{work.name}.old")
            if aside.exists() and not place.exists():
                os.replace(aside, place)
            for left in (work, aside):
                shutil.rmtree(left, ignore_errors=True)
            work.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(place, work, copy_function=link_or_copy)
            change(work)
            said = json.loads((place / MARKER).read_text("utf-8"))
            _seal(work, kind.kind, digest, said["inputs"], said["fields"], said["facts"])
            os.replace(place, aside)
            os.replace(work, place)
            _flush(place.parent)
            shutil.rmtree(aside)

    def need_room(self, needed: int, what: str) -> None:
        """Raise :class:`DiskFull` when ``needed`` bytes cannot be written here."""
        need_room(self.root, needed + self.reserve, what)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of this name; waits for another process that has it."""
        with self._lock_file(name) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within it, nobody deletes what the store has: for whoever goes on from one artifact to the next."""
        with self._lock_file(USE) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within it, nobody uses the store: what would begin to, waits. Raises :class:`InUse` where somebody does."""
        with self._lock_file(USE) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(
                    f"a run is using the store at {self.root}, so nothing of it may be deleted now; nothing was: "
                    "run the same command again when that run has ended"
                ) from None
            yield

    def _lock_file(self, name: str) -> IO[str]:
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / name).open("w")


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def marker(artifact: Artifact) -> dict[str, Any]:
    """What ``artifact.json`` says."""
    content: dict[str, Any] = json.loads((artifact.path / MARKER).read_text("utf-8"))
    return content


def write_json(path: Path, value: object) -> None:
    """Write JSON that a person can read, atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    os.replace(temporary, path)


def need_room(folder: Path, needed: int, what: str, free: Callable[[Path], int] | None = None) -> None:
    """Raise :class:`DiskFull` when fewer than ``needed`` bytes are free where ``folder`` lies."""
    folder.mkdir(parents=True, exist_ok=True)
    have = free(folder) if free else shutil.disk_usage(folder).free
    if have < needed:
        raise DiskFull(
            f"{what} needs about {needed / 1e6:,.0f} MB below {folder}, but only {have / 1e6:,.0f} MB are free: "
            "make room there, or set DARKROOM_HOME to a larger disk"
        )


def _seal(
    work: Path, kind: str, digest: str, inputs: Mapping[str, Any], fields: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Flush every file, then write the marker that makes the folder an artifact."""
    from . import __version__

    files = {}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        _flush(path)
        name = path.relative_to(work).as_posix()
        if name != MARKER:
            files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    write_json(
        work / MARKER,
        {
            "kind": kind,
            "digest": digest,
            "inputs": dict(inputs),
            "fields": dict(fields),
            "facts": dict(facts),
            "code": __version__,
            "files": files,
        },
    )
    _flush(work / MARKER)
    _flush(work)


def _flush(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
