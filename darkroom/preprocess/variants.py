"""Augmentation: further variants of a training picture, each of which follows from (picture id, number) alone.

They are made once and are rows like any other, so that their latents are cached. Variant 0 is the picture as it is.
"""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkroom.randomness import seed_of
from darkroom.recipe import Augment

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Variant:
    """What is done to one picture.

    ``crop`` is (share of each side that is kept, left and top of the cut as shares of what may be moved); ``colour``
    the factors of brightness, contrast and saturation.
    """

    number: int = 0
    flip: bool = False
    crop: tuple[float, float, float] | None = None
    colour: tuple[float, float, float] | None = None

    def record(self) -> dict[str, Any]:
        """What a row says about its variant: nothing for the picture as it is."""
        if self.number == 0:
            return {}
        said: dict[str, Any] = {"variant": self.number, "flip": self.flip}
        said |= {} if self.crop is None else {"crop": list(self.crop)}
        return said | ({} if self.colour is None else {"colour": list(self.colour)})

    def transform(self) -> list[Any]:
        """What of it changes pixels: part of the key under which they are cached."""
        return [self.flip, self.crop, self.colour]


PLAIN = Variant()


def variant(picture_id: str, number: int, plan: Augment) -> Variant:
    """Variant ``number`` of a picture. Odd ones are mirrored, where ``plan`` allows it: chance would repeat some."""
    if number == 0:
        return PLAIN
    draw = random.Random(seed_of("variant", picture_id, number)).random
    share, left, top, *factors = (draw() for _ in range(6))  # all of them always: one option does not move another
    crop = (round(plan.crop + (1 - plan.crop) * share, 4), round(left, 4), round(top, 4)) if plan.crop < 1 else None
    brightness, contrast, saturation = (round(1 + plan.colour * (2 * factor - 1), 4) for factor in factors)
    colour = (brightness, contrast, saturation) if plan.colour else None
    return Variant(number, plan.flip and number % 2 == 1, crop, colour)


def caption_of(caption: str | None, picture_id: str, number: int, plan: Augment) -> str | None:
    """The caption of a variant: its comma-separated tags in another order, where ``plan`` shuffles them."""
    if number == 0 or not plan.shuffle_tags or caption is None:
        return caption
    tags = [tag for part in caption.split(",") if (tag := part.strip())]
    if len(tags) < 2:
        return caption
    draw = random.Random(seed_of("tags", picture_id, number)).random
    return ", ".join(tag for _, tag in sorted((draw(), tag) for tag in tags))


def recoloured(rgb: np.ndarray, factors: tuple[float, float, float]) -> np.ndarray:
    """HWC uint8 -> the same with brightness, contrast (about its mean grey) and saturation multiplied."""
    brightness, contrast, saturation = factors
    picture = rgb.astype(np.float32) * brightness
    mean = (picture @ LUMA).mean(dtype=np.float64)
    picture = mean + (picture - mean) * contrast
    grey = (picture @ LUMA)[..., None]
    mixed: np.ndarray = np.rint((grey + (picture - grey) * saturation).clip(0, 255)).astype(np.uint8)
    return mixed
