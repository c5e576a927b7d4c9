"""What a LoRA of Stable Diffusion 1.5 is called in its file: by a list of this test's own, not by diffusers' code."""

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open

from darkroom.recipe_training import Lora
from darkroom.training.methods.lora import FILE, adapt, found_targets, save_adapter

# Stable Diffusion 1.5 attends twice in each of three levels going down, in the middle, and three times each going up.
PLACES = [f"down_blocks.{level}.attentions.{number}" for level in (0, 1, 2) for number in (0, 1)]
PLACES += [f"up_blocks.{level}.attentions.{number}" for level in (1, 2, 3) for number in (0, 1, 2)]
PLACES += ["mid_block.attentions.0"]
ATTENTION = [f"attn{which}.{layer}" for which in (1, 2) for layer in ("to_q", "to_k", "to_v", "to_out.0")]


def names(layers: list[str]) -> set[str]:
    """What other programs that read diffusers' format look for."""
    weights = ("lora_A.weight", "lora_B.weight")
    return {
        f"unet.{place}.transformer_blocks.0.{layer}.{one}" for place in PLACES for layer in layers for one in weights
    }


@pytest.mark.parametrize(
    ("targets", "layers", "count"),
    [((), ATTENTION, 128), (("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj"), [*ATTENTION, "ff.net.0.proj"], 144)],
)
def test_all_layers_are_there_and_no_others(
    tmp_path: Path, targets: tuple[str, ...], layers: list[str], count: int
) -> None:
    # Of the same layers as Stable Diffusion 1.5, and narrow: names say nothing of widths.
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8, 8, 8), cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4
    )
    unet.requires_grad_(False)
    config = adapt(unet, Lora(rank=2, alpha=1.0), found_targets(unet, targets))
    pipeline = StableDiffusionPipeline.__new__(StableDiffusionPipeline)
    pipeline.__dict__["unet"] = unet
    save_adapter(pipeline, "unet", config, tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        assert set(file.keys()) == names(layers)
        assert len(set(file.keys())) == 2 * count
        assert '"unet.lora_alpha": 1.0' in file.metadata()["lora_adapter_metadata"]
