"""One pass over one picture: strict decode, measures, and the working copy that everything later reads."""

import hashlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import statistics as figures
from .decode import Undecodable, decoding, done, reduced

# Raised when what the pass measures or writes changes: cached values and copies of another version are not used.
PASS = 3
MEASURES = (
    "width", "height", "format", "mode", "frames", "orientation", "sharpness", "entropy", "brightness_p5",
    "brightness_p99", "saturation", "border", "alpha", "pixels", "phash", "dhash", "crops", "descriptor", "converted",
)  # fmt: skip
Look = tuple[dict[str, Any], np.ndarray | None]

BATCH = 16  # pictures whose steps are taken in turn
# What is larger does not wait for others in memory, its steps are taken at once: bytes of a file, side of a copy.
LARGE_FILE, LARGE_SIDE = 2_000_000, 1024
FLAT = 2.0  # standard deviation of the most varied channel; what JPEG leaves of an even area stays below
CLEAR = 0.999  # share that is see-through
NOISE = (0.3, 0.2)  # correlation of neighbouring pixels and cells; the least in 630 real pictures is 0.60 and 0.13
MIN_JUDGED = 64  # pixels on the longer side; smaller pictures are not judged by their structure
BLURRED = 0.12  # edges wider than 1.4 pixels of 256 (one standard deviation); of 630 real pictures one has less
DARK = 80.0  # 99 % of the area is darker, of 255
BRIGHT = 242.0  # 95 % of the area is brighter
POOR = 3.0  # bits of entropy
FRAMED = 0.15  # share of the area
GREY = 12.0  # levels between channels; compression leaves some
QUALITY = 95  # of working copies of pictures that had lost pixels before


@dataclass(frozen=True)
class Rules:
    """What the pass needs to know of the recipe: sides and areas in pixels, aspect as longer over shorter side."""

    min_side: int
    max_pixels: int
    working_side: int
    max_aspect: float = float("inf")

    def key(self, picture_id: str) -> str:
        """The name of what this pass learns about a picture, and of its working copy.

        The other rules are not part of it: they are applied to what was learnt, so that they can change.
        """
        return hashlib.sha256(f"{PASS}:{self.working_side}:{picture_id}".encode()).hexdigest()


def working_path(root: Path, key: str) -> Path:
    """Where the working copy lies below the store's root: a JPEG or PNG, as its first bytes say."""
    return root / "working" / key[:2] / key


def thumbnail_path(root: Path, shown: Path) -> Path:
    """Where the reviewer's page keeps its thumbnail of a picture or working copy of the store, a PNG."""
    return root / "thumbnails" / shown.name[:2] / shown.name


def measure(path: Path, rules: Rules, copy: Path) -> dict[str, Any]:
    """Measure the picture at ``path`` and write its working copy: upright, sRGB, without metadata.

    Returns :data:`MEASURES` and ``flags``, or ``{"reason": ..., "flags": ...}`` for a picture that cannot be used.
    Reasons and flags are texts "kind: detail". Raises ``OSError`` for what the disk does wrong, which is not held
    against the picture, and ``MemoryError``.
    """
    (found,) = learn([(str(path), str(copy))], rules)
    if isinstance(found, Exception):
        raise found
    return judged(found, rules)


def learn(tasks: Sequence[tuple[str, str]], rules: Rules) -> list[dict[str, Any] | OSError | MemoryError]:
    """As :func:`measure` for each (path, path of its copy), but what is found whatever the rules, for :func:`judged`.

    What measure would raise stands in the picture's place. Each step is taken for all pictures before the next:
    decoding one drives everything else out of a processor's caches, which the other steps would have to fetch again
    for every picture. At most :data:`BATCH` are good at a time; more only take more memory.
    """
    found: list[dict[str, Any] | OSError | MemoryError] = [{}] * len(tasks)
    running = {place: _steps(*task, rules) for place, task in enumerate(tasks)}
    while running:
        for place, steps in list(running.items()):
            try:
                next(steps)
                continue
            except StopIteration as end:
                found[place] = end.value
            except (OSError, MemoryError) as error:
                found[place] = error
            del running[place]
    return found


def _steps(path: str, copy: str, rules: Rules) -> Generator[None, None, dict[str, Any]]:
    """One picture's way through :func:`learn`."""
    content = _content(path)
    looking = _looking(content, rules)
    if len(content) > LARGE_FILE or rules.working_side > LARGE_SIDE:
        values, rgb = done(looking)
    else:
        values, rgb = yield from looking
        yield
    if rgb is not None and not fault(values, rules):
        write_copy(rgb, copy, values["sampling"])
    return values


def look(content: bytes, rules: Rules) -> Look:
    """What a file's bytes show, whatever the rules: (values to keep and to give to :func:`judged`, working pixels)."""
    return done(_looking(content, rules))


