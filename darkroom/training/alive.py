"""Machines that train together show each other that they are there, by files in the work folder that they share.

A machine whose processes end closes its connections, and the others hear it. One that loses its power or its network
closes nothing: what waits for it would wait for gloo's whole timeout.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from darkroom.store import write_json

FOLDER = "alive"
BEATS = 6  # signs of life within the silence that is allowed
POLL_SECONDS, PARTING_SECONDS = 0.05, 5.0  # how the first machine waits for the others' last word


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # the launcher ends its processes, then itself


class Watch:
    """The context in which this machine is heard of, and hears of the others.

    ``call``: the training's name for this attempt, so that what an earlier one left is no sign. ``silence``: seconds
    without a sign of another machine, once there was one, after which :attr:`lost` is its number and ``end`` is called.
    A machine that leaves the context is not missed.
    """

    def __init__(
        self, work: Path, call: str, machine: int, machines: int, silence: float, end: Callable[[], None] = _end
    ) -> None:
        self.lost: int | None = None
        self._first = machine == 0  # it takes the folder away
        self._own = work / FOLDER / str(machine)
        self._others = [work / FOLDER / str(number) for number in range(machines) if number != machine]
        self._call, self._silence, self._end = call, silence, end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="alive", daemon=True)

    def __enter__(self) -> "Watch":
        self._own.parent.mkdir(exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._own.unlink(missing_ok=True)
        if self._first:
            late = time.monotonic() + PARTING_SECONDS
            while failed is None and time.monotonic() < late and any(map(self._sign, self._others)):
                time.sleep(POLL_SECONDS)
            shutil.rmtree(self._own.parent, ignore_errors=True)

    def _watch(self) -> None:
        heard: dict[Path, tuple[str, float]] = {}  # the last sign, and when it was first seen
        beat = 0
        while not self._over.is_set():
            try:
                write_json(self._own, {"call": self._call, "beat": beat})
                signs = {other: self._sign(other) for other in self._others}
            except FileNotFoundError:
                return  # the first machine is done, and took the folder away
            except OSError:  # a full disk, a file server that stumbles: the trainer meets it where it matters
                signs = {}
            beat += 1
            for other, sign in signs.items():
                if sign is None:
                    heard.pop(other, None)
                elif other not in heard or heard[other][0] != sign:
                    heard[other] = sign, time.monotonic()
            silent = [other for other, (_, since) in heard.items() if time.monotonic() - since > self._silence]
            if silent:
                self.lost = int(silent[0].name)
                self._end()
                return
            self._over.wait(self._silence / BEATS)

    def _sign(self, other: Path) -> str | None:
        try:
            sign = other.read_text("utf-8")
        except FileNotFoundError:
            return None
        return sign if json.loads(sign)["call"] == self._call else None
