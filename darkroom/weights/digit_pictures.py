"""The pictures that the shipped weights are trained and measured on: the built-in recipe's, at 16 pixels."""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from darkroom.collect import digits
from darkroom.quality.picture import pixel_digest
from darkroom.quality.split import side

PIXELS = 16  # side of a picture
SPLIT_SEED, VALIDATION_SHARE = 0, 0.2  # the built-in recipe's; other pictures are never shown to the weights


@dataclass(frozen=True)
class Pictures:
    """One side of the split: ``images`` float32 [N, 3, 16, 16] in [-1, 1] and ``digits`` int64 [N]."""

    images: Tensor
    digits: Tensor

    def __len__(self) -> int:
        return len(self.digits)


def load(wanted: str) -> Pictures:
    """The digits on the ``"train"`` or the ``"validation"`` side, in scikit-learn's order."""
    images, labels = [], []
    for item in digits.items():
        assert isinstance(item.label, str)
        scan = np.asarray(Image.open(io.BytesIO(item.read())).convert("RGB"))
        if side(pixel_digest(scan), SPLIT_SEED, VALIDATION_SHARE) == wanted:
            images.append(decode(item.read()))
            labels.append(digits.WORDS.index(item.label))
    return Pictures(torch.stack(images), torch.tensor(labels))


def decode(content: bytes) -> Tensor:
    """A file's bytes -> float32 [3, 16, 16] in [-1, 1]: RGB, enlarged by Pillow's bicubic filter."""
    picture = Image.open(io.BytesIO(content)).convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture))  # HWC uint8
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def draw(pictures: Pictures, count: int, generator: torch.Generator) -> Pictures:
    """``count`` pictures at random, each slightly moved, turned, scaled and changed in contrast."""
    rows = torch.randint(len(pictures), (count,), generator=generator)
    return Pictures(_vary(pictures.images[rows], generator), pictures.digits[rows])


def _vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Up to 10 degrees, 10 %, one pixel and 20 % of contrast, as another hand would write; [N, 3, 16, 16] stays.

    Never mirrored: a mirrored digit is another sign.
    """
    uniform = torch.rand(5, len(images), generator=generator) * 2 - 1  # five numbers a picture, in [-1, 1]
    angle, scale, contrast = uniform[0] * math.radians(10), 1 + 0.1 * uniform[1], 1 + 0.2 * uniform[4]
    shift = uniform[2:4] * (2 / PIXELS)  # the grid's unit is half a picture
    across = torch.stack([angle.cos() * scale, -angle.sin() * scale, shift[0]], dim=1)
    down = torch.stack([angle.sin() * scale, angle.cos() * scale, shift[1]], dim=1)
    grid = functional.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    ink = (images + 1) / 2  # in [0, 1], so that the zeros outside the picture are its black ground
    moved = functional.grid_sample(ink, grid, mode="bicubic", align_corners=False)
    return (moved * contrast[:, None, None, None]).clamp(0, 1) * 2 - 1
