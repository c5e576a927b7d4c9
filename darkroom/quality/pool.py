"""Processes that measure pictures. One that crashes or hangs is replaced, and costs the picture that made it so."""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from darkroom.errors import DarkroomError

from .picture import BATCH, Rules

Task = tuple[str, str, str]  # id, path of the bytes, path for the working copy
COMMAND = (sys.executable, "-m", "darkroom.quality.measurer")
# One thread a process; and glibc keeps the memory of one batch of pictures for the next instead of handing it back.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "64000000",
    "MALLOC_MMAP_THRESHOLD_": "16000000",
}
PATIENCE_SECONDS = 120.0  # for one picture; the largest that the default rules allow take a few seconds
START_SECONDS = 120.0  # for Python and its libraries, from a slow disk
AHEAD = 2 * BATCH  # pictures given to a process before it answers: those in its hands and the next


class Died(Exception):
    """The process ended without an answer; the message says how, as the end of "it …"."""


class Measurer:
    """One process that answers in the order of asking; a context manager, on leaving which it is gone."""

    def __init__(self, rules: Rules, command: Sequence[str], patience_seconds: float) -> None:
        self._left, self._patience = b"", patience_seconds
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print warnings about hostile bytes
            bufsize=0,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,  # Ctrl-C is for the parent: this process ends with its input
        )
        self._send(asdict(rules))

    def ready(self) -> None:
        """Wait until the process has started; raises :class:`DarkroomError` when it cannot."""
        try:
            self._read(START_SECONDS)
        except Died as error:
            raise DarkroomError(f"a process that measures pictures could not start: it {error}") from None

    def give(self, task: Task) -> None:
        """Ask about a picture."""
        self._send(task[1:])

    def answer(self) -> dict[str, Any]:
        """What was found about the first picture that has no answer yet; raises :class:`Died` when there is none."""
        found: dict[str, Any] = self._read(self._patience)
        return found

    def kill(self) -> None:
        """End the process from another thread."""
        self._process.kill()

    def __enter__(self) -> "Measurer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # that it is dead, reading will tell
            self._process.stdin.write(json.dumps(value).encode() + b"\n")

    def _read(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        handle, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._left:
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Died(f"gave no answer within {seconds:g} seconds")
            more = os.read(handle, 1 << 16)
            if not more:
                code = self._process.wait()
                raise Died(f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}")
            self._left += more
        line, self._left = self._left.split(b"\n", 1)
        return json.loads(line)


class Pool:
    """Several :class:`Measurer`, each fed by a thread. :meth:`next` gives what is done, in any order."""

    def __init__(
        self,
        tasks: Sequence[Task],
        rules: Rules,
        workers: int,
        command: Sequence[str] = COMMAND,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._tasks, self._rules, self._command, self._patience = deque(tasks), rules, command, patience_seconds
        self._done: queue.SimpleQueue[tuple[str, dict[str, Any]] | BaseException] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._running: set[Measurer] = set()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def next(self) -> tuple[str, dict[str, Any]]:
        """(id, what was found) of a picture; raises what a thread met that is no fault of a picture."""
        found = self._done.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End all processes and threads."""
        with self._lock:
            self._closed = True
            for measurer in self._running:
                measurer.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Have tasks done until there are none; what dies is replaced."""
        try:
            while self._tasks and not self._closed:
                with self._measurer() as measurer:
                    self._feed(measurer)
        except BaseException as error:
            self._done.put(error)

    def _feed(self, measurer: Measurer) -> None:
        """Give tasks to a process, a few ahead, and pass on its answers, until it dies or none are left."""
        given: deque[Task] = deque()
        while not self._closed:
            while len(given) < self._share() and (task := self._take()):
                given.append(task)
                measurer.give(task)
            if not given:
                return
            try:
                found = measurer.answer()
            except Died:
                suspects, innocent = list(given)[:BATCH], list(given)[BATCH:]  # what it had in hand, and the rest
                with self._lock:
                    self._tasks.extend(innocent)
                for suspect in suspects:
                    if not self._closed:
                        self._done.put((suspect[0], self._alone(suspect)))
                return
            self._done.put((given.popleft()[0], found))

    def _alone(self, task: Task) -> dict[str, Any]:
        """A second try in a process of its own: memory may have run out for another's sake."""
        with self._measurer() as measurer:
            measurer.give(task)
            try:
                return measurer.answer()
            except Died as error:
                return {"lost": f"the process that decoded it {error}"}

    @contextlib.contextmanager
    def _measurer(self) -> Iterator[Measurer]:
        with Measurer(self._rules, self._command, self._patience) as measurer:
            with self._lock:
                self._running.add(measurer)
            try:
                measurer.ready()
                yield measurer
            finally:
                with self._lock:
                    self._running.discard(measurer)

    def _share(self) -> int:
        """How many tasks a process may have: towards the end fewer, so that all end together."""
        return max(1, min(AHEAD, len(self._tasks) // len(self._threads)))

    def _take(self) -> Task | None:
        with self._lock:
            return self._tasks.popleft() if self._tasks else None
