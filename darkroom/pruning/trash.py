"""Taking files away such that a kill at any moment leaves every artifact whole or gone.

A folder is moved into ``.trash`` by one rename before anything in it is deleted; what a killed pruning left there goes
with the next one. Bytes are what the disk gets back: blocks, and those of a file with several names only with its last.
"""

import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TRASH = ".trash"
BLOCK = 512  # bytes of a block as stat counts them, whatever the file system's own are
SERIAL = itertools.count()


@dataclass(frozen=True)
class Item:
    """A file or folder that may go, and what kind of thing it is."""

    kind: str
    path: Path


@dataclass(frozen=True)
class Freed:
    """How many things of a kind, and the bytes of disk that they held."""

    kind: str
    count: int
    bytes: int


def freed(items: Iterable[Item]) -> list[Freed]:
    """What taking all these away gives back, by kind; the bytes of a file count where its first name is met."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    names: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], tuple[str, int, int]] = {}
    for item in items:
        counts[item.kind] += 1
        for facts in _facts(item.path):
            which = (facts.st_dev, facts.st_ino)
            names[which] += 1
            links = 1 if stat.S_ISDIR(facts.st_mode) else facts.st_nlink
            first.setdefault(which, (item.kind, links, facts.st_blocks * BLOCK))
    for which, (kind, links, size) in first.items():
        if names[which] >= links:
            sizes[kind] += size
    return [Freed(kind, count, sizes[kind]) for kind, count in sorted(counts.items())]


def _facts(path: Path) -> Iterator[os.stat_result]:
    """What is known of a file, or of a folder and all that is in it."""
    with contextlib.suppress(FileNotFoundError):
        yield path.lstat()
        if path.is_dir() and not path.is_symlink():
            for folder, folders, files in os.walk(path):
                for name in (*folders, *files):
                    yield os.lstat(os.path.join(folder, name))  # noqa: PTH118  (hot)


def take(items: Iterable[Item], root: Path) -> None:
    """Take these away; ``root`` has the trash, on the same disk."""
    for item in items:
        if item.path.is_dir() and not item.path.is_symlink():
            aside = root / TRASH / f"{os.getpid()}-{next(SERIAL)}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(_moved(item.path, aside))
        else:
            item.path.unlink(missing_ok=True)


def _moved(path: Path, aside: Path) -> Path:
    """A folder in its new place; where that is on another disk it stays (only MLflow's artifacts may lie there)."""
    try:
        os.replace(path, aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return path
    return aside


def empty(root: Path) -> None:
    """Delete what a killed pruning left in the trash."""
    shutil.rmtree(root / TRASH, ignore_errors=True)
