"""How a recipe has the networks compute: in which precision, compiled, keeping or recomputing activations."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from darkroom.errors import RecipeError
from darkroom.recipe import Train

from .lean import lean

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
NO_KERNEL = ("no viable backend", "no available kernel")  # in torch's words, of a CPU and of CUDA
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precise(plan: Train, device: torch.device) -> AbstractContextManager[Any]:
    """The context of all that a network computes in training and validation. Weights and updates stay float32."""
    if plan.precision == "fp32":
        return nullcontext()
    # Threads share its cache of weights, and the first to leave clears it: a weight that is used twice, whose gradients
    # are added in half precision where it is kept, would not round alike every time.
    return torch.autocast(device.type, PRECISIONS[plan.precision], cache_enabled=device.type != "cpu")


@contextmanager
def attending(plan: Train) -> Iterator[None]:
    """The context of training steps, in which attention takes the recipe's kernel; for all threads of the process.

    Raises :class:`RecipeError` where torch has no such kernel.
    """
    if plan.attention == "auto":
        yield
        return
    try:
        with sdpa_kernel(KERNELS[plan.attention]):
            yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in NO_KERNEL):
            raise
        raise RecipeError(
            f'train.attention = "{plan.attention}": torch has no such kernel for this device, precision '
            f'({plan.precision}) and size of heads; set it to "auto"'
        ) from None


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
            lean(network, attention=plan.attention == "auto")


def compiled(network: Any, **options: Any) -> None:
    """Compile in place: the blocks that repeat, once for all of them, or the whole network where there are none."""
    if getattr(network, "_repeated_blocks", None):
        network.compile_repeated_blocks(**options)
    else:
        network.compile(**options)
