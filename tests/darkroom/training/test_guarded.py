"""The loop under trouble: steps that must not be applied, kills, early ends, precision, memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.errors import Diverged, OutOfMemory, RecipeError
from darkroom.recipe_training import Guard as Plan
from darkroom.training import checkpoints, memory, rehearsal
from darkroom.training.compute import arrange
from darkroom.training.events import FILE, read
from darkroom.training.guard import Guard
from darkroom.training.loop import DONE, train
from darkroom.training.methods.denoise import Denoise

SAFETENSORS = "pipeline/unet/diffusion_pytorch_model.safetensors"


def weights(work: Path) -> bytes:
    return (work / SAFETENSORS).read_bytes()


def told(work: Path, kind: str) -> list[Any]:
    return [event[kind] for event in read(work / FILE) if kind in event]


def losses(work: Path, name: str = "train/loss") -> dict[int, float]:
    return {event["step"]: event["metrics"][name] for event in read(work / FILE) if name in event.get("metrics", ())}


def killed_after(monkeypatch: pytest.MonkeyPatch, saves: int, job: Any, work: Path) -> None:
    """Train until so many checkpoints are written, and be killed then."""
    original, count = checkpoints.save, [0]

    def save(*args: Any) -> None:
        original(*args)
        count[0] += 1
        if count[0] == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train(job, work)


class Trouble:
    """A loss that is spoilt at some steps while the rate is the full one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: set[int], times: int) -> None:
        self.left, self.steps = times, steps
        original = Denoise.loss

        def loss(task: Denoise, player: Any, batch: Any, step: int) -> Any:
            found = original(task, player, batch, step)
            if step in self.steps and player.optimizer.param_groups[0]["lr"] > self.limit(task, step):
                found.value = found.value * float("nan")
            return found

        monkeypatch.setattr(Denoise, "loss", loss)

    def limit(self, task: Denoise, step: int) -> float:
        """Above this rate the step fails: it takes ``left`` halvings to pass."""
        from darkroom.training.optimizers import learning_rate

        return learning_rate(task.job.train, step) * 0.75 * 0.5 ** (self.left - 1)


