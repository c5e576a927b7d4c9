"""``python -m darkroom.training.measure WORK``: time a few of everything that the job of a work folder will do.

It leaves ``measured.json``: seconds of one of each, and bytes. Nothing that it trains is kept.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from darkroom.devices import prepare
from darkroom.errors import DarkroomError, OutOfMemory
from darkroom.evaluation.samples import save_pictures
from darkroom.recipe import Evaluate
from darkroom.store import write_json

from . import compute, memory
from .estimate import MEASURED
from .job import Job
from .methods import Method, method
from .packages import available
from .rehearsal import rehearse
from .state import State, averaged
from .step import Refused, take_step

WARM_UP = 3  # steps that are not counted: the first ones prepare kernels
LEAST_STEPS, MOST_STEPS, STEP_SECONDS = 5, 40, 8.0


def measure(job: Job, plan: Evaluate, work: Path, began: float) -> dict[str, Any]:
    """Seconds of a step, a validation, a grid, a checkpoint, and of what evaluation does; bytes at most and on disk.

    ``began``: when the process started, in seconds of ``time.time``. Raises what training would before its first step.
    """
    available(job.train)
    prepare(job.train.threads, job.device)
    task = method(job, torch.device(job.device))
    compute.arrange(task.networks(), job.train)
    state = State(task)
    seen = rehearse(task, state, work)
    start = time.time() - began
    found: dict[str, Any] = {"step": _step(task, state)}
    with averaged(task.players[0]):
        with compute.precise(job.train, task.device):
            found["validation"] = _seconds(task.validate)
        found["grid"] = _seconds(lambda: task.sheet().save(work / "grid.png"))
        found["pipeline"] = _seconds(lambda: task.save(work / "pipeline"))
        found |= _evaluation(task, plan, job.device)
    found["checkpoint"] = _seconds(lambda: state.save(work, 1))
    return {
        "seconds": found | {"start": start},
        "peak_bytes": seen.peak_bytes,
        "checkpoint_bytes": _size(work / "checkpoints/step-00000001"),
        "pipeline_bytes": _size(work / "pipeline"),
    }


def _step(task: Method, state: State) -> float:
    """Mean seconds of a whole step."""
    step, clock = 0, time.monotonic()
    while step < MOST_STEPS + WARM_UP:
        batch = task.batch(step)
        for player in task.players:
            try:
                take_step(task, state, player, batch, step, 0.0)  # at a rate of nothing, nothing diverges
            except Refused:
                continue
        step += 1
        if step == WARM_UP:
            clock = time.monotonic()
        if step >= WARM_UP + LEAST_STEPS and time.monotonic() - clock > STEP_SECONDS:
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


def main(work: Path) -> int:
    """Measure the job of a folder; returns the exit status, with ``error.json`` where it is not 0."""
    import json

    began = time.time()
    plan = Evaluate.model_validate(json.loads((work / "evaluate.json").read_text("utf-8")))
    try:
        write_json(work / MEASURED, measure(Job.read(work), plan, work, began))
    except (DarkroomError, MemoryError, RuntimeError) as error:
        said = OutOfMemory(str(error)) if memory.ran_out(error) else error
        if not isinstance(said, DarkroomError):
            raise
        write_json(work / "error.json", {"kind": type(said).__name__, "message": str(said)})
        return said.exit_status
    finally:
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
