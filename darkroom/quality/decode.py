"""A file's bytes -> upright sRGB pixels, strictly: what is cut short or corrupt raises, whatever decoders forgive.

JPEG goes through libjpeg-turbo, which stops at the first warning and brings large pictures down while decoding (its
coefficients are all read, so that corruption anywhere is met). A PNG's chunks are checked before it is decoded. The
rest goes to decoders inside Pillow; nothing is ever handed to a program of the system. Gamma chunks and XMP's own
orientation are not followed, as viewers do not.
"""

import io
import re
import warnings
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .colour import BrokenProfile, to_levels, to_srgb
from .metadata import (
    MAX_SCANS,
    ORIENTATION,
    PNG_SIGNATURE,
    Metadata,
    jpeg_end,
    jpeg_header,
    jpeg_without_metadata,
    png_header,
    tiff_tags,
)

if TYPE_CHECKING:
    from PIL import Image

Result = TypeVar("Result")
# What Pillow decodes itself, beside JPEG and phones' MPO, which have a path of their own.
FORMATS = ("PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000")
# Warnings of libjpeg about what does not touch the pixels: markers of applications, and a formality of scans.
HARMLESS = ("unknown JFIF revision", "bad ICC marker", "Unknown Adobe color transform")
COARSE = 20  # a quality below shows blocks and rings everywhere


class Undecodable(ValueError):
    """The picture cannot be used; the message is a reason, "kind: detail"."""


@dataclass
class Decoded:
    """A picture ready to be measured.

    ``rgb``: uint8 HWC sRGB, upright, of the asked size; ``width`` and ``height``: upright, in full; ``alpha``: share of
    the area that is see-through; ``sampling``: None where the file keeps every pixel, else "420" if it keeps the colour
    of every second one across and down, as most JPEGs do, and "444" for all others; ``converted``: what was done to get
    to plain sRGB; ``remarks``: what is odd, "kind: detail".
    """

    rgb: np.ndarray
    width: int
    height: int
    format: str
    mode: str
    frames: int = 1
    orientation: int = 1
    alpha: float = 0.0
    sampling: str | None = None
    converted: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def decode(content: bytes, side: int, max_pixels: int) -> Decoded:
    """Decode a picture so that its longer side is at most ``side`` pixels; it is never enlarged.

    Raises :class:`Undecodable`, and ``MemoryError`` when this process has too little.
    """
    return done(decoding(content, side, max_pixels))


def decoding(content: bytes, side: int, max_pixels: int) -> Generator[None, None, Decoded]:
    """:func:`decode` in steps: around the long one in libjpeg, others may have theirs. Raises as decode does."""
    if not content:
        raise Undecodable("undecodable: the file is empty")
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return (yield from _decode_jpeg(content, side, max_pixels))
        return _decode_other(content, side, max_pixels)
    except (Undecodable, MemoryError):
        raise
    except Exception as error:  # a decoder meets hostile bytes: whatever it raises is a fault of the file
        name = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise Undecodable(f"undecodable: {name}{_plain(str(error))}") from None


