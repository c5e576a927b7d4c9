"""The optimisers, and the rate that they work with."""

import math
from collections.abc import Callable
from typing import Any

import torch

from darkroom.recipe import Train

from .packages import available

Groups = list[dict[str, Any]]


def build(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for. Biases and norms, of one dimension, do not decay.

    Raises :class:`RecipeError` when its package is not installed.
    """
    available(plan)
    return KINDS[plan.optimizer.name](parameters, plan)


def _groups(parameters: dict[str, torch.nn.Parameter], plan: Train) -> Groups:
    groups: Groups = [
        {"params": [value for value in parameters.values() if value.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [value for value in parameters.values() if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _betas(plan: Train) -> tuple[float, float]:
    return (plan.optimizer.beta1, plan.optimizer.beta2)


def _adamw(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), one kernel for all parameters."""
    return torch.optim.AdamW(_groups(parameters, plan), plan.learning_rate, _betas(plan), fused=True)


def _adafactor(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018): of the squares of a matrix's gradients, only means of rows and columns."""
    return torch.optim.Adafactor(_groups(parameters, plan), plan.learning_rate)


def _muon(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """Muon on the inner matrices, AdamW on the rest."""
    from .muon import Muon

    return Muon(parameters, plan.learning_rate, plan.weight_decay, plan.optimizer.momentum, _betas(plan))


def _adamw8bit(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """AdamW whose moments take a byte each (Dettmers et al. 2022)."""
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(_groups(parameters, plan), plan.learning_rate, _betas(plan))
    return made


def _prodigy(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """Prodigy (Mishchenko and Defazio 2024), which finds the rate while it trains.

    Its estimate must not grow from the small steps of the warm-up: ``safeguard_warmup``.
    """
    from prodigyopt import Prodigy

    made: torch.optim.Optimizer = Prodigy(
        _groups(parameters, plan),
        plan.learning_rate,
        _betas(plan),
        use_bias_correction=True,
        safeguard_warmup=plan.warmup_steps > 0,
    )
    return made


KINDS: dict[str, Callable[[dict[str, torch.nn.Parameter], Train], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "muon": _muon,
    "adamw8bit": _adamw8bit,
    "prodigy": _prodigy,
}


def learning_rate(plan: Train, step: int) -> float:
    """The rate of a step: a linear warm-up, then half a cosine or a line to zero, or no change."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    if plan.schedule == "constant":
        return plan.learning_rate
    progress = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    if plan.schedule == "linear":
        return plan.learning_rate * (1 - progress)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
