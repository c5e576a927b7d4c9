"""Pipelines of every class and file layout that darkroom knows, of random weights and a few thousand of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = 16  # tokens of a prompt


def vae(channels: int = 4, shift: float | None = None, side: int = 16) -> Any:
    """Two pixels a latent."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=side,
        shift_factor=shift,
        scaling_factor=0.7,
    ).eval()


def clip(width: int, projection: int | None = None, act: str = "quick_gelu") -> tuple[Any, Any]:
    """A tokenizer with one token a byte, and an encoder of two layers."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WORDS,
        hidden_act=act,
        projection_dim=projection or 512,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    kind: Any = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    tokenizer = CLIPTokenizer({word: index for index, word in enumerate(words)}, [], model_max_length=WORDS)
    return tokenizer, kind(config).eval()


def t5(width: int) -> tuple[Any, Any]:
    """A tokenizer with one token a letter, and an encoder of one layer."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in letters)]
    config = T5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5TokenizerFast(vocab=words, extra_ids=0), T5EncoderModel(config).eval()


def unet(width: int, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **more,
    )


def _texts(**encoders: tuple[Any, Any]) -> dict[str, Any]:
    """``_2=(tokenizer, encoder)`` -> the pipeline's two parts of this number."""
    return {
        name + suffix.removeprefix("_1"): part
        for suffix, pair in encoders.items()
        for name, part in zip(("tokenizer", "text_encoder"), pair, strict=True)
    }


def stable_diffusion_1() -> Any:
    """Predicts noise; PNDM, as its repositories have it."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    return StableDiffusionPipeline(
        vae=vae(),
        **_texts(_1=clip(16)),
        unet=unet(16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_2() -> Any:
    """Predicts v; OpenCLIP's encoder, linear projections, a number of heads for each level."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    return StableDiffusionPipeline(
        vae=vae(),
        **_texts(_1=clip(24, act="gelu")),
        unet=unet(24, use_linear_projection=True),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Any:
    """Two encoders of different width; the empty prompt is zeros."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
    return StableDiffusionXLPipeline(
        vae=vae(),
        **_texts(_1=clip(16), _2=clip(24, projection=12, act="gelu")),
        unet=unet(40, projection_class_embeddings_input_dim=12 + 6 * 8, **more),
        scheduler=scheduler,
        add_watermarker=False,
    )


def _stable_diffusion_3(third: tuple[Any, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pooled_projection_dim=20,
        pos_embed_max_size=12,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift=0.06),
        **_texts(_1=clip(16, projection=8), _2=clip(24, projection=12, act="gelu"), _3=third),
    )


def stable_diffusion_3() -> Any:
    """With T5, which is wider than both CLIP encoders."""
    return _stable_diffusion_3(t5(48))


def stable_diffusion_3_without_t5() -> Any:
    """Zeros in the place of T5's tokens."""
    return _stable_diffusion_3((None, None))


def _flux(guidance: bool, dynamic: bool) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=dynamic, shift=3.0 if dynamic else 1.0),
        vae=vae(shift=0.1),
        **_texts(_1=clip(16), _2=t5(24)),
        transformer=transformer,
    )


def flux_dev() -> Any:
    """Is told the guidance; times are shifted by the picture's size."""
    return _flux(True, True)


def flux_schnell() -> Any:
    """Is not, and they are not."""
    return _flux(False, False)


def dit() -> Any:
    """Predicts noise and variances, as DiT-XL does; one label has two names."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        patch_size=2,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
    )
    return DiTPipeline(
        transformer, vae(), DDIMScheduler(), id2label={0: "tench, Tinca tinca", 1: "goldfish", 2: "white shark"}
    )


def unconditional() -> Any:
    """On pixels; its sampler clips, as DDPM's repositories have it."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    model = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return DDIMPipeline(model, DDIMScheduler())


MAKERS: dict[str, Callable[[], Any]] = {
    maker.__name__: maker
    for maker in (
        stable_diffusion_1,
        stable_diffusion_2,
        stable_diffusion_xl,
        stable_diffusion_3,
        stable_diffusion_3_without_t5,
        flux_dev,
        flux_schnell,
        dit,
        unconditional,
    )
}
KINDS = {
    "stable_diffusion_1": "epsilon",
    "stable_diffusion_2": "v",
    "stable_diffusion_xl": "epsilon",
    "stable_diffusion_3": "flow",
    "stable_diffusion_3_without_t5": "flow",
    "flux_dev": "flow",
    "flux_schnell": "flow",
    "dit": "epsilon",
    "unconditional": "epsilon",
}


def saved(name: str, folder: Path) -> Path:
    """A pipeline on disk, as its repository would lie there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MAKERS[name]()
    if name == "dit":
        made.register_to_config(id2label={0: "tench, Tinca tinca", 1: "goldfish", 2: "white shark"})
    made.save_pretrained(folder)
    return folder
