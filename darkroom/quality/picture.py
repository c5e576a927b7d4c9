"""One pass over one picture: strict decode, measures, and the working copy that everything later reads."""

import hashlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Raised when what the pass measures or writes changes: cached values and copies of another version are not used.
PASS = 1
# Formats that Pillow decodes itself; it would hand others, such as EPS, to programs of the system.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # a phone's MPO opens as JPEG
MEASURES = (
    "width", "height", "format", "mode", "frames", "orientation",
    "sharpness", "entropy", "brightness_p5", "brightness_p99", "saturation", "pixels",
)  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What the pass needs to know of the recipe: sides and areas in pixels."""

    min_side: int
    max_pixels: int
    working_side: int

    def key(self, picture_id: str) -> str:
        """The name of what this pass learns about a picture, and of its working copy."""
        text = f"{PASS}:{self.min_side}:{self.max_pixels}:{self.working_side}:{picture_id}"
        return hashlib.sha256(text.encode()).hexdigest()


def working_path(root: Path, key: str) -> Path:
    """Where the working copy lies below the store's root."""
    return root / "working" / key[:2] / f"{key}.png"


def measure(path: Path, rules: Rules, copy: Path) -> dict[str, Any]:
    """Measure the picture at ``path`` and write its working copy: oriented, RGB, without metadata.

    Returns the values of :data:`MEASURES`, or ``{"reason": ...}`` for a picture that cannot be used.
    """
    from PIL import Image, ImageOps

    content = io.BytesIO(path.read_bytes())  # what the disk does wrong is raised, and not held against the picture
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
            picture = Image.open(content, formats=FORMATS)
            width, height = picture.size
            if width * height > rules.max_pixels:
                return {"reason": f"too many pixels: {width}x{height}, check.max_pixels = {rules.max_pixels:,}"}
            facts = {
                "format": picture.format,
                "mode": picture.mode,
                "frames": getattr(picture, "n_frames", 1),
                "orientation": int(picture.getexif().get(0x0112, 1)),
            }
            picture.load()  # raises on truncated data
            oriented = ImageOps.exif_transpose(picture)
            rgb = to_rgb(oriented)
    except MemoryError:
        raise
    except Exception as error:  # a decoder meets hostile bytes: whatever it raises is a fault of the file
        return {"reason": f"undecodable: {type(error).__name__}: {str(error)[:200]}"}
    if min(rgb.size) < rules.min_side:
        return {"reason": f"too small: {rgb.width}x{rgb.height}, check.min_side = {rules.min_side}"}
    values = {"width": rgb.width, "height": rgb.height, **facts, **statistics(np.asarray(rgb))}
    rgb.thumbnail((rules.working_side, rules.working_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    rgb.save(out, format="PNG", compress_level=1)
    copy.parent.mkdir(parents=True, exist_ok=True)
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
    temporary.write_bytes(out.getvalue())
    os.replace(temporary, copy)
    return values


def to_rgb(picture: "Image.Image") -> "Image.Image":
    """Any mode -> RGB without metadata: 16-bit grey scaled to 8 bits, transparency laid over white."""
    from PIL import Image

    if picture.mode.startswith("I"):  # convert("RGB") would clip 16 bits to white
        deep = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.rint(deep.clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, clear).convert("RGB")
    plain = picture.convert("RGB")
    return Image.frombytes("RGB", plain.size, plain.tobytes())


def statistics(rgb: np.ndarray) -> dict[str, Any]:
    """HWC uint8 -> sharpness (Laplacian's variance), entropy (bits), brightness (0-255), saturation (0-1), digest."""
    grey = rgb @ np.array([0.299, 0.587, 0.114])
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    shares = np.bincount(np.rint(grey).astype(np.int64).ravel(), minlength=256) / grey.size
    shares = shares[shares > 0]
    low, high = rgb.min(axis=2).astype(np.float64), rgb.max(axis=2).astype(np.float64)
    p5, p99 = np.percentile(grey, [5, 99])
    return {
        "sharpness": float(laplacian.var()) if laplacian.size else 0.0,
        "entropy": float(-(shares * np.log2(shares)).sum()),
        "brightness_p5": float(p5),
        "brightness_p99": float(p99),
        "saturation": float(((high - low) / np.maximum(high, 1)).mean()),
        "pixels": pixel_digest(rgb),
    }


def pixel_digest(rgb: np.ndarray) -> str:
    """HWC uint8 -> sha256: equal for equal pixels, whatever file they came in. Names clusters, so it decides sides."""
    return hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
