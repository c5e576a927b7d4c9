"""What diffusion transformers from scratch have in common: their first weights, and the sides that they can see."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.errors import RecipeError

from ..pipeline import load_vae

LAST = ("proj_out", "proj_out_1", "proj_out_2", "norm_out.linear")


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """A transformer whose weights follow from ``seed`` alone.

    As in DiT (Peebles and Xie 2022, section 3.2, adaLN-Zero): what time and condition do to a block, and the last
    layer, start at zero, so that each block starts as the identity; embeddings start small.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and (_modulates(name) or name in LAST):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
    return model


def _modulates(name: str) -> bool:
    """Whether a layer gives the shifts, scales and gates of an adaptive norm: ``….norm1.linear`` in diffusers."""
    *_, owner, layer = ["", *name.split(".")]
    return layer == "linear" and owner.startswith("norm")


def must_divide(side: int, patch: int, what: str) -> None:
    """Raises :class:`RecipeError` where latents cannot be cut into whole tokens."""
    if side % patch:
        raise RecipeError(
            f"preprocess.size gives latents of {side} x {side}, which {what} = {patch} does not divide: "
            "take another size or another autoencoder"
        )


def flow_scheduler() -> Any:
    """Euler's steps on the straight path: the sampler that the pipelines of Stable Diffusion 3 and Flux are made for.

    Its times are not shifted, which only large pictures need (Esser et al. 2024, section 5.3.2).
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def load_shifted_vae(path: Path) -> Any:
    """An autoencoder for a pipeline that adds its ``shift_factor``, and cannot add None."""
    vae = load_vae(path)
    if vae.config.shift_factor is None:
        vae.register_to_config(shift_factor=0.0)
    return vae
