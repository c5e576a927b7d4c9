"""One step of one player: losses, gradients, and their application unless the guard objects."""

import contextlib
import math

import torch

from darkroom.randomness import seed_of

from .compute import attending, precise
from .methods import Batch, Method, Player
from .state import State


class Refused(Exception):
    """A step that the guard did not apply; its text says why."""


def gradients(
    task: Method, state: State, player: Player, batch: Batch, step: int, size: int
) -> dict[str, torch.Tensor]:
    """Add up a batch's gradients, ``size`` pictures at a time; returns the means of its loss and metrics.

    Each part counts by its share, so that the sum is that of the whole batch but for rounding.
    """
    count = len(batch)

    def added(first: int, end: int, last: bool = True) -> dict[str, torch.Tensor]:
        return _added(task, state, player, batch, step, slice(first, end), last)

    with attending(task.job.train):
        if state.halves is not None and 1 < count <= size:
            middle = count // 2
            parts = state.halves.run(lambda: added(0, middle), lambda: added(middle, count))
        else:
            parts = [added(first, min(first + size, count), first + size >= count) for first in range(0, count, size)]
    return {name: sum((part[name] for part in parts[1:]), start) for name, start in parts[0].items()}


def _added(
    task: Method, state: State, player: Player, batch: Batch, step: int, rows: slice, last: bool
) -> dict[str, torch.Tensor]:
    """Add some rows' gradients; returns their share of the batch's loss and metrics."""
    part = batch.part(rows.start, rows.stop) if rows.stop - rows.start < len(batch) else batch
    share = len(part) / len(batch)
    scaler, team = state.scalers.get(player.name), state.team
    if state.halves is None:  # halves draw nothing
        # Layers with dropout draw from the global generator: it too must follow from (seed, step) and the rows.
        reseed(task.device, seed_of(task.job.seed, "layers", player.name, step, team.rank * len(batch) + rows.start))
    with precise(task.job.train, task.device):
        found = team.loss(task, player, part, step, last)
    value = found.value if share == 1 else found.value * share
    (value if scaler is None else scaler.scale(value)).backward()
    return {name: metric.detach() * share for name, metric in {"loss": found.value, **found.metrics}.items()}


def reseed(device: torch.device, seed: int) -> None:
    """Seed the generator that layers draw from on a device.

    ``torch.manual_seed`` seeds every kind of device; for each that has not started it walks the whole stack, and takes
    as long as a tenth of a small batch.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def take_step(
    task: Method, state: State, player: Player, batch: Batch, step: int, rate: float
) -> dict[str, torch.Tensor]:
    """One step of one player on this process's rows; returns what is to be told of it, of all of them.

    Raises :class:`Refused` with nothing applied: in every process alike, as all judge the same numbers.
    """
    with contextlib.nullcontext() if state.halves is None else state.halves.apart():
        return _taken(task, state, player, batch, step, rate)


def _taken(task: Method, state: State, player: Player, batch: Batch, step: int, rate: float) -> dict[str, torch.Tensor]:
    recipe = task.job.train
    for group in player.optimizer.param_groups:
        group["lr"] = rate * player.rate
    told = gradients(task, state, player, batch, step, recipe.micro_batch or len(batch))
    trained = state.updated(player)
    scaler = state.scalers.get(player.name)
    if scaler is not None:
        scaler.unscale_(trained.optimizer)
    norm = torch.nn.utils.get_total_norm([one.grad for one in trained.parameters.values() if one.grad is not None])
    told = state.team.mean(told | {"gradient_norm": state.team.whole(norm)})
    both = torch.stack([told["loss"].float(), told["gradient_norm"].float()])
    loss_value, norm_value = both.tolist()  # waits for the device once
    if scaler is not None and not math.isfinite(norm_value) and math.isfinite(loss_value) and scaler.get_scale() > 1:
        scaler.update()  # gradients that overflow in fp16 are usual: the scale is halved and the step left out
        state.clear(player)
        return _named(task, player, {name: value for name, value in told.items() if name != "gradient_norm"})
    if (objection := state.guard.objection(player.name, loss_value, norm_value)) is not None:
        state.clear(player)
        raise Refused(objection)
    if recipe.clip_gradient_norm and norm_value > recipe.clip_gradient_norm:
        torch.nn.utils.clip_grads_with_norm_(trained.parameters.values(), recipe.clip_gradient_norm, norm)
    if scaler is None:
        trained.optimizer.step()
    else:
        scaler.step(trained.optimizer)
        scaler.update()
    state.clear(player)
    if trained.ema is not None:
        trained.ema.update(trained.parameters, step)
    return _named(task, player, told)


def _named(task: Method, player: Player, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "train/" if player is task.players[0] else f"train/{player.name}_"
    return {prefix + name: value for name, value in told.items()}
