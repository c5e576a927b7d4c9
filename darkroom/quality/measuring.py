"""The pass over many pictures: from the cache what was seen before, and the rest by a pool of processes."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from darkroom.cache import Cache
from darkroom.collect.manifest import picture_path
from darkroom.errors import DiskFull
from darkroom.store import Store

from .picture import MEASURES, Rules, judged, learn, working_path
from .pool import AHEAD, COMMAND, Pool, Task

Progress = Callable[[int, int], None]
COLUMNS = (*MEASURES, "working", "reason", "flags")
KIND = "measures"  # of the cache's entries
BATCH = 256  # pictures learnt between two writes to the cache


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
    keys = {one: rules.key(one) for one in unique}
    found: dict[str, dict[str, Any]] = {}
    with Cache(store.root / "cache.db") as cache:
        known = cache.get(KIND, keys.values())
        for one, key in keys.items():
            if key in known:
                shown = judged(known.pop(key), rules)
                if "reason" in shown or working_path(store.root, key).exists():
                    found[one] = shown
        missing = [one for one in unique if one not in found]
        progress(len(found), len(unique))
        learnt: dict[str, dict[str, Any]] = {}
        try:
            for one, values in _learn(missing, keys, rules, store, workers, command):
                if "lost" in values:  # not kept: it may have been for want of memory
                    values = {"reason": f"undecodable: {values['lost']}", "flags": []}
                elif not values.get("reason", "").startswith("too many pixels"):  # not kept: the rule may change
                    learnt[keys[one]] = values
                found[one] = judged(values, rules)
                if len(learnt) >= BATCH:
                    cache.put(KIND, learnt)
                    learnt = {}
                progress(len(found), len(unique))
        finally:
            cache.put(KIND, learnt)
    rows = [found.get(one, {}) if isinstance(one, str) else {} for one in ids]
    usable = [bool(row) and "reason" not in row for row in rows]
    return {
        **{name: [row.get(name) for row in rows] for name in MEASURES},
        "working": [keys[one] if one and good else None for one, good in zip(ids, usable, strict=True)],
        "reason": [row.get("reason") for row in rows],
        "flags": [row.get("flags", []) for row in rows],
    }


def _learn(
    missing: list[str], keys: dict[str, str], rules: Rules, store: Store, workers: int, command: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, what the pass learns) of each picture, in any order."""
    tasks: list[Task] = [
        (one, str(picture_path(store, one)), str(working_path(store.root, keys[one]))) for one in missing
    ]
    if not tasks:
        return
    if not workers:
        for one, path, copy in tasks:
            yield one, learn(Path(path), rules, Path(copy))
        return
    pool = Pool(tasks, rules, min(workers, -(-len(tasks) // AHEAD)), command)
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
