"""Unconditional diffusion on pixels: a UNet2DModel (Ho et al. 2020), which draws what its pictures are like."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from darkroom.recipe_training import Model

from ..objectives import Objective
from .base import Conditions, Family, Parts, Shape

if TYPE_CHECKING:
    from PIL import Image

# UNet2DModel has no cross-attention: the nearest of its own blocks takes the place of each block of the recipe.
BLOCKS = {
    "CrossAttnDownBlock2D": "AttnDownBlock2D",
    "CrossAttnUpBlock2D": "AttnUpBlock2D",
}


class Unconditional(Family):
    """``DDIMPipeline``, whose UNet sees pixels in [-1, 1]."""

    name = "unconditional"
    pipeline = "DDIMPipeline"
    denoiser = "unet"
    asked_by = "nothing"

    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A pipeline of a new UNet alone."""
        from diffusers import DDIMPipeline, UNet2DModel

        plan = model.unet
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DModel(
                sample_size=shape.side,
                in_channels=shape.channels,
                out_channels=shape.channels,
                down_block_types=tuple(BLOCKS.get(name, name) for name in plan.down_block_types),
                up_block_types=tuple(BLOCKS.get(name, name) for name in plan.up_block_types),
                block_out_channels=plan.block_out_channels,
                layers_per_block=plan.layers_per_block,
                attention_head_dim=max(1, plan.block_out_channels[-1] // plan.attention_heads),
                norm_num_groups=plan.norm_num_groups,
                dropout=dropout,
            )
        return DDIMPipeline(unet=unet, scheduler=objective.scheduler())

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """Nothing is given."""
        return {}

    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """The UNet's answer."""
        predicted: torch.Tensor = denoiser(noisy, times).sample
        return predicted

    def draw(
        self, pipeline: Any, texts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
    ) -> "list[Image.Image]":
        """The pipeline's own steps from this noise; its call would draw the noise itself."""
        pictures = self.sample(pipeline, noise, steps)
        found: list[Image.Image] = pipeline.numpy_to_pil(pictures)
        return found

    @torch.inference_mode()
    def sample(self, pipeline: Any, noise: torch.Tensor, steps: int) -> Any:
        """NCHW noise -> NHWC float32 in [0, 1]."""
        pipeline.scheduler.set_timesteps(steps)
        picture = noise.to(pipeline.unet.device, pipeline.unet.dtype)
        for time in pipeline.scheduler.timesteps:
            predicted = pipeline.unet(picture, time).sample
            picture = pipeline.scheduler.step(predicted, time, picture).prev_sample
        return (picture.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()

    def call(self, prompt: str, side: int, steps: int, guidance: float) -> str:
        """It is asked for nothing."""
        return f"num_inference_steps={steps}"


FAMILY = Unconditional()
