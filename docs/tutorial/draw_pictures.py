"""Draw the tutorial's pictures, from the digits and from the models that its commands register.

``python docs/tutorial/draw_pictures.py`` draws those that need no model; with ``DARKROOM_HOME`` of the tutorial's runs,
``python docs/tutorial/draw_pictures.py my-digits/1 my-digits/2`` draws the two versions from the same noise as well.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from darkroom.collect.digits import items
from darkroom.diffusion import flow
from darkroom.diffusion.pipeline import load_vae
from darkroom.diffusion.sampling import grid
from darkroom.preprocess.latents import encode
from darkroom.randomness import generator
from darkroom.weights.locate import locate

HERE = Path(__file__).parent
SHOWN = 8


def main(versions: list[str]) -> None:
    """Write the PNG files beside this script."""
    digits = torch.stack([pixels(item.read()) for _, item in zip(range(SHOWN), items(), strict=False)])
    save(noising(digits[3]), "noising")
    save(rebuilding(digits), "latents")
    if versions:
        save([picture for version in versions for picture in drawn(version)], "versions", columns=2 * SHOWN)


def save(pictures: list[Image.Image], name: str, columns: int = SHOWN) -> None:
    """Rows of small pictures, each pixel visible."""
    grid(pictures, columns=columns, shown_side=48).save(HERE / f"{name}.png", optimize=True)


def pixels(content: bytes) -> torch.Tensor:
    """PNG -> uint8 [3, 16, 16]."""
    with Image.open(io.BytesIO(content)) as picture:
        large = picture.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
    return torch.frombuffer(bytearray(large.tobytes()), dtype=torch.uint8).view(16, 16, 3).permute(2, 0, 1)


def picture(values: torch.Tensor) -> Image.Image:
    """CHW in [-1, 1], C being 1 or 3 -> a picture."""
    levels = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array = levels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array)


def noising(digit: torch.Tensor) -> list[Image.Image]:
    """One digit with more and more noise, from none to nothing else."""
    times = torch.linspace(0, 1, SHOWN)
    noise = torch.randn(1, *digit.shape, generator=generator(0, "tutorial")).expand(SHOWN, -1, -1, -1)
    clean = (digit.float() / 127.5 - 1).expand(SHOWN, -1, -1, -1)
    return [picture(one) for one in flow.interpolate(clean, noise, times)]


@torch.inference_mode()
def rebuilding(digits: torch.Tensor) -> list[Image.Image]:
    """Rows of digits, their latents (enlarged), and what the autoencoder makes of these."""
    vae: Any = load_vae(locate("builtin:digits-vae").path)
    latents = encode(vae, digits)
    rebuilt = vae.decode(latents / vae.config.scaling_factor).sample
    shown = [picture(one[:1] / 2).resize((16, 16), Image.Resampling.NEAREST) for one in latents]
    return [*(picture(one.float() / 127.5 - 1) for one in digits), *shown, *map(picture, rebuilt)]


def drawn(version: str) -> list[Image.Image]:
    """Sixteen pictures of a registered version; the same noise for each version."""
    from darkroom.generate import generate
    from darkroom.settings import Settings
    from darkroom.tracking import open_registry

    found = []
    for number, word in enumerate(("two", "five", "seven", "eight")):
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            out = Path(folder) / "pictures"
            registry = open_registry(Settings(), version.partition("/")[0])
            prompt = f"a handwritten {word}"
            *files, _ = generate(registry, version, prompt, count=SHOWN // 2, seed=number, out=out)
            found += [Image.open(file).copy() for file in files]
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
