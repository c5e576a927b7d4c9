"""The parts of a latent diffusion pipeline, and the pipeline made of them: diffusers' classes throughout."""

import shutil
from pathlib import Path
from typing import Any

import torch

from darkroom.recipe import Model, Sampler
from darkroom.store import write_json

FACTS = "darkroom.json"


def new_unet(model: Model, latent_channels: int, latent_size: int, text_width: int, seed: int) -> Any:
    """A ``UNet2DConditionModel`` with fresh weights that follow from ``seed`` alone."""
    from diffusers import UNet2DConditionModel

    shape = model.unet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=latent_channels,
            out_channels=latent_channels,
            down_block_types=shape.down_block_types,
            up_block_types=shape.up_block_types,
            block_out_channels=shape.block_out_channels,
            layers_per_block=shape.layers_per_block,
            attention_head_dim=shape.attention_heads,  # diffusers reads it as the number of heads
            norm_num_groups=shape.norm_num_groups,
            cross_attention_dim=text_width,
        )


def scheduler() -> Any:
    """DPM-Solver++ (Lu et al. 2022) on the straight path of flow matching."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)


def load_text(path: Path) -> tuple[Any, Any]:
    """(CLIPTokenizer, CLIPTextModel) of a folder that has them at its top or as Stable Diffusion does."""
    from transformers import CLIPTextModel, CLIPTokenizer

    whole = (path / "text_encoder").is_dir()
    tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer" if whole else path)
    return tokenizer, CLIPTextModel.from_pretrained(
        path / "text_encoder" if whole else path, use_safetensors=True
    ).eval()


def load_vae(path: Path) -> Any:
    """The ``AutoencoderKL`` of a folder that has it at its top or as Stable Diffusion does."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(path / "vae" if (path / "vae").is_dir() else path, use_safetensors=True).eval()


def assemble(unet: Any, vae: Any, tokenizer: Any, text_encoder: Any) -> Any:
    """A ``StableDiffusionPipeline``, silent, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_pipeline(folder: Path, device: str) -> Any:
    """The pipeline of a checkpoint's ``pipeline/``."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_pipeline(pipeline: Any, folder: Path, card: str) -> None:
    """Write the pipeline in safetensors, and its model card."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(card, "utf-8")


def publish(pipeline: Path, folder: Path, card: str, sampler: Sampler, threads: int) -> None:
    """Copy a checkpoint's pipeline to ``folder``, with the card and the sampler of its first evaluation.

    The served model reads the sampler from :data:`FACTS`.
    """
    shutil.copytree(pipeline, folder)
    (folder / "README.md").write_text(card, "utf-8")
    write_json(folder / FACTS, {"sampler": {**sampler.model_dump(), "threads": threads}})


@torch.inference_mode()
def embed(captions: list[str], tokenizer: Any, text_encoder: Any) -> torch.Tensor:
    """Captions -> float32 [N, tokens, width], as ``StableDiffusionPipeline`` feeds them to the UNet."""
    parts = []
    for start in range(0, len(captions), 64):
        tokens = tokenizer(
            captions[start : start + 64],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        parts.append(text_encoder(tokens.input_ids.to(text_encoder.device))[0].float())
    return torch.cat(parts)
