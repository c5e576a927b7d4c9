"""To plain sRGB with 8 bits: colour profiles, deep and floating numbers, inks and transparency."""

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageCms

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}  # Pillow's mode -> the profile's word


class BrokenProfile(ValueError):
    """A profile that is none, or that is not for this kind of pixels."""


def to_srgb(pixels: np.ndarray, mode: str, icc: bytes | None) -> tuple[np.ndarray, bool]:
    """uint8 HW or HWC in one of :data:`SPACES` -> (HW3 uint8 sRGB, was a profile applied).

    Raises :class:`BrokenProfile`; call again without the profile then.
    """
    from PIL import Image

    transform = _transform(icc, mode) if icc or mode == "LAB" else None
    if transform is not None:
        from PIL import ImageCms

        shown = ImageCms.applyTransform(Image.fromarray(pixels, mode), transform)
        assert shown is not None
        return np.asarray(shown), mode != "LAB" or icc is not None
    if mode == "RGB":
        return pixels, False
    if mode == "L":
        return np.repeat(pixels[..., None], 3, axis=2), False
    return np.asarray(Image.fromarray(pixels, mode).convert("RGB")), False


@functools.lru_cache(maxsize=16)
def _transform(icc: bytes | None, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """What brings pixels with this profile to sRGB; None when they are sRGB. Building one costs more than using it."""
    from PIL import ImageCms

    target: Any = ImageCms.createProfile("sRGB")
    try:
        if icc is None:
            return ImageCms.buildTransform(ImageCms.createProfile("LAB"), target, "LAB", "RGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if source.profile.xcolor_space.strip().upper() != SPACES[mode]:
            raise BrokenProfile(f"for {source.profile.xcolor_space.strip()}, the picture is {mode}")
        if "srgb" in (source.profile.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        if isinstance(error, BrokenProfile):
            raise
        raise BrokenProfile(str(error)[:100]) from None


def to_levels(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Numbers of any type -> (uint8, how they were read).

    16 bits hold what scanners and cameras with 10 or 12 bits give, too: where nothing reaches beyond those, they are
    the range, because by the full range such a picture would be black. Floating numbers (float32) are shares of 1, or
    levels of 255 or 65,535, whichever is the first that holds them all, and 32-bit ones (float64) likewise; others are
    spread over what they span.
    """
    if values.dtype == np.uint8:
        return values, ""
    if values.dtype != np.uint16:
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if values.dtype == np.uint16:
        bits = next(bits for bits in (8, 10, 12, 16) if high < 2**bits)
        bottom, top, name = 0.0, 2.0**bits - 1, "16-bit" if bits == 16 else f"16-bit, {bits} used"
    else:
        kind, choices = ("float", (1.0, 255.0, 65535.0)) if values.dtype == np.float32 else ("32-bit", (255.0, 65535.0))
        top = next((choice for choice in choices if low >= 0 and high <= choice), high)
        bottom = 0.0 if top in choices and low >= 0 else low
        name = f"{kind}, {bottom:g} to {top:g}"
    scaled = (values.astype(np.float64) - bottom) * (255 / max(top - bottom, 1e-30))
    return np.rint(scaled).clip(0, 255).astype(np.uint8), name