def test_a_bad_step_is_not_applied_and_training_goes_back(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    Trouble(monkeypatch, {4}, times=2)
    straight = folder("straight")
    train(job(), straight)
    refused = told(straight, "refused")
    assert [(one["at"], one["back_to"], one["rate_factor"]) for one in refused] == [(4, 3, 0.5), (4, 3, 0.25)]
    assert all(len(one["pictures"]) == 4 for one in refused)
    assert refused[0]["why"] == "the loss is nan"
    rates = losses(straight, "train/learning_rate")
    plain = folder("plain")
    monkeypatch.undo()
    train(job(), plain)
    usual = losses(plain, "train/learning_rate")
    assert rates[3] == usual[3]
    assert rates[8] == pytest.approx(usual[8] / 4)
    assert weights(straight) != weights(plain)


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_returns_survive_kills(job, folder, monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    Trouble(monkeypatch, {4, 7}, times=2)
    straight, broken = folder("straight"), folder("broken")
    train(job(), straight)
    killed_after(monkeypatch, saves, job(), broken)
    train(job(), broken)
    assert weights(broken) == weights(straight)
    assert told(broken, "refused") == told(straight, "refused")


def test_when_going_back_does_not_help_the_end_is_explained(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    Trouble(monkeypatch, {1}, times=10)
    work = folder("work")
    with pytest.raises(Diverged, match=r"at step 1: the loss is nan, also after 2 returns .* Lower train"):
        train(job(), work)
    refused = told(work, "refused")
    assert [one.get("back_to") for one in refused] == [0, 0, None]
    with pytest.raises(Diverged, match=refused[-1]["pictures"][0][:12]):
        train(job(), work)


def test_a_leap_is_refused_only_above_the_norm_of_clipping() -> None:
    guard = Guard(Plan(), clip=1.0)
    assert all(guard.objection("model", 1.0, 0.02) is None for _ in range(30))
    assert guard.objection("model", 1.0, 0.9) is None
    assert "101 times" in (guard.objection("model", 1.0, 2.02) or "")
    assert guard.objection("other", 1.0, 2.02) is None
    assert "norm is inf" in (guard.objection("model", 1.0, float("inf")) or "")
    again = Guard(Plan(), clip=1.0)
    again.set(json.loads(json.dumps(guard.facts())))
    assert again.facts() == guard.facts()
    assert Guard(Plan(spike=None), clip=None).objection("model", 1.0, 1e30) is None


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_the_best_weights_and_the_early_end_survive_kills(job, folder, monkeypatch, saves: int) -> None:
    # The rate is far too high: validation is best early on.
    fields = {"learning_rate": 0.3, "keep": "best", "early_stop": {"patience": 3}, "validate_every": 1, "steps": 24}
    fields |= {"guard": {"spike": None}, "warmup_steps": 0}
    straight, broken = folder("straight"), folder("broken")
    train(job(**fields), straight)
    done = json.loads((straight / DONE).read_text())
    found = losses(straight, "validation/loss")
    assert done["kept"] == min(found, key=lambda step: found[step])
    assert done["steps"] == max(found) < 24
    killed_after(monkeypatch, min(saves, done["steps"] // 3), job(**fields), broken)
    train(job(**fields), broken)
    assert weights(broken) == weights(straight)
    assert json.loads((broken / DONE).read_text()) == done


def test_the_kept_weights_have_the_loss_that_was_told(job, folder) -> None:
    from safetensors.torch import load_file

    work = folder("work")
    settings = job(learning_rate=0.3, keep="best", validate_every=1, warmup_steps=0, ema_decay=None)
    train(settings, work)
    task = Denoise(settings, torch.device("cpu"))
    arrange(task.networks(), settings.train)
    task.denoiser.load_state_dict(load_file(work / SAFETENSORS))
    task.denoiser.eval()
    found = losses(work, "validation/loss")
    kept = json.loads((work / DONE).read_text())["kept"]
    assert task.validate()["validation/loss"] == found[kept] == min(found.values())


def test_parts_of_a_batch_learn_the_same(job, folder) -> None:
    whole, parts = folder("whole"), folder("parts")
    train(job(), whole)
    train(job(micro_batch=1), parts)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.parametrize("fields", [{"dropout": 0.2}, {"threads": 2}])
def test_recomputed_activations_give_the_same_weights(job, folder, fields: dict[str, Any]) -> None:
    plain, again = folder("plain"), folder("again")
    train(job(**fields), plain)
    train(job(**fields, gradient_checkpointing=True), again)
    assert weights(plain) == weights(again)


def test_dropout_resumes_exactly_and_matters(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    without, straight, broken = folder("without"), folder("straight"), folder("broken")
    train(job(), without)
    train(job(dropout=0.3, ema_decay=None), straight)
    killed_after(monkeypatch, 1, job(dropout=0.3, ema_decay=None), broken)
    torch.manual_seed(12345)
    train(job(dropout=0.3, ema_decay=None), broken)
    assert weights(broken) == weights(straight) != weights(without)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_resumes_exactly(job, folder, monkeypatch, precision: str) -> None:
    full, straight, broken = folder("full"), folder("straight"), folder("broken")
    fields = {"steps": 3, "batch": 2, "checkpoint_every": 2, "validate_every": 3}
    train(job(**fields), full)
    train(job(precision=precision, **fields), straight)
    assert losses(straight) != losses(full)
    assert losses(straight)[1] == pytest.approx(losses(full)[1], rel=0.05)
    killed_after(monkeypatch, 1, job(precision=precision, **fields), broken)
    train(job(precision=precision, **fields), broken)
    assert weights(broken) == weights(straight)


def test_compiling_uses_what_was_compiled_and_keeps_the_names(job, folder, monkeypatch) -> None:
    from darkroom.training import compute

    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        calls = [0]
        graphs.append(calls)

        def run(*args: Any) -> Any:
            calls[0] += 1
            return graph.forward(*args)

        return run

    original = compute.compiled
    monkeypatch.setattr(compute, "compiled", lambda network: original(network, backend=backend))
    plain, compiled = folder("plain"), folder("compiled")
    train(job(steps=3), plain)
    assert not graphs
    train(job(steps=3, compile=True), compiled)
    assert sum(calls for (calls,) in graphs) >= 3
    from safetensors.torch import load_file

    assert load_file(plain / SAFETENSORS).keys() == load_file(compiled / SAFETENSORS).keys()
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


def test_the_rehearsal_changes_nothing_and_tells_its_peak(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = folder("with"), folder("without")
    train(job(), with_it)
    (seen,) = told(with_it, "rehearsal")
    assert seen["peak_bytes"] > 50e6
    monkeypatch.setattr(rehearsal, "once", lambda *_: None)
    monkeypatch.setattr(rehearsal, "gradients", lambda *_: None)
    train(job(), without)
    assert weights(with_it) == weights(without)


def test_too_large_a_batch_is_refused_with_one_that_fits(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    original, sizes = rehearsal.gradients, []

    def gradients(task: Any, state: Any, player: Any, batch: Any, step: int, size: int) -> Any:
        sizes.append(size)
        if size > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 80.00 GiB")
        return original(task, state, player, batch, step, size)

    monkeypatch.setattr(rehearsal, "gradients", gradients)
    monkeypatch.setattr(rehearsal, "_within_what_is_free", rehearsal._or_what_fits)
    with pytest.raises(OutOfMemory, match=r"8 pictures at once .* set train.micro_batch = 2, which fits"):
        train(job(batch=8), folder("large"))
    assert sizes == [8, 4, 2]


def test_a_cpu_is_not_asked_for_more_than_is_free(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([1000, 1040, 1040, 1120, 1120])  # what 1, 2, ... pictures take in all
    monkeypatch.setattr(memory, "peak", lambda device: next(peaks))
    monkeypatch.setattr(memory, "taken", lambda device: 1000)
    monkeypatch.setattr(memory, "available", lambda device: 150)
    with pytest.raises(OutOfMemory, match=r"set train.micro_batch = 2, which fits"):
        train(job(batch=8), folder("work"))


def test_a_checkpoint_of_another_recipe_is_refused(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    work = folder("work")
    killed_after(monkeypatch, 1, job(), work)
    with pytest.raises(RecipeError, match="is of another training, whose train differ"):
        train(job(learning_rate=0.5), work)


def test_what_may_not_be_meant_is_remarked_on(job, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    work = folder("work")
    long = " ".join(["one two three four"] * 20)
    killed_after(monkeypatch, 2, job(batch=64, prompts=("a handwritten seven", long)), work)
    few, cut = told(work, "note")
    assert "has 24 pictures, fewer than train.batch (64)" in few
    assert "left out: " in cut
    assert long.endswith(cut.split("'")[1])
    damaged = work / "checkpoints/step-00000006/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    train(job(batch=64, prompts=("a handwritten seven", long)), work)
    assert any("step-00000006 is damaged; training goes on from step 3" in note for note in told(work, "note"))
