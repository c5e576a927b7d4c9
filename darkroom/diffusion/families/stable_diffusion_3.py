"""Stable Diffusion 3 (Esser et al. 2024): flow matching by a transformer that reads two CLIP encoders, and T5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from darkroom.errors import RecipeError
from darkroom.recipe_training import Model

from ..objectives import Objective
from .base import Conditions, Family, Parts, Shape, in_calls_of
from .encoders import TOKENS_AT_ONCE, clip_states, is_silent, load_clip, load_t5, silent_t5, tokens
from .transformer import flow_scheduler, load_shifted_vae, must_divide, seeded

if TYPE_CHECKING:
    from PIL import Image

T5_TOKENS = 256  # of a prompt, where the pipeline's call is told no other number


class StableDiffusion3(Family):
    """``StableDiffusion3Pipeline``, with T5 or without."""

    name = "stable-diffusion-3"
    pipeline = "StableDiffusion3Pipeline"
    denoiser = "transformer"
    asked_by = "caption"
    shifts_latents = True

    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A new transformer between the autoencoder and the text encoders that the recipe names.

        Raises :class:`RecipeError` where latents make no whole tokens, or T5 is narrower than the CLIP encoders.
        """
        from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

        plan = model.transformer
        must_divide(shape.side, plan.patch_size, "model.transformer.patch_size")
        first, second = (
            load_clip(parts["text_encoder"], 1, True),
            load_clip(parts["text_encoder_2"], 2, True),
        )
        clip_width = first[1].config.hidden_size + second[1].config.hidden_size
        third = load_t5(parts["text_encoder_3"], 3) if "text_encoder_3" in parts else silent_t5(clip_width)
        width = third[1].config.d_model
        if width < clip_width:
            raise RecipeError(
                f"model.text_encoder_3 = {model.text_encoder_3!r} is {width} wide, less than the {clip_width} of "
                "both CLIP encoders together, which would be cut off: take a wider T5, or none"
            )
        transformer = seeded(
            seed,
            lambda: SD3Transformer2DModel(
                sample_size=shape.side,
                patch_size=plan.patch_size,
                in_channels=shape.channels,
                out_channels=shape.channels,
                num_layers=plan.layers,
                num_attention_heads=plan.heads,
                attention_head_dim=plan.head_width,
                joint_attention_dim=width,
                caption_projection_dim=plan.heads * plan.head_width,
                pooled_projection_dim=first[1].config.projection_dim + second[1].config.projection_dim,
                pos_embed_max_size=3 * shape.side // plan.patch_size,  # as in SD3: room for shapes beside the square
                qk_norm="rms_norm",
            ),
        )
        return StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=flow_scheduler(),
            vae=load_shifted_vae(parts["vae"]),
            tokenizer=first[0],
            text_encoder=first[1],
            tokenizer_2=second[0],
            text_encoder_2=second[1],
            tokenizer_3=third[0],
            text_encoder_3=third[1],
        )

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """``clip`` [N, tokens, widths], ``pooled`` [N, widths] and, with T5, ``t5`` [N, 256, width].

        What the pipeline puts around them is zeros, which :meth:`predict` adds.
        """
        pairs = [(pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2)]
        length, silent = pipeline.tokenizer_max_length, is_silent(pipeline.text_encoder_3)

        def encode(part: list[str]) -> Conditions:
            states, pooled = clip_states(pairs, part, length)
            found = {"clip": states, "pooled": torch.cat(pooled, dim=-1)}
            if not silent:
                numbers = tokens(pipeline.tokenizer_3, part, T5_TOKENS).to(pipeline.text_encoder_3.device)
                found["t5"] = pipeline.text_encoder_3(numbers)[0].float()
            return found

        return in_calls_of(max(1, TOKENS_AT_ONCE // length), texts, encode)

    def encoder_parts(self) -> tuple[str, ...]:
        """Both CLIP encoders, and T5, with their tokenizers."""
        return ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "tokenizer_3", "text_encoder_3")

    def encoders(self, pipeline: Any) -> list[Any]:
        """Those that are there."""
        return [self.name, *(part for part in super().encoders(pipeline) if part is not None)]

    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """The transformer's answer."""
        width = denoiser.config.joint_attention_dim
        clip = functional.pad(given["clip"], (0, width - given["clip"].shape[-1]))
        third = given["t5"] if "t5" in given else clip.new_zeros(len(clip), T5_TOKENS, width)
        predicted: torch.Tensor = denoiser(
            hidden_states=noisy,
            timestep=times,
            encoder_hidden_states=torch.cat([clip, third], dim=-2),
            pooled_projections=given["pooled"],
        ).sample
        return predicted

    def draw(
        self, pipeline: Any, texts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
    ) -> "list[Image.Image]":
        """Through the pipeline's call."""
        answer = pipeline(
            prompt=list(texts),
            latents=noise.to(pipeline.transformer.device, pipeline.transformer.dtype),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pil",
        )
        pictures: list[Image.Image] = answer.images
        return pictures

    def settle(self, pipeline: Any) -> None:
        """One without T5 cannot be loaded again: it gets one that says nothing."""
        if pipeline.text_encoder_3 is None:
            tokenizer, encoder = silent_t5(pipeline.transformer.config.joint_attention_dim)
            pipeline.register_modules(tokenizer_3=tokenizer, text_encoder_3=encoder)


FAMILY = StableDiffusion3()
