"""Starting the processes that train together, through torch's elastic launcher, and ending with them.

One that dies ends all of them, and with them the training; the same command goes on from the last checkpoint. All are
killed with their launcher, as the launcher is with the run.

On further machines, which share the home folder of the first under the same path:
``python -m darkroom.training.launch`` waits for the next training of the first one, takes part in it and ends with it.
"""

import contextlib
import os
import signal
import sys
import time
import uuid
from json import loads
from pathlib import Path

from darkroom import errors, process
from darkroom.errors import DarkroomError, RecipeError
from darkroom.settings import Settings
from darkroom.store import write_json

from .alive import Watch
from .job import Job

CALL = "machines.json"  # what the first machine leaves in the work folder for the others
TRAINER = "darkroom.training"
POLL_SECONDS = 0.5


def launch(job: Job, work: Path) -> int:
    """Train by several processes; returns the exit status.

    Raises :class:`RecipeError` where they cannot be shared out among the machines, and :class:`DarkroomError` where one
    was killed.
    """
    settings, call = Settings(), uuid.uuid4().hex
    if settings.machine:
        raise RecipeError(
            f"DARKROOM_MACHINE={settings.machine}: only the first machine, 0, begins a training; the others run "
            "`python -m darkroom.training.launch`"
        )
    local = share(job, settings)
    if settings.machines == 1:
        return start(work, settings, local, call, TRAINER)
    write_json(work / CALL, {"call": call})
    try:
        return start(work, settings, local, call, TRAINER)
    finally:
        (work / CALL).unlink(missing_ok=True)


def join(settings: Settings) -> int:
    """Wait for the next training that the first machine begins and take part in it; returns the exit status."""
    if not settings.machine:
        raise RecipeError("DARKROOM_MACHINE is 0, the first machine, which runs `darkroom run`; set it to 1 or more")
    print(f"waiting for a training below {settings.store}", flush=True)
    while not (calls := sorted(settings.store.glob(f".work/*/{CALL}"), key=lambda path: path.stat().st_mtime)):
        time.sleep(POLL_SECONDS)
    work = calls[-1].parent
    call = loads(calls[-1].read_text("utf-8"))["call"]
    return start(work, settings, share(Job.read(work), settings), call, TRAINER)


def share(job: Job, settings: Settings) -> int:
    """The processes of each machine."""
    processes = job.train.distributed.processes
    if processes % settings.machines:
        raise RecipeError(
            f"train.distributed.processes = {processes} cannot be shared out equally among DARKROOM_MACHINES="
            f"{settings.machines}: make it a multiple of it"
        )
    return processes // settings.machines


def start(work: Path, settings: Settings, local: int, call: str, module: str) -> int:
    """Start ``local`` processes here, as one of the settings' machines, and wait; returns the exit status."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    several = settings.machines > 1
    config = LaunchConfig(
        min_nodes=settings.machines,
        max_nodes=settings.machines,
        nproc_per_node=local,
        run_id=call,
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=settings.rendezvous if several and settings.rendezvous else "localhost:0",
        rdzv_configs={"rank": settings.machine, "timeout": 900} if several else {"timeout": 900},
        local_addr=None if several else "localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    # Each dies with this process, as process.spawn does it.
    guarded = ("-I", "-S", process.__file__, str(os.getpid()), "--", sys.executable, "-m", module)
    watch = Watch(work, call, settings.machine, settings.machines, settings.machine_silence) if several else None
    try:
        with watch or contextlib.nullcontext():
            elastic_launch(config, sys.executable)(*guarded, str(work), "rank")
    except ChildFailedError as failed:
        return _status(work, {rank: failure.exitcode for rank, failure in failed.failures.items()})
    except SignalException as ended:
        if watch is not None and watch.lost is not None:
            raise DarkroomError(
                f"machine {watch.lost} fell silent for {settings.machine_silence:g} s, and the training ended; "
                "the same commands go on from the last checkpoint"
            ) from None
        return _status(work, {}) or 128 + int(ended.sigval)
    return 0


def _status(work: Path, exits: dict[int, int]) -> int:
    """What a failed training ends with: the status of the error that one of the processes explained, or 1.

    Raises :class:`DarkroomError` where none could explain itself because one was killed; the others then fail for want
    of it.
    """
    if (explained := work / "error.json").exists():
        kind: type[DarkroomError] = getattr(errors, loads(explained.read_text("utf-8"))["kind"])
        return kind.exit_status
    for rank, status in sorted(exits.items()):
        if status < 0 and -status != signal.SIGTERM:  # SIGTERM is how the launcher ends the others
            raise DarkroomError(
                f"process {rank} of the training was killed by {signal.Signals(-status).name} and the others ended "
                "with it; the same command goes on from the last checkpoint"
            )
    return 1 if exits else 0


def main() -> int:
    """Join, and say in one sentence why not."""
    try:
        return join(Settings())
    except DarkroomError as error:
        print(error, file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
