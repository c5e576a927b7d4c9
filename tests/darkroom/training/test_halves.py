"""Halves of a batch at once give what the whole batch gives, and the same bytes every time."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.recipe import Train
from darkroom.training.compute import precise
from darkroom.training.halves import Halves
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.training.methods import method
from darkroom.training.state import State
from darkroom.training.step import gradients

CPU = torch.device("cpu")
MakeJob = Callable[..., Job]


def learnt(job: Job, halved: bool, batch: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What a batch tells, and its gradients."""
    task = method(job, CPU)
    state = State(task)
    assert state.halves is not None
    if not halved:
        state.halves = None
    player = task.players[0]
    told = gradients(task, state, player, task.batch(0).part(0, batch), 0, 64)
    return told, {name: value.grad for name, value in player.parameters.items() if value.grad is not None}


@pytest.mark.parametrize("batch", [1, 5, 8])
def test_halves_add_up_to_the_whole(job: MakeJob, batch: int) -> None:
    (told, found), (expected, whole) = (learnt(job(threads=2, batch=8), halved, batch) for halved in (True, False))
    torch.testing.assert_close(told, expected)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)


def test_both_halves_work_at_once(job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    task = method(job(threads=2, batch=8), CPU)
    met, loss = threading.Barrier(2, timeout=60), task.loss

    def meeting(*arguments: Any) -> Any:
        met.wait()  # breaks where the other half never comes
        return loss(*arguments)

    monkeypatch.setattr(task, "loss", meeting)
    gradients(task, State(task), task.players[0], task.batch(0), 0, 64)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_training_ends_in_the_same_bytes(job: MakeJob, tmp_path: Path, precision: str) -> None:
    """Also after kills: test_killed.py."""
    ends = set()
    for name in ("one", "two", "three"):
        train(job(threads=2, batch=8, steps=12, precision=precision), tmp_path / name)
        ends.add((tmp_path / name / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes())
    assert len(ends) == 1


def test_a_weight_that_is_used_twice_rounds_alike_whoever_clears_the_cache() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(8, 8, requires_grad=True), torch.randn(2, 4, 8)
    gradients = []
    for cleared in (False, True):
        weight.grad = None
        with precise(Train(steps=1, precision="bf16"), CPU):
            first = rows[0] @ weight
            if cleared:
                torch.clear_autocast_cache()
            second = rows[1] @ weight
        (first.float() * rows[1] + second.float() * rows[0]).sum().backward()
        assert weight.grad is not None
        gradients.append(weight.grad)
    assert torch.equal(*gradients)


def test_threads_are_what_they_were() -> None:
    torch.set_num_threads(2)
    seen: list[int] = []
    halves = Halves(3)
    halves.run(lambda: seen.append(torch.get_num_threads()), lambda: None)
    halves.run(lambda: None, lambda: seen.append(torch.get_num_threads()))
    assert seen == [2, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("fails", [0, 1])
def test_one_that_fails_is_heard_when_both_have_ended(fails: int) -> None:
    ended = threading.Event()

    def fail() -> None:
        raise MemoryError("no more")

    def work() -> None:
        ended.wait(0.1)
        ended.set()

    both = [work, work]
    both[fails] = fail
    with pytest.raises(MemoryError, match="no more"):
        Halves(2).run(*both)
    assert ended.is_set()


@pytest.mark.parametrize(
    ("fields", "fit"),
    [
        ({}, True),
        ({"precision": "bf16"}, True),
        ({"precision": "fp16"}, False),
        ({"compile": True}, False),
        ({"threads": 1}, False),
        ({"dropout": 0.1}, False),
        ({"gradient_checkpointing": True}, True),
        ({"method": "autoencoder", "objective": {}}, False),
    ],
)
def test_what_can_be_halved(job: MakeJob, fields: dict[str, Any], fit: bool) -> None:
    assert Halves.fit(method(job(**{"threads": 2, **fields}), CPU)) is fit
