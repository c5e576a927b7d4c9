"""``python -m darkroom.training.measure WORK``: time a few of everything that the job of a work folder will do.

It leaves ``measured.json``: seconds of one of each, and bytes; nothing else of what it trains is kept but
``pipeline/``. A job for several processes is measured by those of this machine, which :mod:`darkroom.training.launch`
starts with ``rank`` after it. With ``judge`` after it: time the evaluation of that pipeline, in a process of its own
as a run's is, and leave ``judged.json``.
"""

import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from darkroom.artifacts import Checkpoint, Shards
from darkroom.devices import prepare
from darkroom.diffusion.pipeline import load_pipeline
from darkroom.errors import DarkroomError, OutOfMemory
from darkroom.evaluation.evaluate import evaluate
from darkroom.evaluation.samples import Drawer
from darkroom.recipe import Evaluate
from darkroom.settings import Settings
from darkroom.store import Store, write_json

from . import compute, memory
from .estimate import JUDGED, MEASURED, PLAN
from .job import FILE, Job
from .methods import Method, method
from .packages import available
from .rehearsal import leave_start, rehearse
from .state import State, averaged
from .step import Refused, take_step
from .team import Team

WARM_UP = 3  # steps that are not counted: the first ones prepare kernels
LEAST_STEPS, MOST_STEPS, STEP_SECONDS = 5, 40, 8.0


def measure(job: Job, work: Path, began: float, team: Team) -> dict[str, Any]:
    """Seconds of a step, a validation, a grid and a checkpoint; bytes at most and on disk.

    ``began``: when the process started, in seconds of ``time.time``. Raises what training would before its first step.
    """
    available(job.train)
    prepare(job.train.threads, job.device)
    with team.first():
        task = method(job, torch.device(job.device))
    compute.arrange(task.networks(), job.train)
    team.enlist(task.players)
    state = State(task, team)
    if team.size > 1:
        memory.forget_peak(task.device)
        leave_start(state, work)
        peak = 0
    else:
        peak = rehearse(task, state, work).peak_bytes
    start = time.time() - began
    found: dict[str, Any] = {"step": _step(task, state)}
    found["checkpoint"] = _seconds(lambda: state.save(work, 1))
    with averaged(task.players[0]):
        if team.looks:
            with compute.precise(job.train, task.device):
                found["validation"] = _seconds(task.validate)
            found["grid"] = _seconds(lambda: _draw(task, work, team))
            peak = peak or memory.peak(task.device)
        team.collect(task.players[0])
        if not team.leads:
            return {}
        found["pipeline"] = _seconds(lambda: task.save(work / "pipeline"))
    return {
        "seconds": found | {"start": start},
        "peak_bytes": peak,
        "checkpoint_bytes": _size(work / "checkpoints/step-00000001"),
        "pipeline_bytes": _size(work / "pipeline"),
    }


def _draw(task: Method, work: Path, team: Team) -> None:
    sheet = task.sheet()
    if team.leads:
        sheet.save(work / "grid.png")


def _step(task: Method, state: State) -> float:
    """Mean seconds of a whole step."""
    step, clock = 0, time.monotonic()
    while step < MOST_STEPS + WARM_UP:
        batch = state.team.share(task.batch(step))
        for player in task.players:
            try:
                take_step(task, state, player, batch, step, 0.0)  # at a rate of nothing, nothing diverges
            except Refused:
                continue
        step += 1
        if step == WARM_UP:
            clock = time.monotonic()
        late = time.monotonic() - clock > STEP_SECONDS
        if step >= WARM_UP + LEAST_STEPS and state.team.any(late):
            break
    return (time.monotonic() - clock) / (step - WARM_UP)


def judge(work: Path) -> int:
    """Measure the evaluation of the pipeline that :func:`measure` left: all of it with one batch of pictures, and what
    each further batch takes.
    """
    began, job, plan = _born(work / PLAN), Job.read(work), _plan(work)
    checkpoint, shards = Checkpoint("0" * 64, work), Shards(job.digests["shards"], job.shards)
    store = Store(work / "store", job.reserve)
    batch, threads = plan.sampler.batch, job.train.threads
    one = plan.model_copy(update={"count": max(2, batch), "denoising_timesteps": 1})
    evaluate(checkpoint, shards, one, store, threads=threads, device=job.device)
    seconds = {"evaluation": time.time() - began}
    if (work / "pipeline/model_index.json").is_file():  # an autoencoder draws nothing: that was all
        pipeline = load_pipeline(work / "pipeline", job.device)
        more = Drawer(
            checkpoint, shards, plan, plan.noise_seed, store, threads=threads, device=job.device, pipeline=pipeline
        )
        span = (one.count or batch, (one.count or batch) + batch)
        seconds["batch"] = _seconds(lambda: (more.samples(*span), more.features(*span), more.scores(*span)))
    write_json(work / JUDGED, seconds)
    return 0


def _born(told: Path) -> float:
    """When this process was started, in seconds of ``time.time``: this file was written right before."""
    return told.stat().st_mtime


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - start


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def alone(work: Path) -> int:
    """Measure by this process, or start several that do."""
    began, job = _born(work / FILE), Job.read(work)
    if (processes := job.train.distributed.processes) > 1:
        from .launch import start

        return start(work, Settings(machines=1, machine=0), processes, uuid.uuid4().hex, "darkroom.training.measure")
    write_json(work / MEASURED, measure(job, work, began, Team()))
    return 0


def rank(work: Path) -> int:
    """Measure as one of several."""
    from .distributed import joined

    with joined(Job.read(work)) as (job, team):
        found = measure(job, work, _born(work / FILE), team)
        if team.leads:
            write_json(work / MEASURED, found)
        team.part()
    return 0


def _plan(work: Path) -> Evaluate:
    return Evaluate.model_validate_json((work / PLAN).read_text("utf-8"))


def main(work: Path, run: Callable[[Path], int]) -> int:
    """Measure the job of a folder; returns the exit status, with ``error.json`` where it is not 0."""
    try:
        return run(work)
    except (DarkroomError, MemoryError, RuntimeError) as error:
        said = OutOfMemory(str(error)) if memory.ran_out(error) else error
        if not isinstance(said, DarkroomError):
            raise
        write_json(work / "error.json", {"kind": type(said).__name__, "message": str(said)})
        return said.exit_status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), {"rank": rank, "judge": judge}.get("".join(sys.argv[2:]), alone)))
