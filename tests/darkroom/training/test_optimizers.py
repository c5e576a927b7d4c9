"""Every optimiser learns, and goes on from a checkpoint as if nothing had happened."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from darkroom.errors import RecipeError
from darkroom.recipe import Recipe, Train, parse
from darkroom.recipe_training import Optimizer
from darkroom.training import checkpoints, optimizers, packages
from darkroom.training.muon import Muon, is_hidden

NAMES = ["adamw", "adafactor", "muon", "adamw8bit", "prodigy"]
RATES = {"adamw": 3e-3, "adafactor": 3e-2, "muon": 3e-3, "adamw8bit": 3e-3, "prodigy": 1.0}


def plan_of(name: str, **fields) -> Train:
    package = packages.EXTRAS.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is an extra that is not installed")
    return Train(steps=60, learning_rate=RATES[name], warmup_steps=0, optimizer=Optimizer(name=name), **fields)


def network() -> torch.nn.Module:
    """Convolutions in channels-last memory, as in training; large enough for 8-bit moments (4096 values)."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(48, 48, 3, padding=1)]
    layers += [torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(48 * 36, 4)]
    return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)


PICTURES = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(1))
ANSWERS = PICTURES.flatten(1)[:, :4]


def advance(model: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    losses = []
    for _ in range(first, last):
        loss = (model(PICTURES) - ANSWERS).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_resumes_exactly(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plan = plan_of(name)

    def begin() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = network()
        return model, optimizers.build(dict(model.named_parameters()), plan)

    straight = begin()
    losses = advance(*straight, 0, 60)
    assert losses[-1] < 0.2 * losses[0]
    model, optimizer = begin()
    advance(model, optimizer, 0, 25)
    groups = {"model": dict(model.named_parameters()), "optimizer": checkpoints.optimizer_tensors(optimizer)}
    checkpoints.save(tmp_path, 25, groups)
    numbers = json.loads(json.dumps(checkpoints.optimizer_numbers(optimizer)))
    saved = checkpoints.newest(tmp_path)
    assert saved is not None
    resumed, restored = begin()
    resumed.load_state_dict(saved.groups["model"])
    checkpoints.restore_optimizer(restored, saved.groups["optimizer"], numbers)
    assert advance(resumed, restored, 25, 60) == losses[25:]
    for one, other in zip(resumed.parameters(), straight[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_is_torchs_on_a_matrix_and_the_same_in_both_memory_formats() -> None:
    start = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    gradient = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon({"w": ours}, 0.01, 0.1, 0.95, (0.9, 0.99))
    other = torch.optim.Muon([theirs], 0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    assert torch.equal(ours, theirs)
    kernels = start.reshape(8, 3, 2, 2)
    plain, last = (torch.nn.Parameter(kernels.clone(memory_format=format_)) for format_ in FORMATS)
    for value in (plain, last):
        value.grad = gradient.reshape(8, 3, 2, 2).clone()
        Muon({"w": value}, 0.01, 0.0, 0.95, (0.9, 0.99)).step()
    assert torch.allclose(plain, last, atol=2e-4)  # bfloat16 inside, and another order of the columns
    assert not torch.allclose(plain, kernels, atol=1e-3)


FORMATS = (torch.contiguous_format, torch.channels_last)


def test_muon_leaves_the_ends_and_the_vectors_to_adamw() -> None:
    matrix, vector = torch.zeros(4, 4), torch.zeros(4)
    assert is_hidden("mid_block.attentions.0.to_q.weight", matrix)
    for name, value in (("conv_in.weight", matrix), ("time_embedding.linear_1.weight", matrix), ("norm.bias", vector)):
        assert not is_hidden(name, value)


def test_a_missing_package_is_said_before_anything_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plan = Train(steps=1, optimizer=Optimizer(name="adamw8bit"))
    with pytest.raises(RecipeError, match=r"'adamw8bit' needs the package bitsandbytes.*darkroom\[optimizers\]"):
        packages.available(plan)
    packages.available(Train(steps=1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer": {"name": "prodigy"}}, "set learning_rate = 1"),
        ({"optimizer": {"name": "adafactor", "beta1": 0.5}}, "not adafactor's"),
        ({"optimizer": {"momentum": 0.5}}, "momentum is muon's"),
        ({"early_stop": {"patience": 3}, "validate_every": 5}, "cannot pass within 10 steps"),
    ],
)
def test_settings_that_contradict_are_refused(fields: dict, words: str) -> None:
    table = {"version": 1, "name": "x", "collect": {"source": "digits"}, "train": {"steps": 10, **fields}}
    table["model"] = {"family": "unconditional"}
    with pytest.raises(RecipeError, match=words):
        parse(table, "x.toml")
    assert isinstance(parse(table | {"train": {"steps": 10}}, "x.toml"), Recipe)
