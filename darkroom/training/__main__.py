"""``python -m darkroom.training WORK``: train the job of a work folder, in a process of its own.

What it cannot do it explains in ``error.json`` (the error's class and message), and exits with that error's status.
"""

import errno
import fcntl
import sys
from pathlib import Path

from darkroom.errors import DarkroomError, DiskFull, OutOfMemory
from darkroom.store import write_json

from .job import Job


def main(work: Path) -> int:
    """Train; returns the exit status."""
    with (work / "trainer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a trainer of a killed run may still be dying
        (work / "error.json").unlink(missing_ok=True)
        try:
            from .loop import train

            train(Job.read(work), work)
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
            half = max(1, (plan.micro_batch or plan.batch) // 2)
            words = (
                f"training ran out of memory: {error}; set train.micro_batch = {half}: it goes on from its checkpoint"
            )
            return _explain(work, OutOfMemory(words))
    return 0


def _explain(work: Path, error: DarkroomError) -> int:
    write_json(work / "error.json", {"kind": type(error).__name__, "message": str(error)})
    return error.exit_status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
