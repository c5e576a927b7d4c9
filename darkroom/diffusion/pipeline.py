"""The parts of a latent diffusion pipeline, and the pipeline made of them: diffusers' classes throughout."""

import shutil
from pathlib import Path
from typing import Any

from darkroom.recipe import Sampler
from darkroom.store import write_json

FACTS = "darkroom.json"


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


def load_pipeline(folder: Path, device: str) -> Any:
    """The pipeline of a checkpoint's ``pipeline/``."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_pipeline(pipeline: Any, folder: Path, card: str) -> None:
    """Write the pipeline in safetensors, and its model card."""
    from .families import family_of

    family_of(pipeline).settle(pipeline)
    for part in (pipeline, *pipeline.components.values()):
        forget_place(part)
        forget_last_text(part)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(card, "utf-8")


def forget_place(part: Any) -> None:
    """Take out of a configuration from which folder it was read: that of this machine is no one else's business."""
    from diffusers import ConfigMixin

    if isinstance(part, ConfigMixin) and part.config.get("_name_or_path"):
        part.register_to_config(_name_or_path="")


def forget_last_text(part: Any) -> None:
    """Take out of a tokenizer how it cut and filled the last text: what was drawn last is not part of what is saved."""
    if (fast := getattr(part, "backend_tokenizer", None)) is not None:
        fast.no_truncation()
        fast.no_padding()


def publish(pipeline: Path, folder: Path, card: str, sampler: Sampler, threads: int) -> None:
    """Copy a checkpoint's pipeline to ``folder``, with the card and the sampler of its first evaluation.

    The served model reads the sampler from :data:`FACTS`.
    """
    shutil.copytree(pipeline, folder)
    (folder / "README.md").write_text(card, "utf-8")
    if (folder / "model_index.json").is_file():  # an autoencoder draws nothing
        write_json(folder / FACTS, {"sampler": {**sampler.model_dump(), "threads": threads}})
