"""The kernel of attention that a recipe names is the one that training steps take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from darkroom.errors import RecipeError
from darkroom.training import compute
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.training.methods import method
from darkroom.training.state import State
from darkroom.training.step import gradients

CPU = torch.device("cpu")
OPS = {"flash": "aten::_scaled_dot_product_flash_attention_for_cpu", "math": "aten::_scaled_dot_product_attention_math"}
MakeJob = Callable[..., Job]


def looked_at(job: Job) -> tuple[set[str], float]:
    """The operations of a step's forward and backward pass, and its loss."""
    task: Any = method(job, CPU)
    compute.arrange(task.networks(), job.train)
    state = State(task)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        told = gradients(task, state, task.players[0], task.batch(0), 0, 64)
    return {event.key for event in seen.key_averages()}, float(told["loss"])


@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_the_named_kernel_is_taken(job: MakeJob, kernel: str) -> None:
    found, loss = looked_at(job(attention=kernel))
    assert {name for name in OPS.values() if name in found} == {OPS[kernel]}
    _, usual = looked_at(job())
    assert loss == pytest.approx(usual, rel=1e-5)
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.math_sdp_enabled()


def test_it_holds_for_both_halves(job: MakeJob) -> None:
    """Threads share what is set."""
    task: Any = method(job(attention="math", threads=2, batch=8), CPU)
    seen: list[bool] = []
    loss = task.loss

    def asked(*arguments: Any) -> Any:
        seen.append(torch.backends.cuda.flash_sdp_enabled())
        return loss(*arguments)

    task.loss = asked
    state = State(task)
    assert state.halves is not None
    gradients(task, state, task.players[0], task.batch(0), 0, 64)
    assert seen == [False, False]
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_kernel_that_does_not_exist_here_is_refused_before_the_first_step(job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'train\.attention = "efficient": torch has no such kernel .* set it to "a'):
        train(job(attention="efficient"), tmp_path)
    assert not (tmp_path / "events.jsonl").exists()
    assert torch.backends.cuda.math_sdp_enabled()
