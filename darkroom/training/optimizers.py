"""The optimisers, and the rate that they work with."""

import math

import torch

from darkroom.recipe import Train


def build(parameters: dict[str, torch.nn.Parameter], plan: Train) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for. Biases and norms, of one dimension, do not decay."""
    groups = [
        {"params": [value for value in parameters.values() if value.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [value for value in parameters.values() if value.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (plan.optimizer.beta1, plan.optimizer.beta2)
    return torch.optim.AdamW([group for group in groups if group["params"]], plan.learning_rate, betas, fused=True)


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