def done(steps: Generator[None, None, Result]) -> Result:
    """What steps come to, taken one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Result = end.value
            return found


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height brought down to ``side`` pixels on the longer one; never up, and never to nothing."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    """HW or HWC brought down to ``side`` pixels on the longer side, each new pixel the mean of those below it."""
    import cv2

    height, width = pixels.shape[:2]
    if max(width, height) <= side:
        return pixels
    return np.asarray(cv2.resize(pixels, fitted(width, height, side), interpolation=cv2.INTER_AREA))


def _decode_jpeg(content: bytes, side: int, max_pixels: int) -> Generator[None, None, Decoded]:
    import simplejpeg

    header = jpeg_header(content)
    width, height, metadata = header.width, header.height, header.metadata
    _bound(width, height, max_pixels)
    if header.progressive and content.count(b"\xff\xda") > MAX_SCANS:
        raise Undecodable(f"undecodable: more than {MAX_SCANS} scans")
    mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(header.channels)
    if mode is None:
        raise Undecodable(f"undecodable: a JPEG of {header.channels} channels")
    space = "GRAY" if mode == "L" else mode
    least_width, least_height = fitted(width, height, side)
    yield
    try:
        pixels = simplejpeg.decode_jpeg(content, space, min_width=least_width, min_height=least_height)
    except ValueError as error:
        if not any(warning in str(error) for warning in HARMLESS):
            raise
        metadata.remarks.append(f"odd header: {_plain(str(error))}")
        bare = jpeg_without_metadata(content)
        pixels = simplejpeg.decode_jpeg(bare, space, min_width=least_width, min_height=least_height)
    yield
    if mode == "L":
        pixels = pixels[..., 0]
    elif mode == "CMYK":
        pixels = 255 - pixels  # as Adobe's programs write them, which all others follow
    found = Decoded(pixels, width, height, "JPEG", mode, header.frames, sampling=header.sampling)
    if header.quality is not None and header.quality < COARSE:
        found.remarks.append(f"strong compression: JPEG quality about {header.quality}")
    if header.frames == 1 and (rest := len(content) - jpeg_end(content, header.scan)):
        found.remarks.append(f"trailing bytes: {rest:,} after the picture")
    return _finished(found, mode, metadata, side)


def _decode_other(content: bytes, side: int, max_pixels: int) -> Decoded:
    from PIL import Image, UnidentifiedImageError

    metadata, deep, decodable = Metadata(), False, content
    if content.startswith(PNG_SIGNATURE):
        png = png_header(content)
        _bound(png.width, png.height, max_pixels)
        metadata, decodable, deep = png.metadata, png.decodable, png.depth == 16 and png.colour in (2, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, and about pixels beyond a bound that max_pixels replaces
        try:
            picture = Image.open(io.BytesIO(decodable), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise Undecodable(f"too many pixels: {_plain(str(error))}") from None
        except UnidentifiedImageError:
            if content[:4] in (b"II*\0", b"MM\0*"):
                return _decode_odd_tiff(content, side, max_pixels)
            raise Undecodable(f"undecodable: not a picture in any of JPEG, {', '.join(FORMATS)}") from None
        _bound(*picture.size, max_pixels)
        found = Decoded(np.empty(0), *picture.size, str(picture.format), picture.mode)
        if found.format in ("AVIF", "JPEG2000") or (found.format == "WEBP" and b"VP8 " in content[:64_000]):
            found.sampling = "444"
        _read_metadata(picture, metadata)
        try:
            found.frames = int(getattr(picture, "n_frames", 1))
            picture.seek(0)
        except Exception as error:  # of a frame that is not used
            metadata.remarks.append(f"broken frames: {_plain(str(error))}")
        if found.frames > 1:
            found.remarks.append(f"several frames: the first of {found.frames} is used")
        if found.format == "TIFF":
            bits = picture.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
            deep = len(bits) >= 3 and max(bits) > 8
        picture.load()  # raises on truncated data
    values = _deep_pixels(decodable, metadata.orientation if found.format == "TIFF" else 1) if deep else None
    if values is not None and values.shape[:2] == (found.height, found.width):
        found.rgb, found.alpha = values[..., :3], _see_through(values)
        space = "RGB"
    else:
        found.rgb, space, found.alpha = _pixels(picture)
    if picture.mode in ("P", "PA"):
        found.converted.append("palette")
    return _finished(found, space, metadata, side)


def _decode_odd_tiff(content: bytes, side: int, max_pixels: int) -> Decoded:
    """A TIFF that Pillow has no mode for, as floating RGB."""
    tags = tiff_tags(content)
    width, height = tags.get(256, 0), tags.get(257, 0)
    _bound(width, height, max_pixels)
    metadata = Metadata(orientation=tags[ORIENTATION] if tags.get(ORIENTATION) in range(1, 9) else 1)
    values = _deep_pixels(content, metadata.orientation)
    if values is None or sorted(values.shape[:2]) != sorted((width, height)):
        raise Undecodable("undecodable: a TIFF of a kind that is not known, or cut short")
    found = Decoded(values[..., :3], values.shape[1], values.shape[0], "TIFF", f"RGB;{values.dtype.itemsize * 8}")
    found.alpha = _see_through(values)
    return _finished(found, "RGB", metadata, side)


def _deep_pixels(content: bytes, orientation: int) -> np.ndarray | None:
    """More than 8 bits in each of 3 or 4 channels, RGB(A) of any type, over white; Pillow keeps the upper 8 bits."""
    import cv2

    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.shape[2] not in (3, 4):
        return None
    values = upright(np.asarray(values), orientation)
    if values.dtype not in (np.uint8, np.uint16, np.float32):
        values = values.astype(np.float32)
    if values.shape[2] == 3:
        return np.ascontiguousarray(values[..., ::-1])
    top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(values.dtype, 1)
    share = (values[..., 3:] / np.float32(top)).clip(0, 1)
    over = values[..., 2::-1] * share + (1 - share) * top
    return np.concatenate([over, values[..., 3:]], axis=2).astype(values.dtype)


def _see_through(values: np.ndarray) -> float:
    """Share of the area that is transparent: HWC, with alpha in the fourth channel if there is one."""
    if values.shape[2] < 4:
        return 0.0
    top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(values.dtype, 1)
    return float(1 - (values[..., 3] / top).clip(0, 1).mean(dtype=np.float64))


def _pixels(picture: "Image.Image") -> tuple[np.ndarray, str, float]:
    """(HW or HWC of any type, its colour space as in ``colour.SPACES``, share that is see-through), over white."""
    from PIL import Image

    mode = picture.mode
    if mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16), "L", 0.0
    if mode in ("I", "F"):
        return np.asarray(picture).astype(np.float64 if mode == "I" else np.float32), "L", 0.0
    if picture.has_transparency_data or mode in ("RGBa", "La", "PA"):
        clear = picture.convert("RGBA")
        alpha = clear.getchannel("A")
        ground = Image.new("RGB", clear.size, (255, 255, 255))
        ground.paste(clear.convert("RGB"), mask=alpha)
        return np.asarray(ground), "RGB", float(1 - np.asarray(alpha).mean(dtype=np.float64) / 255)
    if mode in ("1", "L"):
        return np.asarray(picture.convert("L")), "L", 0.0
    if mode in ("CMYK", "LAB"):
        return np.asarray(picture), mode, 0.0
    return np.asarray(picture.convert("RGB")), "RGB", 0.0


def _finished(found: Decoded, space: str, metadata: Metadata, side: int) -> Decoded:
    """The end that all formats share: size, colour, orientation, and what to say of it. ``found.rgb`` comes raw."""
    pixels, depth = to_levels(reduced(np.ascontiguousarray(found.rgb), side))
    try:
        rgb, profiled = to_srgb(pixels, space, metadata.icc)
    except BrokenProfile as error:
        metadata.remarks.append(f"broken ICC profile: {_plain(str(error))}")
        rgb, profiled = to_srgb(pixels, space, None)
    found.orientation = metadata.orientation
    if found.format != "TIFF":  # Pillow turns those while it loads them
        rgb = upright(rgb, found.orientation)
        if found.orientation >= 5:
            found.width, found.height = found.height, found.width
    found.rgb = np.ascontiguousarray(rgb)
    if depth:
        found.converted.append(depth)
    if space in ("CMYK", "LAB"):
        found.converted.append(space)
    if found.alpha > 0:
        found.converted.append("transparency")
    if found.orientation != 1:
        found.converted.append("rotated by EXIF")
    if profiled:
        found.converted.append("ICC profile")
    if found.frames > 1:
        found.converted.append(f"first of {found.frames} frames")
    if metadata.gps:
        found.converted.append("GPS removed")
    if metadata.author:
        found.converted.append("author removed")
    found.remarks += metadata.remarks
    return found


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """HWC as it should be seen, by the Exif tag (Exif 2.32, 4.6.4 A): 1 is upright, 2-8 are the flips and turns."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _read_metadata(picture: "Image.Image", metadata: Metadata) -> None:
    """Into ``metadata`` what Pillow found in the header."""
    info = picture.info
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        metadata.icc = profile
    if isinstance(info.get("xmp"), bytes):
        metadata.read_xmp(info["xmp"])
    if isinstance(info.get("exif"), bytes):
        metadata.read_exif(info["exif"])
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        metadata.orientation = tags.get(ORIENTATION, 1) if tags.get(ORIENTATION, 1) in range(1, 9) else 1
        metadata.gps |= 0x8825 in tags
        metadata.author |= 0x013B in tags or 0x8298 in tags
    gamma = info.get("gamma")
    if isinstance(gamma, float) and not 0.4 < gamma < 0.51 and metadata.icc is None and "srgb" not in info:
        metadata.remarks.append(f"unusual gamma: {gamma:g}, not applied")


def _bound(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Undecodable(f"too many pixels: {width}x{height}, check.max_pixels = {max_pixels:,}")


def _plain(text: str) -> str:
    """A decoder's message on one line, short, without addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))[:200]
