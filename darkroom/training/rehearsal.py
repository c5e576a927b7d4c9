"""A rehearsal before anything long: one step, one validation batch and one checkpoint, at the largest shape.

What would run out of memory after hours does so now, with a setting that fits. Nothing of it stays: afterwards the
state is read back from the checkpoint. Several processes do without: their devices are theirs alone as a rule, and one
that halved its parts would leave the others waiting for it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from darkroom.errors import OutOfMemory, RecipeError

from . import checkpoints, memory
from .compute import precise
from .methods import Batch, Method
from .state import State, averaged
from .step import gradients

SPARE = 0.95  # the share of free memory that may be asked for: other programs want some, too


@dataclass(frozen=True)
class Rehearsal:
    """What was seen."""

    seconds: float
    peak_bytes: int


def rehearse(task: Method, state: State, work: Path) -> Rehearsal:
    """Go through everything once, then be where training starts or goes on from.

    Raises :class:`OutOfMemory` that names a ``train.micro_batch`` which fits, where one does.
    """
    start = time.monotonic()
    memory.forget_peak(task.device)
    saved = checkpoints.newest(work)
    if saved is None:
        state.save(work, 0)
    batch = task.largest()
    size = min(task.job.train.micro_batch or len(batch), len(batch))
    if task.device.type == "cpu" and not task.job.train.compile:
        _within_what_is_free(task, state, batch, size)
    else:
        _or_what_fits(task, state, batch, size)
    saved = saved or checkpoints.newest(work)
    if saved is None:
        raise RecipeError(f"the checkpoint that was just written below {work} cannot be read back: is the disk sound?")
    state.load(saved)
    return Rehearsal(time.monotonic() - start, memory.peak(task.device))


def leave_start(state: State, work: Path) -> None:
    """Leave what training starts from where there is no checkpoint yet; without a rehearsal."""
    if state.team.any(checkpoints.newest(work) is None):
        state.save(work, 0)


def once(task: Method, state: State, batch: Batch, size: int) -> None:
    """A step of every player in parts of ``size``, and a batch of validation."""
    for player in task.players:
        gradients(task, state, player, batch, 0, size)
        state.updated(player).optimizer.step()
        state.clear(player)
    with averaged(task.players[0]), precise(task.job.train, task.device):
        task.rehearse()


def _or_what_fits(task: Method, state: State, batch: Batch, size: int) -> None:
    """Try; after running out, halve the parts until they fit and say so."""
    tried = size
    while tried:
        try:
            once(task, state, batch, tried)
            break
        except (MemoryError, RuntimeError) as error:
            if not memory.ran_out(error):
                raise
        for player in task.players:
            state.clear(player)
            player.optimizer.state.clear()
        if task.device.type == "cuda":
            torch.cuda.empty_cache()
        tried //= 2
    if tried != size:
        raise OutOfMemory(advice(task, size, tried))


def _within_what_is_free(task: Method, state: State, batch: Batch, size: int) -> None:
    """Try ever larger parts, and stop before one that would not fit: nobody survives running out on a CPU."""
    tried = 1
    while True:
        before = memory.peak(task.device)
        for player in task.players:
            gradients(task, state, player, batch.part(0, tried), 0, tried)
        for player in task.players:
            state.clear(player)
        if tried >= size:
            break
        # The next doubling adds to the peak about twice what the last one added.
        most, free = memory.peak(task.device), memory.available(task.device)
        needed = 2 * (most - before) + max(0, most - memory.taken(task.device))
        if free is not None and needed > SPARE * free:
            raise OutOfMemory(advice(task, size, tried))
        tried = min(2 * tried, size)
    once(task, state, batch, size)


def advice(task: Method, size: int, fits: int) -> str:
    """What to set when ``size`` pictures at once are too many and ``fits`` are not; 0: not even one fits."""
    free = memory.available(task.device)
    words = f"{size} pictures at once do not fit into the memory of {task.device}"
    if free is not None:
        words += f" ({free / 1e9:.1f} GB are free)"
    further = "" if task.job.train.gradient_checkpointing else "train.gradient_checkpointing = true"
    if fits:
        return f"{words}: set train.micro_batch = {fits}, which fits and learns the same" + (
            f"; or {further}, which is slower" if further else ""
        )
    rest = "a smaller preprocess.size, a smaller model or a larger machine"
    return f"{words}, nor does one: set {further + ', or take ' if further else ''}{rest}"
