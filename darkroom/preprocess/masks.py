"""What of a picture counts: its alpha channel, for losses that look at nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from darkroom.errors import DarkroomError

from .buckets import Shape
from .pictures import fitted_pixels
from .variants import Variant


def mask(original: Path | None, shape: Shape, how: Variant, latent: tuple[int, int]) -> np.ndarray:
    """An accepted picture's own file -> 1hw uint8 at the size of its latents: 255 where it is opaque.

    Cut, shrunk and mirrored as its pixels are. None stands for a picture without transparency. Raises
    :class:`DarkroomError` when the file is gone or damaged.
    """
    import cv2

    if original is None:
        return np.full((1, *latent), 255, np.uint8)
    plain = replace(how, colour=None)  # which would change what is not a colour
    alpha = fitted_pixels(np.repeat(_alpha(original)[..., None], 3, axis=2), shape, plain)[0]
    small: np.ndarray = cv2.resize(alpha, latent[::-1], interpolation=cv2.INTER_AREA)[None]
    return small


def _alpha(original: Path) -> np.ndarray:
    """HW uint8, upright. The file was strictly decoded by check before it was accepted."""
    from PIL import Image, ImageOps

    try:
        with Image.open(original) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DarkroomError(f"{original} is gone or damaged ({error}): run again with --fresh check") from error
