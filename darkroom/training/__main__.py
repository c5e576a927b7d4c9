"""``python -m darkroom.training WORK``: train the job of a work folder, in a process of its own or in several.

With ``rank`` after it: be one of those several, which :mod:`darkroom.training.launch` starts.

What it cannot do it explains in ``error.json`` (the error's class and message), and exits with that error's status.
"""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from darkroom.errors import DarkroomError, DiskFull, OutOfMemory
from darkroom.settings import Settings
from darkroom.store import write_json

from .job import Job

# What gloo and NCCL say when they hear no more from another process; it has no class of its own.
LOST = re.compile(
    r"[Cc]onnection (was )?(reset|closed|refused)|[Bb]roken pipe|[Rr]ead error|[Tt]imed out|remote process"
)


def main(work: Path) -> int:
    """Train; returns the exit status."""
    with (work / "trainer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a trainer of a killed run may still be dying
        (work / "error.json").unlink(missing_ok=True)
        return _explained(work, _train)


def rank(work: Path) -> int:
    """Take part in a training by several processes; returns the exit status."""
    return _explained(work, _take_part)


def _train(work: Path) -> int:
    job = Job.read(work)
    if job.train.distributed.processes > 1:
        from .launch import launch

        return launch(job, work)
    from .loop import train

    train(job, work)
    return 0


def _take_part(work: Path) -> int:
    from .distributed import joined
    from .loop import train

    with joined(Job.read(work)) as (job, team):

        def run(work: Path) -> int:
            try:
                train(job, work, team)
            except RuntimeError as error:
                if Settings().machines == 1 or not LOST.search(str(error)):
                    raise  # on one machine the launcher knows what became of each process
                raise DarkroomError(
                    "the connection to the other machines was lost: one is gone, or says itself why it ended; "
                    "the same commands go on from the last checkpoint"
                ) from error
            team.part()
            return 0

        return _explained(work, run)  # before the others see that this one left


def _explained(work: Path, run: Callable[[Path], int]) -> int:
    try:
        return run(work)
    except DarkroomError as error:
        return _explain(work, error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _explain(work, DiskFull(f"the disk below {work} is full ({error}); make room and run it again"))
    except (MemoryError, RuntimeError) as error:
        from . import memory

        if not memory.ran_out(error):
            raise
        plan = Job.read(work).train
        half = max(1, (plan.micro_batch or plan.batch // plan.distributed.processes) // 2)
        words = f"training ran out of memory: {error}; set train.micro_batch = {half}: it goes on from its checkpoint"
        return _explain(work, OutOfMemory(words))


def _explain(work: Path, error: DarkroomError) -> int:
    folder = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # several processes may fail at once
        if not (work / "error.json").exists():  # the first of them knows why
            write_json(work / "error.json", {"kind": type(error).__name__, "message": str(error)})
    finally:
        os.close(folder)
    return error.exit_status


if __name__ == "__main__":
    sys.exit((rank if sys.argv[2:] == ["rank"] else main)(Path(sys.argv[1])))
