"""A second process that downloads: for many addresses on a fast network, where one process would compute all the time.

It has a :class:`Fetcher` and a :class:`Keeper` of its own, puts pictures into the same store and tells the same cache,
so that what it finished is kept whatever becomes of the process that asked. Both processes keep half of the limits on
downloads, a host that asks to be left alone is left alone by both, and when this one dies, the other goes on alone.

They write lines of JSON to one another: ``jobs`` and ``pause`` go there, after the limits; ``ready``, ``results``,
``pause`` and ``broken`` come back. It ends with its input, and so with the process that started it.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.store import Store

from ._http_keep import Deliver, Keeper, Result, incoming
from ._http_request import Fault, Job, Known
from ._http_rules import Limits, Network

if TYPE_CHECKING:
    from ._http_fetch import Fetcher

COMMAND = (sys.executable, "-m", "darkroom.collect._http_second")
PAYS_FROM = 1_000  # addresses; for fewer its start costs what it gains (benchmarks/downloads.py)
AHEAD, AHEAD_OF_HOST = 512, 256  # jobs that it may have, of all hosts and of one
LONGEST_LINE = 4 << 20
END_SECONDS = 5.0  # after which it is killed

_log = logging.getLogger(__name__)


def pays(jobs: int, limits: Limits) -> bool:
    """Whether a second process is worth its start, and the limits can be shared."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return jobs >= PAYS_FROM and min(limits.concurrency, limits.per_host, cores) > 1


class Second:
    """The process as its fetcher sees it: what it was given, what it says. All of it happens in the fetcher's loop."""

    def __init__(self, limits: Limits, store: Store, deliver: Deliver) -> None:
        self._limits, self._store, self._deliver = limits, store, deliver
        self._process: Process | None = None
        self._fetcher: Fetcher
        self._given: dict[str, tuple[str, Job]] = {}  # by the job's key: its host and the job
        self._of_host = Counter[str]()  # how many of these
        self._ready = self._closing = False

    async def start(self) -> None:
        """Start it, if that can be done; it gets its first jobs when it says that it is ready."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=PIPE,
                stdout=PIPE,
                limit=LONGEST_LINE,
                start_new_session=True,  # Ctrl-C is for the parent: this process ends with its input
            )
        except OSError as error:
            _log.warning("downloading with one process, as a second one does not start: %s", error)
        else:
            self._tell({"limits": asdict(self._limits), "store": str(self._store.root)})

    async def serve(self, fetcher: "Fetcher") -> None:
        """Hear what it says until it ends; what it then has not done is the fetcher's again."""
        self._fetcher = fetcher
        if self._process is not None:
            assert self._process.stdout is not None
            with contextlib.suppress(ValueError, LookupError, TypeError):  # a line that is none of ours
                while line := await self._process.stdout.readline():
                    self._hear(json.loads(line))
            if not self._closing:
                assert self._process.stdin is not None
                self._process.stdin.close()
                code = await self._end(self._process)
                how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
                _log.warning("downloading with one process, as the second one ended %s", how)
        if not self._closing:
            self._ready = False
            left, self._given = [job for _, job in self._given.values()], {}
            fetcher.alone(left)

    def refill(self) -> None:
        """Give it as many jobs as it may have."""
        if not self._ready or len(self._given) > AHEAD // 2:
            return
        shared = self._fetcher.share(AHEAD - len(self._given), lambda host: AHEAD_OF_HOST - self._of_host[host])
        for job in shared:
            assert job.target is not None
            host = job.target.host.lower()
            self._given[job.key] = host, job
            self._of_host[host] += 1
        if shared:
            self._tell({"jobs": [[job.key, job.url, job.known and asdict(job.known)] for job in shared]})

    def pause(self, host: str, seconds: float) -> None:
        """Have a host left alone there, too."""
        if self._ready:
            self._tell({"pause": [host, seconds]})

    async def close(self) -> None:
        """Let it keep what it has finished and end."""
        self._closing = True
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._end(self._process)

    async def _end(self, process: Process) -> int:
        """Its exit status; it is killed when it does not end by itself soon."""
        try:
            async with asyncio.timeout(END_SECONDS):
                return await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            return await process.wait()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")  # that it is dead, reading will tell

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready = True
        if "results" in message:
            results: list[Result] = []
            for key, found in message["results"]:
                host, _ = self._given.pop(key)
                self._of_host[host] -= 1
                if not self._of_host[host]:
                    del self._of_host[host]
                results.append((key, Known(**found) if isinstance(found, dict) else Fault(found)))
            self._deliver(results)
        if "pause" in message:
            self._fetcher.pause(*message["pause"])
        if "broken" in message:
            self._deliver(OSError(*message["broken"]))
        self.refill()


def main() -> None:
    """Fetch what is asked for, until nothing more is asked."""
    from ._http_fetch import Fetcher

    voice = threading.Lock()

    def say(**message: Any) -> None:
        with voice, contextlib.suppress(BrokenPipeError):  # nobody is there any more; the input has ended, too
            sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
            sys.stdout.buffer.flush()

    def deliver(found: list[Result] | BaseException) -> None:
        if isinstance(found, list):
            say(results=[[key, asdict(one) if isinstance(one, Known) else one.sentence] for key, one in found])
        elif isinstance(found, OSError):
            say(broken=[found.errno, found.strerror or str(found)])
        else:
            os._exit(1)  # a mistake in here: the other process takes over

    def paused(host: str, seconds: float) -> None:
        say(pause=[host, seconds])

    asked = sys.stdin.buffer
    first = json.loads(asked.readline())
    limits, store = Limits(**first["limits"]), Store(Path(first["store"]))
    keeper = Keeper(store, deliver)
    fetcher = Fetcher(limits, Network(), incoming(store), keeper.take, keeper.broken, paused)
    keeper.released = fetcher.released
    try:
        fetcher.wait()
        say(ready=True)
        for line in asked:
            message = json.loads(line)
            if "jobs" in message:
                fetcher.submit([Job(key, url, known and Known(**known)) for key, url, known in message["jobs"]])
            if "pause" in message:
                fetcher.pause(*message["pause"])
    finally:
        fetcher.close()
        keeper.close()


if __name__ == "__main__":
    main()
