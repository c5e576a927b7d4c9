"""A checkpoint in one file, as the first programs for Stable Diffusion wrote it, is opened as a base without the hub.

The file is written here from a tiny pipeline, by names that follow CompVis' code and not diffusers' converter.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from darkroom.diffusion.families import Shape, family
from darkroom.diffusion.objectives import make
from darkroom.diffusion.pipeline import load_pipeline
from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.recipe import Model, UNet
from darkroom.recipe_training import Objective
from darkroom.weights import pipelines
from darkroom.weights.base import locate_base
from darkroom.weights.locate import locate

PARTS = {"vae": locate("builtin:digits-vae").path, "text_encoder": locate("builtin:digits-text-encoder").path}
LAYERS = 1
UNET = UNet(
    block_out_channels=(16, 32),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=LAYERS,
    attention_heads=2,
    norm_num_groups=8,
)
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"}
RESNET |= {"conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
ENDS = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
ENDS |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def of_unet(name: str, attends: tuple[bool, ...]) -> str:
    """The name of a UNet's tensor in CompVis' code, whose blocks are numbered through; ``attends``: by level, up."""
    for new, old in ENDS.items():
        if name.startswith(new + "."):
            return old + name.removeprefix(new)
    side, rest = name.split("_block", 1)
    if side == "mid":
        kind, number, rest = re.fullmatch(r"\.(\w+)\.(\d)\.(.*)", rest).groups()
        place = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}"
    else:
        level, kind, number, rest = re.fullmatch(r"s\.(\d)\.(\w+)\.(\d)\.(.*)", rest).groups()
        if kind == "downsamplers":
            return f"input_blocks.{(int(level) + 1) * (LAYERS + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{int(level) * (LAYERS + 1) + LAYERS}.{1 + attends[int(level)]}.{rest}"
        first = {"down": 1, "up": 0}[side] + int(level) * (LAYERS + 1)
        place = f"{ {'down': 'input', 'up': 'output'}[side] }_blocks.{first + int(number)}.{int(kind == 'attentions')}"
    if kind == "resnets":
        layer, _, leaf = rest.partition(".")
        rest = f"{RESNET[layer]}.{leaf}"
    return f"{place}.{rest}"


def of_vae(name: str, levels: int) -> str:
    """The name of an autoencoder's tensor there; its decoder counts levels from the largest."""
    name = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(
        r"up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)",
        lambda at: f"up.{levels - 1 - int(at[1])}." + (f"block.{at[3]}" if at[2] == "resnets" else "upsample"),
        name,
    )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda at: f"mid.block_{int(at[1]) + 1}", name)
    name = re.sub(r"mid_block\.attentions\.0\.(to_out\.0|\w+)", lambda at: f"mid.attn_1.{ATTENTION[at[1]]}", name)
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def checkpoint(pipeline: Any) -> dict[str, torch.Tensor]:
    """All weights of a pipeline in one table, as Stable Diffusion 1's files have them."""
    found = {}
    attends = tuple(kind.startswith("CrossAttn") for kind in UNET.up_block_types)
    for name, value in pipeline.unet.state_dict().items():
        found["model.diffusion_model." + of_unet(name, attends)] = value
    for name, value in pipeline.vae.state_dict().items():
        old = of_vae(name, len(pipeline.vae.config.block_out_channels))
        convolution = ".attn_1." in old and value.ndim == 2  # attention was made of convolutions of one pixel
        found["first_stage_model." + old] = value[..., None, None] if convolution else value
    for name, value in pipeline.text_encoder.state_dict().items():
        found["cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")] = value
    return {name: value.contiguous().clone() for name, value in found.items()}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """A tiny Stable Diffusion."""
    model = Model(vae="builtin:digits-vae", text_encoder="builtin:digits-text-encoder", unet=UNET)
    return family("stable-diffusion").new(model, PARTS, Shape(1, 8), make(Objective(), "flow"), 0, 0.0)


@pytest.fixture
def file(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It in one file, and beside it a folder that has its configuration and no weights."""
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = tmp_path / "mine.safetensors"
    save_file(checkpoint(pipeline), path)
    pipeline.save_pretrained(tmp_path / "mine")
    for weights in (tmp_path / "mine").rglob("*.safetensors"):
        weights.unlink()
    return path


def test_it_is_the_pipeline_that_it_was_written_from(pipeline: Any, file: Path) -> None:
    found = locate_base(str(file), "stable-diffusion")
    opened = load_pipeline(found.path, "cpu")
    for part in ("unet", "vae", "text_encoder"):
        old, new = (getattr(one, part).state_dict() for one in (pipeline, opened))
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old), part
    assert type(opened.scheduler) is type(pipeline.scheduler)
    assert opened.tokenizer("a handwritten six").input_ids == pipeline.tokenizer("a handwritten six").input_ids
    assert locate_base(str(file), "stable-diffusion") == found, "converted once"

    # Another configuration for the same weights is another base.
    index = file.with_suffix("") / "scheduler/scheduler_config.json"
    index.write_text(index.read_text().replace('"solver_order": 2', '"solver_order": 1'))
    assert locate_base(str(file), "stable-diffusion").path != found.path


def test_without_a_configuration_and_without_the_hub_the_remedy_is_said(file: Path) -> None:
    shutil.rmtree(file.with_suffix(""))
    with pytest.raises(
        ServiceUnavailable, match=r"put a pipeline's folder without its weights beside the file as mine/"
    ):
        locate_base(str(file), "stable-diffusion")


def test_a_file_of_something_else_or_cut_short_is_said_and_nothing_is_kept(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecipeError, match=r"mine\.safetensors' cannot be read as a StableDiffusionPipeline"):
        locate_base(str(file), "stable-diffusion")
    save_file({"weight": torch.zeros(3)}, file)
    with pytest.raises(RecipeError, match="cannot be read as a StableDiffusionPipeline"):
        locate_base(str(file), "stable-diffusion")
    assert not list((tmp_path / "home").rglob(pipelines.INDEX))
