"""Aspect-ratio buckets: a few shapes of about equal area, so that pictures need not all be cut to squares.

After NovelAI's "improvements on Stable Diffusion" (2022): each picture goes to the shape with the nearest aspect, is
resized to cover it, and what stands over is cut off evenly. Shapes follow from the recipe and never from the pictures,
so that one added picture moves no other. A bucket with few pictures stays: see ``darkroom.training.draws``.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from darkroom.errors import RecipeError

if TYPE_CHECKING:
    import pandas as pd

Shape = tuple[int, int]  # (height, width), pixels


def shapes(size: int, count: int, step: int, max_aspect: float) -> tuple[Shape, ...]:
    """At most ``count`` shapes of about ``size`` x ``size`` pixels, from the tallest to the widest.

    The square is always among them, and the only one for ``count`` = 1. Of all whose sides are multiples of ``step``
    and whose aspect is at most ``max_aspect``, those are taken that lie furthest apart (by the logarithm of their
    aspect), wide before tall. Raises :class:`RecipeError` where ``size`` is no multiple of ``step`` and more than
    squares are asked for.
    """
    if count == 1:
        return ((size, size),)
    if size % step:
        raise RecipeError(
            f"preprocess.size = {size} is no multiple of preprocess.bucket_step = {step}, as the sides of several "
            f"buckets must be: take size = {max(step, round(size / step) * step)} or another step"
        )
    wide = []
    for long in range(size + step, int(size * math.sqrt(max_aspect)) + 2 * step, step):
        short = max(step, round(size * size / long / step) * step)
        if long <= short * max_aspect:
            wide.append((short, long))
    free = [shape for height, width in wide for shape in ((height, width), (width, height))]
    chosen = [(size, size)]
    while free and len(chosen) < count:
        apart = [min(abs(_log(shape) - _log(other)) for other in chosen) for shape in free]
        chosen.append(free.pop(int(np.argmax(np.round(apart, 9)))))
    return tuple(sorted(chosen, key=_log))


def assign(widths: "pd.Series | np.ndarray", heights: "pd.Series | np.ndarray", among: tuple[Shape, ...]) -> np.ndarray:
    """The position in ``among`` of each picture's shape, the nearest by the logarithm of the aspect: int64 [N]."""
    aspects = np.log(np.asarray(widths, np.float64) / np.asarray(heights, np.float64))
    distances = np.stack([np.abs(aspects - _log(shape)) for shape in among])
    found: np.ndarray = np.round(distances, 12).argmin(axis=0)  # a tie goes to the taller, whatever the last bits
    return found


def cropped(widths: "pd.Series | np.ndarray", heights: "pd.Series | np.ndarray", shape: Shape) -> np.ndarray:
    """The share of each picture's area that lies outside once it covers ``shape``: float64 [N], 0 to 1."""
    ratio = np.asarray(widths, np.float64) * shape[0] / (np.asarray(heights, np.float64) * shape[1])
    lost: np.ndarray = 1 - np.minimum(ratio, 1 / ratio)
    return lost


def name_of(shape: Shape) -> str:
    """As people write it: width x height."""
    return f"{shape[1]}x{shape[0]}"


def _log(shape: Shape) -> float:
    return math.log(shape[1] / shape[0])
