"""Stable Diffusion XL (Podell et al. 2023): two CLIP encoders, a pooled text, and the picture's size as a condition."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from darkroom.recipe_training import Model

from ..objectives import Objective
from ..pipeline import load_vae
from .base import Conditions, Family, Parts, Shape, in_calls_of
from .encoders import TOKENS_AT_ONCE, clip_states, load_clip
from .stable_diffusion import new_unet

if TYPE_CHECKING:
    from PIL import Image

SIZE_WIDTH = 256  # channels that each number of the size is embedded in


class StableDiffusionXL(Family):
    """``StableDiffusionXLPipeline``."""

    name = "stable-diffusion-xl"
    pipeline = "StableDiffusionXLPipeline"
    denoiser = "unet"
    asked_by = "caption"

    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A new UNet between the autoencoder and the two text encoders that the recipe names."""
        from diffusers import StableDiffusionXLPipeline

        first, second = (
            load_clip(parts["text_encoder"], 1, False),
            load_clip(parts["text_encoder_2"], 2, True),
        )
        pooled = second[1].config.projection_dim
        more = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SIZE_WIDTH,
            "projection_class_embeddings_input_dim": pooled + 6 * SIZE_WIDTH,
            "use_linear_projection": True,
        }
        width = first[1].config.hidden_size + second[1].config.hidden_size
        return StableDiffusionXLPipeline(
            vae=load_vae(parts["vae"]),
            tokenizer=first[0],
            text_encoder=first[1],
            tokenizer_2=second[0],
            text_encoder_2=second[1],
            unet=new_unet(model, shape, width, seed, dropout, more),
            scheduler=objective.scheduler(),
            force_zeros_for_empty_prompt=False,  # the empty prompt is then the same on both sides of the guidance
            add_watermarker=False,
        )

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """``encoder_hidden_states`` [N, tokens, widths], ``text_embeds`` [N, width], ``pixels`` [N] of a latent's side.

        The unconditional branch is all zeros where the pipeline has it so.
        """
        length = pipeline.tokenizer.model_max_length
        zeros = bool(pipeline.config.get("force_zeros_for_empty_prompt"))

        def encode(part: list[str]) -> Conditions:
            pairs = [(pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2)]
            states, (_, pooled) = clip_states(pairs, part, length)
            if zeros:
                empty = torch.tensor([not text for text in part], device=states.device)
                states = states.masked_fill(empty.view(-1, 1, 1), 0)
                pooled = pooled.masked_fill(empty.view(-1, 1), 0)
            pixels = torch.full((len(part),), pipeline.vae_scale_factor, dtype=torch.int64)
            return {"encoder_hidden_states": states, "text_embeds": pooled, "pixels": pixels}

        return in_calls_of(max(1, TOKENS_AT_ONCE // length), texts, encode)

    def encoder_parts(self) -> tuple[str, ...]:
        """Both tokenizers and encoders."""
        return ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")

    def encoders(self, pipeline: Any) -> list[Any]:
        """These, and what else goes into the conditions."""
        zeros = bool(pipeline.config.get("force_zeros_for_empty_prompt"))
        return [f"{self.name} {zeros} {pipeline.vae_scale_factor}", *super().encoders(pipeline)]

    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """The UNet's answer. It is told (height, width, top, left, height, width): pictures are as large as wanted."""
        height, width = (given["pixels"] * side for side in noisy.shape[-2:])
        corner = torch.zeros_like(height)
        sizes = torch.stack([height, width, corner, corner, height, width], dim=1).to(given["text_embeds"].dtype)
        predicted: torch.Tensor = denoiser(
            noisy,
            times,
            encoder_hidden_states=given["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": given["text_embeds"], "time_ids": sizes},
        ).sample
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


FAMILY = StableDiffusionXL()
