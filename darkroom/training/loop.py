"""The training loop, to be read from top to bottom. To resume, run it again in the same work folder.

Each step's pictures, noise, times and dropped captions follow from (seed, step) alone: a training that was killed and
resumed ends, on a CPU with the same number of threads, in the same bytes as one that never was.
"""

import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from darkroom.devices import prepare
from darkroom.diffusion.ema import Averaged
from darkroom.errors import Diverged
from darkroom.store import need_room, write_json

from . import checkpoints
from .events import Events
from .job import Job
from .methods import Batch, Method, Player, method
from .optimizers import learning_rate
from .stop import Stop

DONE = "trained.json"


def train(job: Job, work: Path) -> None:
    """Train to the end, leaving ``pipeline/``, ``grids/`` and ``events.jsonl`` in ``work``.

    Raises :class:`Diverged` when the loss is no longer finite and :class:`Interrupted` on SIGTERM, after saving.
    """
    if (work / DONE).exists():
        return
    stop = Stop()
    prepare(job.train.threads, job.device)
    job, recipe = replace(job, work=work), job.train

    # The data, the model, its averaged weights and its optimiser.
    task = method(job, torch.device(job.device))
    model = task.players[0]
    need_room(work, checkpoints.room(task.players) + job.reserve, "training")

    # Where the last attempt stopped.
    start = 0
    if (resumed := checkpoints.newest(work)) is not None:
        start, saved = resumed
        checkpoints.restore(task.players, saved)
    events = Events(work, start)

    def look(step: int, validate: bool = True, draw_grid: bool = True) -> None:
        """The validation loss and the grid, where they are due; the model is afterwards as it was before."""
        if validate and (step % recipe.validate_every == 0 or step == recipe.steps):
            with averaged(model):
                found = task.validate()
            events.say(step, metrics=found)
        if draw_grid and step % recipe.grid_every == 0 and step < recipe.steps:
            sample(task, work, events, step)

    # The loop. A stop between two steps saves the last one; all else that is cut short is done again.
    clock, seen = time.monotonic(), start
    if start:
        look(start, events.lacks("validation/loss"), events.lacks("grid"))
    for step in range(start, recipe.steps):
        stop.hold()
        rate = learning_rate(recipe, step)
        batch = task.batch(step)
        told: dict[str, torch.Tensor] = {}
        for player in task.players:
            if step >= player.start:
                told |= take_step(task, player, batch, step, rate)

        done, last = step + 1, step + 1 == recipe.steps
        if done % recipe.log_every == 0 or last:
            passed = time.monotonic() - clock
            speed = (done - seen) * recipe.batch / max(passed, 1e-9)
            values = {name: value.item() for name, value in told.items()}
            events.say(
                done,
                metrics={
                    **values,
                    "train/learning_rate": rate,
                    "train/pictures_per_second": round(speed, 1),
                },
            )
            clock, seen = time.monotonic(), done
        if done % recipe.checkpoint_every == 0 or last or stop.asked:
            checkpoints.save(work, done, checkpoints.state(task.players))
        stop.release(f"training stopped at step {done} of {recipe.steps}; the same command goes on from there")
        look(done)

    # The finished model: the averaged weights, as an ordinary diffusers pipeline.
    if start < recipe.steps or events.lacks("grid"):
        sample(task, work, events, recipe.steps)
    with averaged(model):
        target, temporary = work / "pipeline", work / ".pipeline.tmp"
        for folder in (target, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        task.save(temporary)
        os.replace(temporary, target)
    events.close()
    write_json(work / DONE, {"steps": recipe.steps})
    shutil.rmtree(work / "checkpoints", ignore_errors=True)


def take_step(task: Method, player: Player, batch: Batch, step: int, rate: float) -> dict[str, torch.Tensor]:
    """One step of one player, in parts where the recipe says so; returns what is to be told of it."""
    recipe = task.job.train
    for group in player.optimizer.param_groups:
        group["lr"] = rate * player.rate
    size = recipe.micro_batch or len(batch)
    prefix = "train/" if player is task.players[0] else f"train/{player.name}_"
    told: dict[str, torch.Tensor] = {}
    for first in range(0, len(batch), size):
        part = batch.part(first, first + size) if size < len(batch) else batch
        share = len(part) / len(batch)
        found = task.loss(player, part, step)
        (found.value if share == 1 else found.value * share).backward()
        for name, value in {"loss": found.value, **found.metrics}.items():
            told[prefix + name] = told.get(prefix + name, 0) + value.detach() * share
    norm = torch.nn.utils.clip_grad_norm_(player.parameters.values(), recipe.clip_gradient_norm or math.inf)
    if not torch.isfinite(norm):
        raise Diverged(
            f"training diverged at step {step}: the loss is {told[prefix + 'loss'].item()}; "
            f"lower train.learning_rate ({recipe.learning_rate}) or train more warm-up steps"
        )
    player.optimizer.step()
    player.optimizer.zero_grad(set_to_none=True)
    if player.ema is not None:
        player.ema.update(player.parameters, step)
    return told | {f"{prefix}gradient_norm": norm}


def sample(task: Method, work: Path, events: Events, step: int) -> None:
    """Draw and tell the sample sheet of a step."""
    (work / "grids").mkdir(exist_ok=True)
    name = f"grids/{step:08d}.png"
    with averaged(task.players[0]):
        sheet = task.sheet()
    sheet.save(work / name)
    events.say(step, grid=name)


def averaged(player: Player) -> Averaged:
    """The context in which a player has its averaged weights."""
    return Averaged(player.module, player.parameters, player.ema)
