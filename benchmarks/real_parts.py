"""Do a real LoRA and a real autoencoder agree with what darkroom writes and measures?

    DARKROOM_REAL_DATA=FOLDER .venv/bin/python benchmarks/real_parts.py

FOLDER has ``models/`` and ``captioned_photos/``.

The LoRA is one of cloneofsimo's for Stable Diffusion 1.5, whose file numbers its layers. Shown is whether
darkroom adapts as many, and whether each is as wide as the file's of the same place in that program's order.
The autoencoder is TAEF2, FLUX.2's in small: pickles of layers that diffusers' AutoencoderTiny has not, so that
no recipe can name it. It is built here and measured by darkroom's reconstruction errors.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from torch import nn

from darkroom.evaluation.reconstruction import reconstruction_errors, to_network
from darkroom.recipe_training import Lora
from darkroom.training.methods.lora import adapt, found_targets

# The order in which cloneofsimo's `lora` met the layers of a block: feed-forward came before the attention to the text.
ORDER = [f"attn1.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0")] + ["ff.net.0.proj"]
ORDER += [f"attn2.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0")]
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj")
PICTURES, SIDE = 32, 256


def main() -> None:
    """Print what agrees."""
    if not (folder := os.environ.get("DARKROOM_REAL_DATA")):
        sys.exit("set DARKROOM_REAL_DATA to the folder that has models/ and captioned_photos/")
    lora(Path(folder) / "models/sd_lora/analog_svd_rank4.safetensors")
    autoencoder(Path(folder) / "models/taef2", Path(folder) / "captioned_photos")


def lora(path: Path) -> None:
    """The layers of the real file beside those that darkroom adapts in a UNet of Stable Diffusion 1.5."""
    with safe_open(path, "pt") as file:
        count = sum(name.startswith("unet:") and name.endswith(":up") for name in file.keys())  # noqa: SIM118
        shapes = [
            tuple(file.get_slice(f"unet:{number}:{side}").get_shape()) for number in range(count) for side in SIDES
        ]
    rank = shapes[0][0]
    with torch.device("meta"):  # names and shapes alone
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        unet.requires_grad_(False)
        adapt(unet, Lora(rank=rank), found_targets(unet, TARGETS))
    adapted = {name: tuple(value.shape) for name, value in unet.named_parameters() if "lora_" in name}
    blocks = [name for name, _ in unet.named_modules() if name.endswith("transformer_blocks.0")]
    ours = [
        adapted[f"{block}.{layer}.lora_{side}.default.weight"] for block in blocks for layer in ORDER for side in "AB"
    ]
    print(
        f"LoRA of rank {rank}: {count} layers in the file, {len(adapted) // 2} adapted by darkroom, widths equal: ",
        end="",
    )
    print(f"{sum(one == other for one, other in zip(shapes, ours, strict=True)) // 2} of {count}")


SIDES = ("down", "up")


class Block(nn.Module):
    """TAESD's block; in the middle of TAEF2 with a branch that is normalised over groups."""

    def __init__(self, width: int, normalised: bool) -> None:
        super().__init__()
        steps = [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*steps, nn.Conv2d(width, width, 3, padding=1))
        wide = 4 * width
        inner = [nn.Conv2d(width, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU()]
        self.pool = nn.Sequential(*inner, nn.Conv2d(wide, width, 1, bias=False)) if normalised else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """NCHW -> NCHW."""
        if self.pool is not None:
            states = states + self.pool(states)
        found: torch.Tensor = torch.relu(self.conv(states) + states)
        return found


class Clamp(nn.Module):
    """Latents softly within -3 and 3."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """NCHW -> NCHW."""
        return torch.tanh(latents / 3) * 3


def encoder() -> nn.Sequential:
    """N3HW in [0, 1] -> N32hw."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), Block(64, False)]
    for level in range(3):
        layers.append(nn.Conv2d(64, 64, 3, padding=1, stride=2, bias=False))
        layers += [Block(64, level == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(64, 32, 3, padding=1))


def decoder() -> nn.Sequential:
    """N32hw -> N3HW in [0, 1]."""
    layers: list[nn.Module] = [Clamp(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    for level in range(3):
        layers += [*(Block(64, level == 0) for _ in range(3)), nn.Upsample(scale_factor=2)]
        layers.append(nn.Conv2d(64, 64, 3, padding=1, bias=False))
    return nn.Sequential(*layers, Block(64, False), nn.Conv2d(64, 3, 3, padding=1))


@torch.inference_mode()
def autoencoder(weights: Path, photos: Path) -> None:
    """The errors of real photos through TAEF2."""
    halves = {"encoder": encoder(), "decoder": decoder()}
    for name, half in halves.items():
        half.load_state_dict(torch.load(weights / f"taef2_{name}.pth", weights_only=True))
        half.float().eval()
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:PICTURES]
    originals, rebuilt = [], []
    for path in paths:
        picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]  # uint8 N3HW
        drawn = halves["decoder"](halves["encoder"](to_network(pixels) / 2 + 0.5))
        originals.append(pixels)
        rebuilt.append((drawn.clamp(0, 1) * 255).round().to(torch.uint8))
    found = reconstruction_errors(rebuilt, originals)
    print(f"TAEF2, {len(paths)} photos of {SIDE} px: ", end="")
    print(", ".join(f"{name.removeprefix('reconstruction_')} {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
