"""Fetching many addresses at once in an event loop of its own thread: limits, tries, timeouts, redirects, size caps.

What comes out of it is an :data:`Outcome` for every :class:`Job`, in the order of completion; nothing raises.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ._http_request import Body, Disk, Fault, Job, Outcome, Requests, parse
from ._http_rules import Limits, Network

if TYPE_CHECKING:
    from ._http_second import Second

LONGEST_RETRY_AFTER_SECONDS = 60.0
DEAD_AFTER = 20  # pictures in a row that a host did not answer for at all, with all their tries
HELD_BYTES = 64 << 20  # bodies in memory that are not on disk yet; beyond it no download starts


@dataclass(slots=True)
class _Host:
    name: str
    waiting: deque[Job] = field(default_factory=deque)
    active: int = 0
    listed: bool = False
    paused: bool = False
    unanswered: int = 0


class _Moved(Exception):
    """A redirect to another host, whose turn the job must wait for."""


class Fetcher:
    """A thread that fetches the jobs it is given and calls ``done(job, outcome)``, in that thread, for each.

    ``broken(error)`` is called when the thread cannot go on: the disk is full, or there is a mistake in here.
    ``paused(host, seconds)`` is called when a host asks to be left alone for so long. A ``second`` process gets a share
    of the jobs, within limits that it and this one keep together; what it has done it tells by itself.
    """

    def __init__(
        self,
        limits: Limits,
        network: Network,
        downloads: Path,
        done: Callable[[Job, Outcome], None],
        broken: Callable[[BaseException], None],
        paused: Callable[[str, float], None] = lambda host, seconds: None,
        second: "Second | None" = None,
    ) -> None:
        self._whole, self._limits = limits, limits if second is None else limits.halves()[0]
        self._network, self._downloads = network, downloads
        self._done, self._broken, self._paused = done, broken, paused if second is None else second.pause
        self._second = second
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[_Host] = deque()  # hosts that a job can be taken from
        self._held = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._requests: Requests
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._main, name="http-fetch", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it is ready to fetch, or has failed to be."""
        self._started.wait()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Fetch these, too."""
        self._started.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended, and ``broken`` was told why
            self._loop.call_soon_threadsafe(self._add, jobs)

    def released(self, size: int) -> None:
        """So many bytes of bodies in memory were put on disk."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._release, size)

    def pause(self, host: str, seconds: float) -> None:
        """Leave a host alone for so long; another process was told to."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._pause, host, seconds)

    def close(self) -> None:
        """Cancel what is under way and wait until it is closed."""
        self._started.wait()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._broken(error)
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._second is not None:
            await self._second.start()
        self._requests = Requests(self._limits, self._network, self._downloads)
        second = self._second
        try:
            beside = None if second is None else self._loop.create_task(second.serve(self))
            self._started.set()
            await self._stop.wait()
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            if second is not None and beside is not None:
                await second.close()
                await beside
        finally:
            await self._requests.close()

    # ---- whose turn it is ----

    def _add(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                job.target = parse(job.url)
            except Fault as fault:
                self._done(job, fault)
            else:
                self._enqueue(job)
        self._pump()
        if self._second is not None:
            self._second.refill()

    def share(self, most: int, room_of: Callable[[str], int]) -> list[Job]:
        """Jobs for the other process: at most ``most``, of each host what it has room for, and half of what waits.

        They are taken from the ends of the queues, at whose heads are those that were begun. To be called in the loop.
        """
        shared: list[Job] = []
        for host in self._hosts.values():
            room = 0 if host.paused or host.unanswered else (len(host.waiting) + 1) // 2
            for _ in range(min(room, most - len(shared), room_of(host.name))):
                if host.waiting[-1].failures or host.waiting[-1].redirects:
                    break
                shared.append(host.waiting.pop())
            if len(shared) >= most:
                break
        return shared

    def alone(self, jobs: Sequence[Job]) -> None:
        """Go on without the other process, which has left these jobs undone. To be called in the loop."""
        self._second, self._limits = None, self._whole
        self._add(jobs)

    def _enqueue(self, job: Job, *, first: bool = False) -> None:
        assert job.target is not None
        name = job.target.host.lower()
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(name)
        if first:
            host.waiting.appendleft(job)  # a job that was begun is ended before others are
        else:
            host.waiting.append(job)
        self._list(host)

    def _list(self, host: _Host) -> None:
        """Put the host among those that a job can be taken from, if one can; forget it when nothing is left of it."""
        if not host.waiting:
            if not host.active and not host.paused and not host.unanswered:
                self._hosts.pop(host.name, None)
        elif not host.listed and not host.paused and host.active < self._limits.per_host:
            host.listed = True
            self._ready.append(host)

    def _pump(self) -> None:
        """Start as many workers as there is room and work for."""
        waiting = sum(len(host.waiting) for host in self._first_ready())
        for _ in range(min(self._limits.concurrency - len(self._workers), waiting)):
            worker = self._loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._broken(error.__cause__ if isinstance(error, Disk) and error.__cause__ else error)
        elif not self._stop.is_set():
            self._pump()  # for what came in when this one had found nothing to do but still counted

    def _first_ready(self) -> Iterator[_Host]:
        for index in range(min(len(self._ready), self._limits.concurrency)):
            yield self._ready[index]

    def _take(self) -> tuple[_Host, Job] | None:
        if self._held > HELD_BYTES or self._stop.is_set():
            return None
        while self._ready:
            host = self._ready.popleft()
            host.listed = False
            if host.waiting:
                job = host.waiting.popleft()
                host.active += 1
                self._list(host)
                return host, job
            self._list(host)  # the other process has what waited here
        return None

    async def _work(self) -> None:
        while (taken := self._take()) is not None:
            host, job = taken
            outcome: Outcome | _Moved
            started = time.monotonic()
            try:
                outcome = await self._fetch(host, job)
            except (Fault, _Moved) as ended:
                outcome = ended
            except Disk:
                raise
            except Exception as error:  # whatever a server thinks of, it ends one row and not the run
                outcome = Fault(f"it cannot be fetched ({type(error).__name__})")
            job.spent += time.monotonic() - started
            self._settle(host, job, outcome)
            host.active -= 1
            self._list(host)

    def _settle(self, host: _Host, job: Job, outcome: "Outcome | _Moved") -> None:
        if isinstance(outcome, _Moved):
            self._enqueue(job, first=True)
            self._pump()
            return
        if not isinstance(outcome, Fault) or outcome.answered:
            host.unanswered = 0
        if isinstance(outcome, Fault) and outcome.transient:
            job.failures += 1
            delay = self._network.backoff(job.failures)
            if outcome.after is not None:
                delay = max(delay, min(outcome.after, LONGEST_RETRY_AFTER_SECONDS))
            limits = self._limits
            if not outcome.last and job.failures <= limits.retries and job.spent + delay < limits.total_timeout:
                job.spent += delay
                self._loop.call_later(delay, self._again, job)
                if outcome.sentence == "HTTP 429" and not host.paused:  # it is all of ours that are too many
                    self._pause(host.name, delay)
                    self._paused(host.name, delay)
                return
            if not outcome.answered and host.unanswered < DEAD_AFTER:
                host.unanswered += 1
            if job.failures > 1 and not outcome.last:
                outcome = Fault(f"{outcome.sentence}, {job.failures} tries", transient=True)
        if isinstance(outcome, Body) and isinstance(outcome.content, bytes):
            self._held += outcome.size
        self._done(job, outcome)

    def _again(self, job: Job) -> None:
        job.target, job.redirects = parse(job.url), 0  # from the beginning: a redirect may lead elsewhere this time
        self._enqueue(job, first=True)
        self._pump()

    def _pause(self, name: str, delay: float) -> None:
        host = self._hosts.setdefault(name, _Host(name))
        if host.paused:
            return
        host.paused = True
        if host.listed:
            host.listed = False
            self._ready.remove(host)
        self._loop.call_later(delay, self._resume, host)

    def _resume(self, host: _Host) -> None:
        host.paused = False
        self._list(host)
        self._pump()

    def _release(self, size: int) -> None:
        self._held -= size
        self._pump()

    async def _fetch(self, host: _Host, job: Job) -> Outcome:
        if host.unanswered >= DEAD_AFTER:
            sentence = f"not tried: {host.name} did not answer for {host.unanswered} pictures in a row"
            raise Fault(sentence, transient=True, answered=False, last=True)
        left = self._limits.total_timeout - job.spent
        try:
            async with asyncio.timeout(left) as limit:
                while True:
                    outcome = await self._requests.request(job)
                    if outcome is not None:
                        return outcome
                    assert job.target is not None
                    if job.target.host.lower() != host.name:
                        raise _Moved
        except TimeoutError as error:
            if limit.expired():
                sentence = f"timed out after {self._limits.total_timeout:g} s in all"
                raise Fault(sentence, transient=True, last=True) from error
            raise
