"""``python -m darkroom.training.measure WORK``: time a few of everything that the job of a work folder will do.

It leaves ``measured.json``: seconds of one of each, and bytes. Nothing that it trains is kept. A job for several
processes is measured by those of this machine, which :mod:`darkroom.training.launch` starts with ``rank`` after it.
"""

import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from darkroom.devices import prepare
from darkroom.errors import DarkroomError, OutOfMemory
from darkroom.evaluation.samples import save_pictures
from darkroom.recipe import Evaluate
from darkroom.settings import Settings
from darkroom.store import write_json

from . import compute, memory
from .estimate import MEASURED
from .job import FILE, Job
from .methods import Method, method
from .packages import available
from .rehearsal import leave_start, rehearse
from .state import State, averaged
from .step import Refused, take_step
from .team import Team

WARM_UP = 3  # steps that are not counted: the first ones prepare kernels
LEAST_STEPS, MOST_STEPS, STEP_SECONDS = 5, 40, 8.0


def measure(job: Job, plan: Evaluate, work: Path, began: float, team: Team) -> dict[str, Any]:
    """Seconds of a step, a validation, a grid, a checkpoint, and of what evaluation does; bytes at most and on disk.

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
            found |= _evaluation(task, plan, job.device)
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


def _evaluation(task: Method, plan: Evaluate, device: str) -> dict[str, float]:
    """Seconds of a batch that is drawn, and of a picture's features; nothing for what does not draw by a pipeline."""
    pipeline = getattr(task, "pipeline", None)
    if pipeline is None:
        return {}
    from darkroom.diffusion.sampling import draw
    from darkroom.evaluation.features import folder_features, load

    prompts = (list(task.job.train.prompts) or [""]) * plan.sampler.batch
    pictures: list[Any] = []
    seconds = _seconds(lambda: pictures.extend(draw(pipeline, prompts[: plan.sampler.batch], 0, plan.sampler)))
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        save_pictures(pictures, Path(name))
        network = load(plan.features, device, plan.layer)
        features = _seconds(lambda: folder_features(Path(name), network)) / len(pictures)
    return {"draw": seconds, "features": features}


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
    began, job = time.time(), Job.read(work)
    if (processes := job.train.distributed.processes) > 1:
        from .launch import start

        return start(work, Settings(machines=1, machine=0), processes, uuid.uuid4().hex, "darkroom.training.measure")
    write_json(work / MEASURED, measure(job, _plan(work), work, began, Team()))
    return 0


def rank(work: Path) -> int:
    """Measure as one of several."""
    from .distributed import joined

    with joined(Job.read(work)) as (job, team):
        found = measure(job, _plan(work), work, (work / FILE).stat().st_mtime, team)
        if team.leads:
            write_json(work / MEASURED, found)
        team.part()
    return 0


def _plan(work: Path) -> Evaluate:
    return Evaluate.model_validate_json((work / "evaluate.json").read_text("utf-8"))


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
    sys.exit(main(Path(sys.argv[1]), rank if sys.argv[2:] == ["rank"] else alone))