def _content(path: str) -> bytes:
    """A file's bytes; half the calls of Python's own way."""
    handle = os.open(path, os.O_RDONLY)
    try:
        left = os.fstat(handle).st_size
        parts = []
        while left > 0 and (part := os.read(handle, left)):
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(handle)


def _looking(content: bytes, rules: Rules) -> Generator[None, None, Look]:
    """:func:`look` in steps."""
    try:
        found = yield from decoding(content, max(rules.working_side, figures.SIDE), rules.max_pixels)
    except Undecodable as fault:
        return {"reason": str(fault), "flags": []}, None
    rgb = reduced(found.rgb, rules.working_side)
    sampling = found.sampling
    if sampling == "420" and max(found.width, found.height) <= rules.working_side:
        sampling = "444"  # all that is left is kept; halving the colour a second time would blur it
    values = {
        "width": found.width,
        "height": found.height,
        "format": found.format,
        "mode": found.mode,
        "frames": found.frames,
        "orientation": found.orientation,
        **figures.statistics(reduced(found.rgb, figures.SIDE)),
        "alpha": round(found.alpha, 6),
        "pixels": pixel_digest(rgb),
        "converted": found.converted,
        "sampling": sampling,
        "flags": found.remarks,
    }
    if min(found.width, found.height) < figures.MIN_HASHED:
        values |= {"phash": None, "dhash": None, "crops": None}
    return values, rgb


def judged(values: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Reason and flags for what :func:`look` found: :data:`MEASURES` and ``flags``, or ``reason`` and ``flags``."""
    reason = values.get("reason") or fault(values, rules)
    if reason:
        return {"reason": reason, "flags": values["flags"]}
    return {**{name: values[name] for name in MEASURES}, "flags": [*values["flags"], *remarks(values)]}


def fault(values: dict[str, Any], rules: Rules) -> str | None:
    """Why a decoded picture cannot be used, the first of its faults."""
    width, height = values["width"], values["height"]
    if width * height > rules.max_pixels:
        return f"too many pixels: {width}x{height}, check.max_pixels = {rules.max_pixels:,}"
    if min(width, height) < rules.min_side:
        return f"too small: {width}x{height}, check.min_side = {rules.min_side}"
    if max(width, height) > rules.max_aspect * min(width, height):
        return f"extreme aspect: {width}x{height}, check.max_aspect = {rules.max_aspect:g}"
    if values["alpha"] >= CLEAR:
        return f"fully transparent: {values['alpha']:.1%} of the area"
    if values["spread"] < FLAT:
        return f"blank: one colour, which varies by {values['spread']:.1f} of 255 levels"
    if min(width, height) >= MIN_JUDGED and values["fine"] < NOISE[0] and values["coarse"] < NOISE[1]:
        return f"noise: neighbouring pixels are alike by {max(0.0, values['fine']):.0%}"
    return None


def remarks(values: dict[str, Any]) -> list[str]:
    """What is odd about a usable picture."""
    found = []
    large = max(values["width"], values["height"]) >= MIN_JUDGED
    low, high, edges = values["brightness_p5"], values["brightness_p99"], values["edges"]
    if edges < BLURRED and large:
        found.append(f"blurred: steepest edges {edges:.3f}, sharp pictures have above {BLURRED}")
    if high < DARK:
        found.append(f"dark: 99 % of the area is below {high:.0f} of 255")
    if low > BRIGHT:
        found.append(f"bright: 95 % of the area is above {low:.0f} of 255")
    if values["entropy"] < POOR and large:
        found.append(f"low information: {values['entropy']:.1f} bits of entropy")
    if values["border"] >= FRAMED and large and not values["alpha"]:  # what is transparent stands on a ground of ours
        found.append(f"thick border: {values['border']:.0%} of the area")
    if values["colour"] <= GREY:
        found.append("greyscale")
    return found


def write_copy(rgb: np.ndarray, copy: str, sampling: str | None) -> None:
    """HWC uint8 -> a PNG where ``sampling`` is None, else a JPEG that keeps colour so; moved into place."""
    import cv2
    import simplejpeg

    if sampling is None:
        encoded, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert encoded
        content = png.tobytes()
    else:
        content = simplejpeg.encode_jpeg(rgb, quality=QUALITY, colorspace="RGB", colorsubsampling=sampling)
    temporary = f"{copy}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(temporary, flags, 0o644)
    except FileNotFoundError:
        Path(copy).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, flags, 0o644)
    try:
        place = os.write(handle, content)
        while place < len(content):
            place += os.write(handle, memoryview(content)[place:])
    finally:
        os.close(handle)
    os.replace(temporary, copy)


def pixel_digest(rgb: np.ndarray) -> str:
    """HWC uint8 -> sha256: equal for equal pixels, whatever file they came in. Names clusters, so it decides sides."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()
