"""Rows give what a kernel for each parameter gives, and stay in step with the optimiser that is saved."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from darkroom.diffusion.ema import Ema
from darkroom.training import checkpoints
from darkroom.training.job import Job
from darkroom.training.methods import Player, method
from darkroom.training.rows import Rows
from darkroom.training.state import State
from darkroom.training.step import take_step

CPU = torch.device("cpu")
MakeJob = Callable[..., Job]


def net(widths: tuple[int, ...] = (3, 5, 7)) -> torch.nn.Sequential:
    """Odd widths, so that parts of a row have to be filled up."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(before, after, 3) for before, after in itertools.pairwise(widths)]
    return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)


def playing(module: torch.nn.Module, **options: Any) -> Player:
    parameters = dict(module.named_parameters())
    groups = [
        {"params": [value for value in parameters.values() if value.ndim > 1], "weight_decay": 0.1},
        {"params": [value for value in parameters.values() if value.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, 1e-2, fused=True, **options)
    return Player("model", module, parameters, optimizer, Ema(parameters, 0.9))


def gradients(player: Player, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    picture = torch.randn(2, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    player.module(picture).square().mean().backward()


def update(player: Player, trained: Player, step: int) -> None:
    trained.optimizer.step()
    assert trained.ema is not None
    trained.ema.update(trained.parameters, step)


def saved(player: Player) -> dict[str, dict[str, torch.Tensor]]:
    """A copy of its state."""
    state = checkpoints.state([player])
    return {group: {name: value.clone() for name, value in tensors.items()} for group, tensors in state.items()}


def test_parameters_averages_and_moments_are_those_of_single_updates() -> None:
    alone, together = playing(net()), playing(net())
    rows = Rows(together)
    for step in range(4):
        for group in alone.optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + step)
        gradients(alone, step)
        update(alone, alone, step)
        alone.optimizer.zero_grad()
        for group in together.optimizer.param_groups:
            group["lr"] = alone.optimizer.param_groups[0]["lr"]
        gradients(together, step)
        whole = rows.taken()
        assert whole is not None
        assert len(whole.parameters) == 2
        update(together, whole, step)
        rows.clear()
    found, expected = checkpoints.state([together]), checkpoints.state([alone])
    assert found.keys() == expected.keys()
    for group in expected:
        torch.testing.assert_close(found[group], expected[group])


def test_what_has_no_gradient_has_one_of_zeros() -> None:
    alone, together = playing(net()), playing(net())
    rows = Rows(together)
    for player in (alone, together):
        gradients(player, 0)
        player.parameters["0.bias"].grad = torch.zeros(5) if player is alone else None
    update(alone, alone, 0)
    whole = rows.taken()
    assert whole is not None
    update(together, whole, 0)
    torch.testing.assert_close(dict(together.parameters), dict(alone.parameters))


def test_uneven_steps_are_updated_one_by_one() -> None:
    """As a checkpoint has them, of processes that leave out what has no gradient."""
    alone, together = playing(net()), playing(net())
    gradients(alone, 0)
    alone.parameters["0.bias"].grad = None
    update(alone, alone, 0)
    alone.optimizer.zero_grad()
    rows = Rows(together)
    rows.clear()  # as after the rehearsal
    checkpoints.restore([together], saved(alone))
    rows.fill()
    for step in (1, 2):
        for player in (alone, together):
            gradients(player, step)
            if step == 1:
                player.module[1].bias.grad = None
            assert rows.taken() is None
            update(player, player, step)
        alone.optimizer.zero_grad()
        rows.clear()
    torch.testing.assert_close(dict(together.parameters), dict(alone.parameters))
    steps = {name: float(together.optimizer.state[value]["step"]) for name, value in together.parameters.items()}
    assert steps == {"0.weight": 3, "0.bias": 2, "1.weight": 3, "1.bias": 2}


def test_a_load_of_uneven_steps_leaves_no_gradients() -> None:
    """Of zeros, which would count as a step of what the next batch leaves out."""
    alone, together = playing(net()), playing(net())
    gradients(alone, 0)
    alone.parameters["0.bias"].grad = None
    update(alone, alone, 0)
    rows = Rows(together)
    rows.clear()
    assert all(value.grad is not None for value in together.parameters.values())
    checkpoints.restore([together], saved(alone))
    rows.fill()
    assert all(value.grad is None for value in together.parameters.values())


def test_a_state_goes_on_in_rows_from_where_it_was_saved() -> None:
    first, second = playing(net()), playing(net())
    rows, later = Rows(first), Rows(second)

    def step(player: Player, its: Rows, number: int) -> None:
        gradients(player, number)
        whole = its.taken()
        assert whole is not None
        update(player, whole, number)
        its.clear()

    for number in range(2):
        step(first, rows, number)
    checkpoints.restore([second], saved(first), checkpoints.numbers([first]))
    later.fill()
    for player, its in ((first, rows), (second, later)):
        step(player, its, 2)
    found, expected = checkpoints.state([second]), checkpoints.state([first])
    for group, tensors in expected.items():
        for name, value in tensors.items():
            assert torch.equal(found[group][name], value), f"{group} {name}"


@pytest.mark.parametrize(
    ("player", "fit"),
    [
        (lambda: playing(net()), True),
        (lambda: playing(net((3, 128, 128))), False),  # large: nothing to gain
        (lambda: playing(net().double()), False),
        (lambda: playing(net(), amsgrad=True), False),
    ],
)
def test_what_is_kept_in_rows(player: Callable[[], Player], fit: bool) -> None:
    assert Rows.fit(player()) is fit


@pytest.mark.parametrize(("fields", "rows"), [({}, 2), ({"optimizer": {"name": "muon"}}, None)])
def test_a_training_updates_rows(job: MakeJob, fields: dict[str, Any], rows: int | None) -> None:
    task = method(job(**fields), CPU)
    state, (player,) = State(task), task.players
    take_step(task, state, player, task.batch(0), 0, 1e-3)
    assert len(state.updated(player).parameters) == (rows or len(player.parameters))
    assert all(value.grad is None or not value.grad.any() for value in player.parameters.values())
