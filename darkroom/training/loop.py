"""The training loop, to be read from top to bottom. To resume, run it again in the same work folder.

Each step's pictures, noise, times and dropped captions follow from (seed, step) alone: a training that was killed and
resumed ends, on a CPU with the same number of threads, in the same bytes as one that never was.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from darkroom.devices import prepare
from darkroom.errors import Diverged
from darkroom.recipe import Train
from darkroom.store import need_room, write_json

from . import checkpoints, compute
from .events import Events
from .job import Job
from .methods import Batch, Method, method
from .optimizers import learning_rate
from .pace import Pace
from .packages import available
from .rehearsal import leave_start, rehearse
from .state import State, averaged
from .step import Refused, take_step
from .stop import Stop
from .team import Team

DONE = "trained.json"


def train(job: Job, work: Path, team: Team | None = None) -> None:
    """Train to the end, leaving ``pipeline/``, ``grids/`` and ``events.jsonl`` in ``work``.

    ``team``: the processes that train together, each of which calls this; None: this one alone.
    Raises :class:`Diverged` when going back with a lower rate did not help, :class:`OutOfMemory` before the first step
    when a step would not fit, and :class:`Interrupted` on SIGTERM, after saving.
    """
    if (work / DONE).exists():
        return
    team = team or Team()
    stop = Stop(team)
    available(job.train)
    prepare(job.train.threads, job.device)
    job, recipe = replace(job, work=work), job.train

    # The data, the model, its averaged weights and its optimiser.
    with team.first():
        task = method(job, torch.device(job.device))
    compute.arrange(task.networks(), recipe)
    team.enlist(task.players)
    state = State(task, team)
    need_room(work, checkpoints.room(task.players, state.best.keeps) + job.reserve, "training")

    # Where the last attempt stopped; everything is gone through once before that, so that what fails fails now.
    if team.size > 1:
        leave_start(state, work)
    else:
        rehearsed = rehearse(task, state, work)
    events, step = resume(state, work)
    if not step:
        for remark in remarks(task):
            events.say(0, note=remark)
    if team.size == 1:
        events.say(step, rehearsal={"seconds": round(rehearsed.seconds, 3), "peak_bytes": rehearsed.peak_bytes})

    def look(step: int, tell: bool = True, draw_grid: bool = True) -> None:
        """The validation loss and the grid, where they are due; the model is afterwards as it was before."""
        if (tell or state.best.decides) and (step % recipe.validate_every == 0 or step == recipe.steps):
            with averaged(task.players[0]):
                with compute.precise(recipe, task.device):
                    found = team.heard(task.validate() if team.looks else {})
                state.best.take(step, next(iter(found.values())), state.weights)
            if tell:
                events.say(step, metrics=found)
        if draw_grid and step % recipe.grid_every == 0 and step < recipe.steps:
            sample(task, work, events, step, team)

    # The loop. A stop between two steps saves the last one; all else that is cut short is done again.
    began = step
    if step:
        look(step, events.lacks("validation/loss"), events.lacks("grid"))
    pace = Pace(recipe, task.device, step)
    while step < recipe.steps and not state.best.exhausted:
        stop.hold()
        rate = learning_rate(recipe, step) * state.guard.factor
        batch = task.batch(step)
        own = team.share(batch)
        told: dict[str, torch.Tensor] = {}
        try:
            for player in task.players:
                if step >= player.start:
                    told |= take_step(task, state, player, own, step, rate)
        except Refused as refusal:
            events.close()
            events, step = go_back(task, state, work, batch, step, str(refusal))
            stop.asked = team.any(stop.asked)
            stop.release(f"training stopped at step {step} of {recipe.steps}; the same command goes on from there")
            if step:
                look(step, events.lacks("validation/loss"), events.lacks("grid"))
            pace = Pace(recipe, task.device, step)
            continue

        step += 1
        last = step == recipe.steps
        if step % recipe.log_every == 0 or last:
            values = {name: value.item() for name, value in told.items()}
            events.say(step, metrics={**values, "train/learning_rate": rate, **pace.told(step)})
        stop.asked = team.any(stop.asked)
        if step % recipe.checkpoint_every == 0 or last or stop.asked:
            state.save(work, step)
        stop.release(f"training stopped at step {step} of {recipe.steps}; the same command goes on from there")
        look(step)

    # The finished model: the averaged weights, of the last step or the best, as an ordinary diffusers pipeline.
    kept = step
    if state.best.exhausted and step < recipe.steps:
        events.say(step, note=f"training ended early: {state.best.since} validations were not better than before")
    if state.best.weights:
        kept = state.best.step
        state.take_best()
        events.say(step, note=f"the weights of step {kept} are kept: their validation was the best")
    if step > began or events.lacks("grid"):
        sample(task, work, events, step, team)
    with averaged(task.players[0]):
        team.collect(task.players[0])
        if not team.leads:
            return
        target, temporary = work / "pipeline", work / ".pipeline.tmp"
        for folder in (target, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        task.save(temporary)
        os.replace(temporary, target)
    events.close()
    write_json(work / DONE, {"steps": step, "kept": kept})
    shutil.rmtree(work / "checkpoints", ignore_errors=True)


def resume(state: State, work: Path) -> tuple[Events, int]:
    """Be where the newest whole checkpoint is; returns the events up to it, and its step."""
    saved = checkpoints.newest(work)
    assert saved is not None  # the rehearsal left one
    state.load(saved)
    events = state.team.events(work, saved.step)
    for name in saved.damaged:
        events.say(saved.step, note=f"checkpoint {name} is damaged; training goes on from step {saved.step}")
    for refused in state.guard.refusals:
        if not events.said("refused", refused):
            events.say(refused["back_to"], refused=refused)
    return events, saved.step


def go_back(task: Method, state: State, work: Path, batch: Batch, step: int, objection: str) -> tuple[Events, int]:
    """Return to the last checkpoint with a lower rate, and tell why.

    The return is part of that checkpoint from now on, so that a training which is killed and resumed counts it, too.
    Raises :class:`Diverged` when the recipe's returns are used up.
    """
    refusals = state.guard.refusals
    refused: dict[str, Any] = {"at": step, "why": objection, "pictures": list(dict.fromkeys(batch.ids))}
    if len(refusals) >= task.job.train.guard.retries:
        with state.team.events(work, step) as events:
            events.say(step, refused=refused)
        state.team.part()
        raise Diverged(diverged(task.job.train, refused, len(refusals)))
    saved = checkpoints.newest(work)
    assert saved is not None
    state.load(saved)
    factor = task.job.train.guard.rate_factor ** (len(refusals) + 1)
    state.guard.refusals = [*refusals, refused | {"back_to": saved.step, "rate_factor": factor}]
    state.save(work, saved.step)
    return resume(state, work)


def diverged(plan: Train, refused: dict[str, Any], returns: int) -> str:
    """What happened, to which pictures, and what may help."""
    ids = [name[:12] for name in refused["pictures"]]
    shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more (all in events.jsonl)" if len(ids) > 8 else "")
    again = f", also after {returns} returns to a checkpoint with a lower rate" if returns else ""
    return (
        f"training diverged at step {refused['at']}: {refused['why']}{again}; the step's pictures: {shown}. Lower "
        f"train.learning_rate ({plan.learning_rate}), lengthen train.warmup_steps ({plan.warmup_steps}), or look at "
        "these pictures with `darkroom data trace`"
    )


def remarks(task: Method) -> list[str]:
    """What is allowed and may not be meant."""
    batch = task.job.train.batch
    few = (
        f"the training side has {task.pictures} pictures, fewer than train.batch ({batch}): a step sees some of them "
        "more than once; a smaller batch learns the same in less time"
    )
    return [*([few] if task.pictures < batch else []), *task.remarks()]


def sample(task: Method, work: Path, events: Events, step: int, team: Team) -> None:
    """Draw and tell the sample sheet of a step."""
    if not team.looks:
        return
    (work / "grids").mkdir(exist_ok=True)
    name = f"grids/{step:08d}.png"
    with averaged(task.players[0]):
        sheet = task.sheet()
    if team.leads:
        sheet.save(work / name)
    events.say(step, grid=name)
