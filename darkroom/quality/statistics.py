"""Figures of one picture, all from the same small copy of it, so that they compare across resolutions.

The copy has at most ``SIDE`` pixels on its longer side and is never enlarged. So sharpness says how sharp a picture is
at that size: a large photo may look soft in full and be sharp for training.
"""

import math
from typing import Any

import numpy as np

from . import hashes

SIDE = 256
MIN_HASHED = 32  # pixels on the shorter side; below, the bits of a hash say the same few pixels again and again
SAMPLED = 128  # pixels of a side from which on every second one is as good as all, where only a percentile is asked
BRIGHTNESS = np.array([0.01, 0.05, 0.99])  # the percentiles that are asked for
FRAME_STEP = 12  # levels by which a pixel of a uniform frame may differ from its colour
FRAME_EDGE = 0.6  # share of the line inside a frame that is not of its colour; things on a plain ground have less


def statistics(rgb: np.ndarray) -> dict[str, Any]:
    """HWC uint8, at most SIDE pixels -> the figures of the manifest, and five that only flags are made of.

    ``sharpness``: variance of the Laplacian of brightness (Pech-Pacheco et al., 2000), levels squared; ``entropy``: of
    brightness, bits; ``brightness_p5``, ``brightness_p99``: percentiles, 0-255; ``saturation``: mean of HSV's, 0-1;
    ``border``: see :func:`border`; ``phash``, ``dhash``, ``crops``: see ``hashes``, None where they mean nothing;
    ``descriptor``: 8 x 8 RGB as 384 hex digits. Colour is that of about 64 x 64 cells.

    ``spread``: largest standard deviation of a channel; ``colour``: levels between the channels of a cell, the largest
    but for one in a thousand; ``edges``: the steepest bends of brightness (99.5th percentile of the Laplacian) over its
    range: 0.24 / s^2 for a clean edge blurred by s pixels; ``fine``, ``coarse``: correlation of neighbouring pixels and
    of neighbouring cells of the hashes, which only noise has not.
    """
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    area = grey.size
    bends = cv2.Laplacian(grey, cv2.CV_16S)
    counts = _histogram(grey)
    some = counts[counts > 0]
    p1, p5, p99 = counts.cumsum().searchsorted(BRIGHTNESS * area).tolist()
    sample = np.abs(bends[:: 1 + (grey.shape[0] > SAMPLED), :: 1 + (grey.shape[1] > SAMPLED)]).ravel()
    steepest = int(np.bincount(sample).cumsum().searchsorted(0.995 * sample.size))
    small = _halved(rgb, 2 * hashes.SIDE)
    red, green, blue = cv2.split(small)
    high = cv2.max(cv2.max(red, green), blue)
    colour = cv2.subtract(high, cv2.min(cv2.min(red, green), blue))
    cells = _halved(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), hashes.SIDE)
    coarse = _correlation(cells)
    hashed = min(rgb.shape[:2]) >= MIN_HASHED
    phash, dhash, crops = hashes.perceptual(cells.astype(np.float32)) if hashed else (None, None, None)
    return {
        "sharpness": round(cv2.norm(bends, cv2.NORM_L2SQR) / area - (cv2.sumElems(bends)[0] / area) ** 2, 4),
        "entropy": round(max(0.0, math.log2(area) - float((some * np.log2(some)).sum()) / area), 4),
        "brightness_p5": float(p5),
        "brightness_p99": float(p99),
        "saturation": round(cv2.mean(cv2.divide(colour, high, scale=255))[0] / 255, 4),
        "border": round(border(rgb), 4),
        "phash": phash,
        "dhash": dhash,
        "crops": crops,
        "descriptor": cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA).tobytes().hex(),
        "spread": round(float(cv2.meanStdDev(small)[1].max()), 4),
        "colour": float(_histogram(colour).cumsum().searchsorted(0.999 * colour.size)),
        "edges": round(steepest / (p99 - p1 + 1), 4),
        "coarse": round(coarse, 4),
        "fine": round(_correlation(grey), 4) if coarse < 0.5 else 1.0,
    }


