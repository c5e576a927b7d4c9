"""The worker that `darkroom up` starts, `python -m flows.worker PORT`: Prefect's own, whose runs die with it.

A run that outlived its worker would hold the GPU while nobody watches it. So each is started through the launcher of
:mod:`darkroom.process`, which asks the kernel to kill it with the worker, however that ends.
"""

import contextlib
import hashlib
import os
import platform
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from darkroom import process
from darkroom.settings import Settings

from . import health, prefect_server

START_SECONDS = 240.0
GRACE_SECONDS = 12.0  # for runs to save and end; `down` waits a little longer


class Bound(ProcessJobConfiguration):
    """A run that is bound to this process."""

    def prepare_for_flow_run(self, *arguments: Any, **options: Any) -> None:
        """As Prefect does, with a command of our own where none is configured."""
        if self.command is None:
            engine = [sys.executable, "-P", "-m", "prefect.engine"]
            self.command = shlex.join(process.bound(engine))
        self.env = {**prefect_server.HEARTBEATS, **self.env}  # what automations and the supervisor rely on
        super().prepare_for_flow_run(*arguments, **options)


def name_of(settings: Settings) -> str:
    """The worker's name on Prefect's page: this machine's, and a few letters for its home folder."""
    return f"{platform.node()}-{hashlib.sha256(os.fsencode(settings.root)).hexdigest()[:6]}"


def main(port: int) -> None:
    """Work until SIGTERM or Ctrl-C; then the runs end, too."""
    settings, begun = Settings(), time.monotonic()
    every = get_current_settings().worker.query_seconds
    beats = int(get_current_settings().worker.heartbeat_seconds)
    worker = ProcessWorker(settings.pool, name=name_of(settings), heartbeat_interval_seconds=beats)
    worker.job_configuration = Bound
    api = str(get_current_settings().api.url)
    up: list[bool] = []
    health.serve(
        port,
        lambda: worker.is_worker_still_polling(every) if up else time.monotonic() - begun < START_SECONDS,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while not prefect_server.answers(f"{api}/health"):
            if time.monotonic() - begun > START_SECONDS:
                sys.exit(f"Prefect's API at {api} does not answer")
            time.sleep(0.5)
        up.append(True)
        anyio.run(worker.start)
    except KeyboardInterrupt:
        print("the worker was asked to end, and its runs ended with it", flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as by Ctrl-C, after the runs: `down` asks them, too, and a training saves what it has."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end and any(process.started(pid) for pid in _children()):
        time.sleep(0.1)
    signal.raise_signal(signal.SIGINT)  # which asyncio knows how to end by


def _children() -> list[int]:
    """The processes that this one started, on Linux."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
