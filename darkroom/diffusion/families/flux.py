"""Flux (Black Forest Labs 2024): flow matching by a transformer on packed latents, with CLIP's pooled text and T5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from darkroom.recipe_training import Model

from ..objectives import Objective
from .base import Conditions, Family, Parts, Shape, in_calls_of
from .encoders import load_clip, load_t5, tokens
from .transformer import flow_scheduler, load_shifted_vae, must_divide, seeded

if TYPE_CHECKING:
    from PIL import Image

T5_TOKENS = 512  # of a prompt, where the pipeline's call is told no other number
PATCH = 2  # side of the squares of latents that make a token
# What models that were distilled with guidance are told of it while they are trained: 1, which is none.
GUIDANCE = 1.0


class Flux(Family):
    """``FluxPipeline``: FLUX.1-dev, which is told the guidance, FLUX.1-schnell, and new ones, which are not."""

    name = "flux"
    pipeline = "FluxPipeline"
    denoiser = "transformer"
    asked_by = "caption"
    shifts_latents = True

    def new(self, model: Model, parts: Parts, shape: Shape, objective: Objective, seed: int, dropout: float) -> Any:
        """A new transformer between the autoencoder and the text encoders that the recipe names.

        A third of its layers keep text and picture apart, as in FLUX.1. Raises :class:`RecipeError` where latents
        make no whole tokens.
        """
        from diffusers import FluxPipeline, FluxTransformer2DModel

        plan = model.transformer
        must_divide(shape.side, PATCH, "Flux's token side")
        clip, t5 = load_clip(parts["text_encoder"], 1, False), load_t5(parts["text_encoder_2"], 2)
        apart = max(1, plan.layers // 3)
        along = plan.head_width * 7 // 16 // 2 * 2  # rotary channels of each side; even, as FLUX.1's 56 of 128
        transformer = seeded(
            seed,
            lambda: FluxTransformer2DModel(
                in_channels=shape.channels * PATCH**2,
                num_layers=apart,
                num_single_layers=plan.layers - apart,
                num_attention_heads=plan.heads,
                attention_head_dim=plan.head_width,
                joint_attention_dim=t5[1].config.d_model,
                pooled_projection_dim=clip[1].config.hidden_size,
                guidance_embeds=False,
                axes_dims_rope=(plan.head_width - 2 * along, along, along),
            ),
        )
        made = FluxPipeline(
            scheduler=flow_scheduler(),
            vae=load_shifted_vae(parts["vae"]),
            tokenizer=clip[0],
            text_encoder=clip[1],
            tokenizer_2=t5[0],
            text_encoder_2=t5[1],
            transformer=transformer,
        )
        self.resize(made, shape.side)
        return made

    def encode(self, pipeline: Any, texts: Sequence[str]) -> Conditions:
        """``pooled`` [N, width of CLIP] and ``t5`` [N, 512, width of T5]."""
        length = pipeline.tokenizer_max_length
        clip, t5 = pipeline.text_encoder, pipeline.text_encoder_2

        def encode(part: list[str]) -> Conditions:
            numbers = tokens(pipeline.tokenizer, part, length).to(clip.device)
            more = tokens(pipeline.tokenizer_2, part, T5_TOKENS).to(t5.device)
            return {"pooled": clip(numbers).pooler_output.float(), "t5": t5(more)[0].float()}

        return in_calls_of(1, texts, encode)

    def encoder_parts(self) -> tuple[str, ...]:
        """CLIP and T5 with their tokenizers."""
        return ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")

    def encoders(self, pipeline: Any) -> list[Any]:
        """These, asked as Flux asks them."""
        return [self.name, *super().encoders(pipeline)]

    def predict(self, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """The transformer's answer to packed latents; it counts time from 0 to 1."""
        height, width = noisy.shape[-2] // PATCH, noisy.shape[-1] // PATCH
        places = torch.zeros(height, width, 3, device=noisy.device)
        places[..., 1] += torch.arange(height, device=noisy.device)[:, None]
        places[..., 2] += torch.arange(width, device=noisy.device)
        told = torch.full((len(noisy),), GUIDANCE, device=noisy.device) if denoiser.config.guidance_embeds else None
        predicted = denoiser(
            hidden_states=pack(noisy),
            timestep=times / 1000,
            guidance=told,
            pooled_projections=given["pooled"],
            encoder_hidden_states=given["t5"],
            txt_ids=torch.zeros(given["t5"].shape[1], 3, device=noisy.device),
            img_ids=places.view(-1, 3),
        ).sample
        return unpack(predicted, height, width)

    def draw(
        self, pipeline: Any, texts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
    ) -> "list[Image.Image]":
        """Through the pipeline's call: models that are told the guidance are told this one, others are guided by it."""
        side = self.latent_shape(pipeline)[1] * pipeline.vae_scale_factor
        if pipeline.transformer.config.guidance_embeds:
            guided: dict[str, Any] = {"guidance_scale": guidance}
        else:
            guided = {"true_cfg_scale": guidance, "negative_prompt": [""] * len(texts)}
        answer = pipeline(
            prompt=list(texts),
            height=side,
            width=side,
            latents=pack(noise).to(pipeline.transformer.device, pipeline.transformer.dtype),
            num_inference_steps=steps,
            output_type="pil",
            **guided,
        )
        pictures: list[Image.Image] = answer.images
        return pictures

    def latent_shape(self, pipeline: Any) -> tuple[int, int, int]:
        """The transformer has no side of its own: that of the autoencoder's pictures."""
        side = int(pipeline.vae.config.sample_size) // int(pipeline.vae_scale_factor)
        return (int(pipeline.transformer.config.in_channels) // PATCH**2, side, side)

    def resize(self, pipeline: Any, side: int) -> None:
        """See :meth:`latent_shape`."""
        pipeline.vae.register_to_config(sample_size=side * pipeline.vae_scale_factor)

    def call(self, prompt: str, side: int, steps: int, guidance: float) -> str:
        """With the side, for which the pipeline would take 1024."""
        guided = f", true_cfg_scale={guidance}, negative_prompt=''" if guidance > 1 else ""
        return f"{prompt!r}, height={side}, width={side}, num_inference_steps={steps}{guided}"


def pack(latents: torch.Tensor) -> torch.Tensor:
    """NCHW -> [N, HW/4, 4C]: each square of 2 x 2 is a token."""
    count, channels, height, width = latents.shape
    cut = latents.reshape(count, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * PATCH**2)


def unpack(packed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The reverse of :func:`pack`; ``height`` and ``width`` in tokens."""
    cut = packed.reshape(len(packed), height, width, -1, PATCH, PATCH)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(packed), -1, height * PATCH, width * PATCH)


FAMILY = Flux()
