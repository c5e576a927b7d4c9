"""Keeping what was fetched, in a thread of its own: bytes go to the store first, then the cache learns of them.

So a finished download is kept whatever becomes of the thread that asked for it.
"""

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from darkroom.cache import Cache
from darkroom.quality.removals import erased_ids
from darkroom.store import Store, file_digest

from ._http_request import Body, Fault, Job, Known, Outcome

KIND = "http"  # the cache's table
SOON = 0.25  # seconds after which the cache learns of a finished download at the latest
BATCH = 256
GATHER = 0.01  # seconds in which downloads gather, so that threads do not wake one another for each

SERIAL = itertools.count()

Result = tuple[str, Known | Fault]
Deliver = Callable[[list[Result] | BaseException], object]


def incoming(store: Store) -> Path:
    """Where pictures lie until they are whole; what killed processes left there goes when rows are next collected."""
    return store.root / "pictures" / ".incoming"


class Keeper:
    """A thread that takes outcomes and calls ``deliver`` with lists of (the job's key, what we have or why not).

    An error that it cannot go on after (a full disk) is delivered, too.
    """

    def __init__(self, store: Store, deliver: Deliver) -> None:
        self._store, self._deliver = store, deliver
        self._outcomes: SimpleQueue[tuple[Job, Outcome] | None] = SimpleQueue()
        self._pictures, self._incoming = f"{store.root}/pictures", incoming(store)
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._erased = erased_ids(store)
        self.released: Callable[[int], None] = lambda size: None
        self._thread = threading.Thread(target=self._main, name="http-keep", daemon=True)
        self._thread.start()

    def take(self, job: Job, outcome: Outcome) -> None:
        """Keep this, soon."""
        self._outcomes.put((job, outcome))

    def broken(self, error: BaseException) -> None:
        """Let the taker of the results know that there will be no more."""
        self._deliver(error)

    def close(self) -> None:
        """Keep all that was taken, and end."""
        self._outcomes.put(None)
        self._thread.join()

    def _main(self) -> None:
        learnt: dict[str, Any] = {}
        try:
            with Cache(self._store.root / "cache.db") as cache:
                try:
                    self._serve(cache, learnt)
                finally:
                    cache.put(KIND, learnt)
        except BaseException as error:
            self.broken(error)

    def _serve(self, cache: Cache, learnt: dict[str, Any]) -> None:
        due = 0.0
        while True:
            batch, ended = self._next(max(0.0, due - time.monotonic()) if learnt else None)
            if not learnt:
                due = time.monotonic() + SOON
            results: list[Result] = []
            freed = 0
            for job, outcome in batch:
                results.append((job.key, self._keep(job, outcome, learnt)))
                if isinstance(outcome, Body) and isinstance(outcome.content, bytes):
                    freed += outcome.size
            if results:
                self._deliver(results)
            if freed:
                self.released(freed)
            if learnt and (len(learnt) >= BATCH or time.monotonic() >= due):
                cache.put(KIND, learnt)
                learnt.clear()
            if ended:
                return

    def _next(self, timeout: float | None) -> tuple[list[tuple[Job, Outcome]], bool]:
        """What has come in, at least one unless the time is over; and whether that was the last."""
        batch: list[tuple[Job, Outcome]] = []
        try:
            taken = self._outcomes.get(timeout=timeout)
            if taken is not None:
                time.sleep(GATHER)
            while taken is not None and len(batch) < BATCH:
                batch.append(taken)
                taken = self._outcomes.get_nowait()
        except Empty:
            return batch, False
        if taken is None:
            return batch, True
        batch.append(taken)
        return batch, False

    def _keep(self, job: Job, outcome: Outcome, learnt: dict[str, Any]) -> Known | Fault:
        if isinstance(outcome, Fault):
            # A server that is away for a while does not take away what we have; one that says no does.
            return job.known if outcome.transient and job.known is not None else outcome
        if isinstance(outcome, Body):
            digest = self._write(outcome.content)
            known = Known(digest, outcome.size, outcome.etag, outcome.modified, outcome.noai)
        else:
            assert job.known is not None, "a conditional request was made of it"
            known = job.known
        learnt[job.key] = {
            "id": known.id,
            "size": known.size,
            "etag": known.etag,
            "modified": known.modified,
            "noai": known.noai,
            "when": time.time_ns(),
        }
        return known

    def _write(self, content: bytes | Path) -> str:
        """Put a body under its sha256 into the store; atomic, and done once for equal bytes."""
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_digest(content)
        if digest in self._erased:  # on request; its bytes do not come back
            if isinstance(content, Path):
                content.unlink(missing_ok=True)
            return digest
        path = f"{self._pictures}/{digest[:2]}/{digest}"  # as picture_path has it, at less cost
        if isinstance(content, bytes):
            if _size(path) == len(content):
                return digest
            temporary = f"{self._incoming}/{os.getpid()}-http-{next(SERIAL)}"
            _write(temporary, content)
        else:
            temporary = str(content)
        try:
            os.replace(temporary, path)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
        return digest


def _write(path: str, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)  # at half the cost of a file object
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except FileNotFoundError:
        return None
