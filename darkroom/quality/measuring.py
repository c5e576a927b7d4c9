"""The pass over many pictures: from the cache what was seen before, and the rest by a pool of processes."""

import contextlib
import errno
import gc
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from darkroom.cache import Cache
from darkroom.collect.manifest import picture_path
from darkroom.errors import DiskFull
from darkroom.store import Store

from .picture import BATCH, MEASURES, Rules, judged, learn, working_path
from .pool import COMMAND, Pool, Task

Progress = Callable[[int, int], None]
COLUMNS = (*MEASURES, "working", "reason", "flags")
REASON = COLUMNS.index("reason")
Row = tuple[Any, ...]
KIND = "measures"  # of the cache's entries
READ = 10_000  # pictures read from the cache at a time: a million dicts would not fit
LISTED = 1000  # known pictures from which on folders of working copies are listed
KEPT = 256  # pictures learnt between two writes to the cache


def measure_all(
    ids: Sequence[str | None],
    rules: Rules,
    store: Store,
    workers: int,
    progress: Progress = lambda done, total: None,
    command: Sequence[str] = COMMAND,
) -> dict[str, list[Any]]:
    """What the pass finds about each picture: :data:`COLUMNS`, each with one value for each of ``ids``.

    An id may come twice, or be None, which finds nothing. ``reason`` is None for a picture that can be used, whose
    working copy lies at ``working_path(store.root, working)``; ``flags`` are lists. ``workers`` processes, each started
    by ``command``, measure what the cache does not know; with 0 it is done here, where a decoder's crash ends
    everything. ``progress`` is told (done, in all). What was learnt is kept when this is interrupted.

    Raises ``OSError`` when the store cannot be read or written, :class:`DiskFull` where that is why, and
    :class:`darkroom.errors.DarkroomError` when processes cannot be started.
    """
    unique = sorted({one for one in ids if isinstance(one, str)})
    found: dict[str, Row] = {}
    with Cache(store.root / "cache.db") as cache:
        with _without_gc():
            for start in range(0, len(unique), READ):
                keys = {rules.key(one): one for one in unique[start : start + READ]}
                known = cache.get(KIND, keys)
                copies = _copies(store.root, known)
                for key, values in known.items():
                    row = _row(values, key, rules)
                    if row[REASON] is not None or key in copies:
                        found[keys[key]] = row
        missing = [one for one in unique if one not in found]
        progress(len(found), len(unique))
        learnt: dict[str, dict[str, Any]] = {}
        try:
            for one, values in _learn(missing, rules, store, workers, command):
                key = rules.key(one)
                if "lost" in values:  # not kept: it may have been for want of memory
                    values = {"reason": f"undecodable: {values['lost']}", "flags": []}
                elif not values.get("reason", "").startswith("too many pixels"):  # not kept: the rule may change
                    learnt[key] = values
                found[one] = _row(values, key, rules)
                if len(learnt) >= KEPT:
                    cache.put(KIND, learnt)
                    learnt = {}
                progress(len(found), len(unique))
        finally:
            cache.put(KIND, learnt)
    rows = [found[one] if isinstance(one, str) else (*[None] * (len(COLUMNS) - 1), []) for one in ids]
    return {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}


def _row(values: dict[str, Any], key: str, rules: Rules) -> Row:
    """One picture's values in the order of :data:`COLUMNS`."""
    shown = judged(values, rules)
    usable = "reason" not in shown
    return (*map(shown.get, MEASURES), key if usable else None, shown.get("reason"), shown["flags"])


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Garbage is not looked for: millions of new values, none of them garbage, make it look again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _copies(root: Path, keys: Collection[str]) -> set[str]:
    """Those of the keys that have a working copy: listing folders is much cheaper than asking for many files."""
    if len(keys) < LISTED:
        return {key for key in keys if working_path(root, key).exists()}
    found: set[str] = set()
    for folder in {working_path(root, key).parent for key in {key[:2]: key for key in keys}.values()}:
        with contextlib.suppress(FileNotFoundError):
            found.update(entry.name for entry in os.scandir(folder))
    return found


def _learn(
    missing: list[str], rules: Rules, store: Store, workers: int, command: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, what the pass learns) of each picture, in any order."""
    tasks: list[Task] = [
        (one, str(picture_path(store, one)), str(working_path(store.root, rules.key(one)))) for one in missing
    ]
    if not tasks:
        return
    if not workers:
        for start in range(0, len(tasks), BATCH):
            some = tasks[start : start + BATCH]
            for (one, *_), found in zip(some, learn([task[1:] for task in some], rules), strict=True):
                if isinstance(found, Exception):
                    raise found
                yield one, found
        return
    pool = Pool(tasks, rules, min(workers, -(-len(tasks) // BATCH)), command)
    try:
        for _ in tasks:
            one, values = pool.next()
            if "error" in values:
                if values["errno"] == errno.ENOSPC:
                    raise DiskFull(f"no room left for working copies in {store.root}; make room and run it again")
                raise OSError(values["errno"], values["error"], values["path"])
            yield one, values
    finally:
        pool.close()


def processes() -> int:
    """How many processes this machine has cores for."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
