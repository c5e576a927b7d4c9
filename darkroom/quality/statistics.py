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
FRAME_STEP = 12  # levels by which a pixel of a uniform frame may differ from its colour
FRAME_EDGE = 0.6  # share of the line inside a frame that is not of its colour; things on a plain ground have less


def statistics(rgb: np.ndarray) -> dict[str, Any]:
    """HWC uint8, at most SIDE pixels -> the figures of the manifest, and five that only flags are made of.

    ``sharpness``: variance of the Laplacian of brightness (Pech-Pacheco et al., 2000), levels squared; ``entropy``: of
    brightness, bits; ``brightness_p5``, ``brightness_p99``: percentiles, 0-255; ``saturation``: mean of HSV's, 0-1;
    ``border``: see :func:`border`; ``phash``, ``dhash``, ``crops``: see ``hashes``, None where they mean nothing;
    ``descriptor``: 8 x 8 RGB as 384 hex digits. Colour is that of the hashes' cells.

    ``spread``: largest standard deviation of a channel; ``colour``: levels between the channels of a cell, the largest
    but for one in a thousand; ``edges``: the steepest bends of brightness (99.5th percentile of the Laplacian) over its
    range: 0.24 / s^2 for a clean edge blurred by s pixels; ``fine``, ``coarse``: correlation of neighbouring pixels and
    of neighbouring cells of the hashes, which only noise has not.
    """
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    bends = cv2.Laplacian(grey, cv2.CV_16S)
    counts = _histogram(grey)
    some = counts[counts > 0]
    p1, p5, p99 = _percentiles(counts, 0.01, 0.05, 0.99)
    (steepest,) = _percentiles(_histogram(cv2.convertScaleAbs(bends[::2])), 0.995)  # every second row tells as well
    small = _halved(rgb)
    cells = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.split(small)
    high = cv2.max(cv2.max(red, green), blue)
    colour = cv2.subtract(high, cv2.min(cv2.min(red, green), blue))
    hashed = min(rgb.shape[:2]) >= MIN_HASHED
    phash, dhash, crops = hashes.perceptual(cells.astype(np.float32)) if hashed else (None, None, None)
    values = {
        "sharpness": cv2.norm(bends, cv2.NORM_L2SQR) / grey.size - (cv2.sumElems(bends)[0] / grey.size) ** 2,
        "entropy": max(0.0, math.log2(grey.size) - float((some * np.log2(some)).sum()) / grey.size),
        "brightness_p5": p5,
        "brightness_p99": p99,
        "saturation": cv2.mean(cv2.divide(colour, high, scale=255))[0] / 255,
        "border": border(rgb),
        "phash": phash,
        "dhash": dhash,
        "crops": crops,
        "descriptor": cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA).tobytes().hex(),
        "spread": float(cv2.meanStdDev(small)[1].max()),
        "colour": _percentiles(np.bincount(colour.ravel(), minlength=256), 0.999)[0],
        "edges": steepest / (p99 - p1 + 1),
        "fine": _correlation(grey),
        "coarse": _correlation(cells),
    }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def _halved(rgb: np.ndarray) -> np.ndarray:
    """HWC halved until it fits the hashes' cells: much faster than in one step, and the same means."""
    import cv2

    while max(rgb.shape[:2]) > hashes.SIDE:
        size = (max(1, (rgb.shape[1] + 1) // 2), max(1, (rgb.shape[0] + 1) // 2))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    return rgb


def border(rgb: np.ndarray) -> float:
    """Share of the area that is a frame or bars of one colour: HWC uint8 -> 0-1.

    A side counts where most of the line inside it is of other colours: the plain ground around a thing is no frame.
    """
    if min(rgb.shape[:2]) < 16:
        return 0.0
    corners = (rgb, rgb[::-1, ::-1])
    return max((_frame(pixels) for pixels in corners if _plain(pixels[0]) or _plain(pixels[:, 0])), default=0.0)


def _plain(line: np.ndarray) -> bool:
    """Has a line of pixels, [N, 3], one colour?"""
    first, last = line[0].tolist(), line[-1].tolist()
    if any(abs(one - other) > FRAME_STEP for one, other in zip(first, last, strict=True)):
        return False  # which is nearly always so, and quickly seen
    return bool((np.abs(line.astype(np.int16) - first) <= FRAME_STEP).all())


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


def _percentiles(counts: np.ndarray, *shares: float) -> list[float]:
    """The levels that these shares of the pixels do not exceed."""
    reached = counts.cumsum()
    total = float(reached[-1])
    return [float(reached.searchsorted(share * total)) for share in shares]


def _deviation(pixels: np.ndarray) -> float:
    import cv2

    return float(cv2.meanStdDev(pixels)[1][0, 0])


def _correlation(grey: np.ndarray) -> float:
    """Of pixels and their neighbours, the larger of across and down; 1 where nothing varies: uint8 HW -> -1 to 1."""
    import cv2

    variance = _deviation(grey) ** 2
    if variance < 1 or min(grey.shape) < 2:
        return 1.0
    pairs = ((grey[:, 1:], grey[:, :-1]), (grey[1:], grey[:-1]))
    return max(float(1 - cv2.norm(one, other, cv2.NORM_L2SQR) / (2 * variance * one.size)) for one, other in pairs)