def _halved(pixels: np.ndarray, side: int) -> np.ndarray:
    """HW or HWC halved until the longer side fits, or the shorter has less: the same means as in one step, faster."""
    import cv2

    while max(pixels.shape[:2]) > side <= min(pixels.shape[:2]):
        size = ((pixels.shape[1] + 1) // 2, (pixels.shape[0] + 1) // 2)
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return pixels


def border(rgb: np.ndarray) -> float:
    """Share of the area that is a frame or bars of one colour: HWC uint8 -> 0-1.

    A side counts where most of the line inside it is of other colours: the plain ground around a thing is no frame.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < 16:
        return 0.0
    (first, right), (left, last) = rgb[:: height - 1, :: width - 1].astype(np.int16).tolist()
    found = 0.0
    for corner, pixels in ((first, rgb), (last, rgb[::-1, ::-1])):
        across, down = (right, left) if corner is first else (left, right)
        if (_alike(corner, across) and _plain(pixels[0])) or (_alike(corner, down) and _plain(pixels[:, 0])):
            found = max(found, _frame(pixels))
    return found


def _alike(one: list[int], other: list[int]) -> bool:
    """Have two pixels one colour?"""
    return all(abs(a - b) <= FRAME_STEP for a, b in zip(one, other, strict=True))


def _plain(line: np.ndarray) -> bool:
    """Has a line of pixels, [N, 3], one colour?"""
    return bool((np.abs(line.astype(np.int16) - line[0]) <= FRAME_STEP).all())


def _frame(rgb: np.ndarray) -> float:
    """As :func:`border`, for a frame that has the colour of the first pixel."""
    import cv2

    height, width = rgb.shape[:2]
    first = rgb[0, 0].astype(np.int16)
    pixels = np.ascontiguousarray(rgb)
    low, high = ((first + step).clip(0, 255).astype(np.uint8) for step in (-FRAME_STEP, FRAME_STEP))
    inside = cv2.bitwise_not(cv2.inRange(pixels, low, high))
    across = np.flatnonzero(cv2.reduce(inside, 0, cv2.REDUCE_MAX))
    down = np.flatnonzero(cv2.reduce(inside, 1, cv2.REDUCE_MAX))
    if not len(across):
        return 1.0
    left, right, top, bottom = across[0], across[-1], down[0], down[-1]
    box = inside[top : bottom + 1, left : right + 1] > 0
    if min(box.shape) < 4:
        return 0.0
    lines = {"top": box[1], "bottom": box[-2], "left": box[:, 1], "right": box[:, -2]}  # the first may be a mixture
    real = {side: line.mean() >= FRAME_EDGE for side, line in lines.items()}
    rows = height - top * real["top"] - (height - 1 - bottom) * real["bottom"]
    columns = width - left * real["left"] - (width - 1 - right) * real["right"]
    return float(1 - rows * columns / (height * width))


def _histogram(levels: np.ndarray) -> np.ndarray:
    """uint8 HW -> how many pixels have each level: [256]."""
    import cv2

    return np.asarray(cv2.calcHist([levels], [0], None, [256], [0, 256])).ravel()


def _correlation(grey: np.ndarray) -> float:
    """Of pixels and their neighbours, the larger of across and down; 1 where nothing varies: uint8 HW -> -1 to 1."""
    import cv2

    height, width = grey.shape
    variance = float(cv2.meanStdDev(grey)[1][0, 0]) ** 2
    if variance < 1 or min(height, width) < 2:
        return 1.0
    across = cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR) / (height * (width - 1))
    down = cv2.norm(grey[1:], grey[:-1], cv2.NORM_L2SQR) / ((height - 1) * width)
    return float(1 - min(across, down) / (2 * variance))
