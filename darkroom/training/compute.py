"""How a recipe has the networks compute: in which precision, compiled, keeping or recomputing activations."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from darkroom.errors import RecipeError
from darkroom.recipe import Train

from .lean import lean

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precise(plan: Train, device: torch.device) -> AbstractContextManager[Any]:
    """The context of all that a network computes in training and validation. Weights and updates stay float32."""
    if plan.precision == "fp32":
        return nullcontext()
    # Threads share its cache of weights, and the first to leave clears it: a weight that is used twice, whose gradients
    # are added in half precision where it is kept, would not round alike every time.
    return torch.autocast(device.type, PRECISIONS[plan.precision], cache_enabled=device.type != "cpu")


def scaler(plan: Train, device: torch.device) -> "torch.amp.GradScaler | None":
    """fp16 alone needs one: its gradients would vanish (Micikevicius et al. 2018)."""
    return torch.amp.GradScaler(device.type) if plan.precision == "fp16" else None


def arrange(networks: "list[Any]", plan: Train) -> None:
    """Set up networks as the recipe says; names of parameters stay what they were.

    Raises :class:`RecipeError` when a network cannot recompute its activations.
    """
    for network in networks:
        if plan.gradient_checkpointing:
            if not getattr(network, "_supports_gradient_checkpointing", False):
                raise RecipeError(
                    f"train.gradient_checkpointing = true: {type(network).__name__} cannot; set it to false"
                )
            network.enable_gradient_checkpointing()
        if plan.compile:
            compiled(network)
        elif next(network.parameters()).device.type == "cpu":
            lean(network)


def compiled(network: Any, **options: Any) -> None:
    """Compile in place: the blocks that repeat, once for all of them, or the whole network where there are none."""
    if getattr(network, "_repeated_blocks", None):
        network.compile_repeated_blocks(**options)
    else:
        network.compile(**options)
