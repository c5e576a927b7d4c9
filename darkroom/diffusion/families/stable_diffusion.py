"""Stable Diffusion 1 and 2: AutoencoderKL, one CLIP text encoder and a UNet2DConditionModel (Rombach et al. 2022)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from darkroom.recipe_training import Model

from ..objectives import Objective
from ..pipeline import load_text, load_vae
from .base import Conditions, Family, Parts, Shape, in_calls_of
from .encoders import TOKENS_AT_ONCE, tokens

if TYPE_CHECKING:
    from PIL import Image


class StableDiffusion(Family):
    """``StableDiffusionPipeline``."""

    name = "stable-diffusion"
    pipeline = "StableDiffusionPipeline"
    denoiser = "unet"
    asked_by = "caption"

    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A new UNet between the autoencoder and the text encoder that the recipe names."""
        from diffusers import StableDiffusionPipeline

        tokenizer, text_encoder = load_text(parts["text_encoder"])
        return StableDiffusionPipeline(
            vae=load_vae(parts["vae"]),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=new_unet(model, shape, text_encoder.config.hidden_size, seed, dropout),
            scheduler=objective.scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """``encoder_hidden_states`` [N, tokens, width], as the pipeline itself feeds them to the UNet."""
        tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
        length = tokenizer.model_max_length

        def encode(part: list[str]) -> Conditions:
            # A learnt word of several embeddings is spelt out, as the pipeline's own call does.
            words = [pipeline.maybe_convert_prompt(text, tokenizer) for text in part]
            numbers = tokens(tokenizer, words, length).to(encoder.device)
            return {"encoder_hidden_states": encoder(numbers)[0].float()}

        return in_calls_of(max(1, TOKENS_AT_ONCE // length), texts, encode)

    def encoder_parts(self) -> tuple[str, ...]:
        """The tokenizer and the text encoder."""
        return ("tokenizer", "text_encoder")

    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """The UNet's answer."""
        predicted: torch.Tensor = denoiser(noisy, times, encoder_hidden_states=given["encoder_hidden_states"]).sample
        return predicted

    def draw(
        self, pipeline: Any, texts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
    ) -> "list[Image.Image]":
        """Through the pipeline's call."""
        answer = pipeline(
            prompt=list(texts),
            latents=noise.to(pipeline.unet.device, pipeline.unet.dtype),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pil",
        )
        pictures: list[Image.Image] = answer.images
        return pictures


def new_unet(
    model: Model, shape: Shape, text_width: int, seed: int, dropout: float = 0.0, more: dict[str, Any] | None = None
) -> Any:
    """A ``UNet2DConditionModel`` with fresh weights that follow from ``seed`` alone; ``more`` are further arguments."""
    from diffusers import UNet2DConditionModel

    plan = model.unet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=shape.side,
            in_channels=shape.channels,
            out_channels=shape.channels,
            down_block_types=plan.down_block_types,
            up_block_types=plan.up_block_types,
            block_out_channels=plan.block_out_channels,
            layers_per_block=plan.layers_per_block,
            attention_head_dim=plan.attention_heads,  # diffusers reads it as the number of heads
            norm_num_groups=plan.norm_num_groups,
            cross_attention_dim=text_width,
            dropout=dropout,
            **(more or {}),
        )


FAMILY = StableDiffusion()
