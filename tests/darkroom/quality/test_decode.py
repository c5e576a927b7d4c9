"""Decoding: every kind of pixels comes out right, what is cut short or corrupt is refused, metadata is gone."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from darkroom.quality.decode import Undecodable, decode, upright
from darkroom.quality.picture import Rules, measure

from .test_picture import encoded, kinds, picture


def shown(content: bytes, side: int = 512) -> np.ndarray:
    return decode(content, side, 1_000_000).rgb


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_a_file_that_is_cut_short_is_refused(format_: str, share: float) -> None:
    content = encoded(picture((96, 96)), format_)
    assert decode(content, 512, 1_000_000).format == format_
    with pytest.raises(Undecodable, match=r"^undecodable"):
        decode(content[: int(len(content) * share)], 512, 1_000_000)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"II*\0"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(Undecodable, match=r"^undecodable"):
        decode(content, 512, 1_000_000)


def test_a_zeroed_stretch_in_the_middle_of_a_jpeg_is_refused() -> None:
    content = bytearray(encoded(picture((256, 256)), "JPEG", quality=90))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    Image.open(io.BytesIO(bytes(content))).load()  # Pillow forgives it
    with pytest.raises(Undecodable):
        decode(bytes(content), 32, 1_000_000)


def test_a_flipped_bit_in_a_png_is_refused() -> None:
    content = bytearray(encoded(picture((64, 64))))
    content[len(content) // 2] ^= 4
    with pytest.raises(Undecodable, match="check sum"):
        decode(bytes(content), 512, 1_000_000)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_damaged_bytes_never_raise_anything_else(format_: str) -> None:
    random = np.random.default_rng(0)
    content = encoded(picture((40, 40)), format_)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 8)):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(Undecodable):
            assert decode(bytes(damaged), 64, 100_000).rgb.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    image = grey.convert(mode)
    rgb = shown(encoded(image, "TIFF"))
    assert rgb.shape == (32, 32, 3)
    if mode != "1":
        assert np.abs(rgb.astype(int) - np.asarray(grey)[..., None]).max() <= 8


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(format_: str) -> None:
    deep = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    found = decode(encoded(Image.fromarray(deep), format_), 512, 10_000)
    assert np.array_equal(found.rgb[..., 1], np.rint(deep / 257).astype(np.uint8))
    assert found.converted == ["16-bit"]


@pytest.mark.parametrize("format_", [".png", ".tiff"])
def test_sixteen_bits_of_colour_are_scaled_not_clipped(format_: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, 3), dtype=np.uint16)
    content = cv2.imencode(format_, deep[..., ::-1])[1].tobytes()
    assert np.array_equal(shown(content), np.rint(deep / 257).astype(np.uint8))


def test_twelve_bits_in_sixteen_are_not_black() -> None:
    deep = np.linspace(0, 4095, 1024).astype(np.uint16).reshape(32, 32)
    found = decode(encoded(Image.fromarray(deep)), 512, 10_000)
    assert found.rgb.max() == 255
    assert found.converted == ["16-bit, 12 used"]


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 3e6])
def test_floating_numbers_are_scaled_by_what_holds_them(top: float) -> None:
    values = np.linspace(0, top, 1024, dtype=np.float32).reshape(32, 32)
    values[0, 0] = np.nan
    rgb = shown(encoded(Image.fromarray(values), "TIFF"))
    assert np.abs(rgb[1:, :, 0] - values[1:] / top * 255).max() <= 0.51
    values[0, 0] = 0
    colour = cv2.imencode(".tiff", np.stack([values] * 3, axis=2))[1].tobytes()
    assert np.abs(shown(colour)[..., 0] - values / top * 255).max() <= 0.51


def test_transparency_is_laid_over_white_and_its_share_told() -> None:
    image = picture((32, 32)).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    image.paste((0, 0, 0, 128), (16, 0, 24, 32))
    for content in (encoded(image), encoded(image, "WEBP", lossless=True), encoded(image, "TIFF")):
        found = decode(content, 512, 10_000)
        assert (found.rgb[:, :16] == 255).all()
        assert np.abs(found.rgb[:, 16:24].astype(int) - 127).max() <= 1
        assert apart(found.rgb[:, 24:], np.asarray(picture((32, 32)))[:, 24:]) == 0
        assert found.alpha == pytest.approx(0.5 + 0.25 * 127 / 255, abs=0.001)
    palette = picture((32, 32)).quantize(16)
    palette.info["transparency"] = 0
    found = decode(encoded(palette, transparency=0), 512, 10_000)
    assert found.alpha == pytest.approx(float((np.asarray(palette) == 0).mean()))
    assert found.converted == ["palette", "transparency"]


def test_deep_transparency_is_laid_over_white() -> None:
    deep = np.full((16, 16, 4), 65535, np.uint16)
    deep[:, :8] = (0, 0, 0, 0)
    found = decode(cv2.imencode(".png", deep)[1].tobytes(), 512, 10_000)
    assert (found.rgb == 255).all()
    assert found.alpha == pytest.approx(0.5)


def test_inks_of_adobe_are_not_inverted() -> None:
    image = picture((64, 64))
    for content in (encoded(image.convert("CMYK"), "JPEG", quality=95), encoded(image.convert("CMYK"), "TIFF")):
        found = decode(content, 512, 10_000)
        assert apart(found.rgb, np.asarray(image)) < 6
        assert found.converted == ["CMYK"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture((48, 32)), format_, exif=exif, quality=95)
    found = decode(content, 512, 10_000)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert found.orientation == orientation
    assert (found.width, found.height) == expected.size
    assert apart(found.rgb, np.asarray(expected.convert("RGB"))) < 2


def test_upright_is_what_pillow_does() -> None:
    marked = np.arange(24, dtype=np.uint8).reshape(4, 6, 1).repeat(3, axis=2)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(Image.fromarray(marked), exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
        assert np.array_equal(upright(marked, orientation), expected)


@pytest.mark.parametrize("broken", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0junk", b"Exif\0\0"])
def test_broken_exif_is_a_remark(broken: bytes) -> None:
    found = decode(encoded(picture(), "JPEG", exif=broken), 512, 10_000)
    assert kinds(found.remarks) == {"broken EXIF"}
    assert found.orientation == 1


def personal() -> Image.Exif:
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe, 12 Some Street"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_that_identifies_people_is_gone_and_told(format_: str, tmp_path: Path) -> None:
    path, copy = tmp_path / "picture", tmp_path / "copy"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>Jane Doe</dc:creator></x:xmpmeta>'
    options: dict[str, object] = {"exif": personal().tobytes()}
    if format_ in ("JPEG", "WEBP"):
        options["xmp"] = xmp
    path.write_bytes(encoded(picture((64, 64)), format_, **options))
    values = measure(path, Rules(8, 10_000, 64), copy)
    assert {"GPS removed", "author removed"} <= set(values["converted"])
    assert b"Jane" not in copy.read_bytes()
    with Image.open(copy) as reopened:
        assert not reopened.getexif()
        assert not {"exif", "xmp", "icc_profile", "comment"} & set(reopened.info)


def wide_gamut() -> bytes:
    """A profile whose red is redder than sRGB's: that of sRGB with other primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for place in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12):
        tags[bytes(profile[place : place + 4])] = struct.unpack_from(">II", profile, place + 4)
    columns = {b"rXYZ": (0.7977, 0.2880, 0.0), b"gXYZ": (0.1352, 0.7119, 0.0), b"bXYZ": (0.0313, 0.0001, 0.8249)}
    for name, values in columns.items():
        struct.pack_into(">3i", profile, tags[name][0] + 8, *(round(value * 65536) for value in values))
    offset, size = tags[b"desc"]
    text = bytes(profile[offset : offset + size])
    profile[offset : offset + size] = text.replace("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be"))
    return bytes(profile)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_wide_gamut_is_brought_to_srgb(format_: str) -> None:
    image = Image.new("RGB", (32, 32), (180, 80, 60))
    profile = wide_gamut()
    expected = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    )
    assert expected is not None
    found = decode(encoded(image, format_, icc_profile=profile, quality=100), 512, 10_000)
    assert apart(found.rgb, np.asarray(expected)) < 3
    assert apart(found.rgb, np.asarray(image)) > 8
    assert found.converted == ["ICC profile"]


def test_the_plain_profile_changes_nothing_and_a_broken_one_is_a_remark() -> None:
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decode(encoded(picture(), icc_profile=plain), 512, 10_000)
    assert apart(found.rgb, np.asarray(picture())) == 0
    assert found.converted == []
    for broken in (b"rubbish", plain[:200], wide_gamut()[:-300]):
        found = decode(encoded(picture(), icc_profile=broken), 512, 10_000)
        assert apart(found.rgb, np.asarray(picture())) == 0
        assert kinds(found.remarks) == {"broken ICC profile"}
    found = decode(encoded(picture().convert("L"), icc_profile=wide_gamut()), 512, 10_000)
    assert kinds(found.remarks) == {"broken ICC profile"}


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_used(format_: str) -> None:
    frames = [picture((32, 32), seed) for seed in range(3)]
    options = {"lossless": True} if format_ == "WEBP" else {}
    found = decode(encoded(frames[0], format_, save_all=True, append_images=frames[1:], **options), 512, 10_000)
    assert found.frames == 3
    assert "first of 3 frames" in found.converted
    assert "several frames" in kinds(found.remarks)
    assert apart(found.rgb, np.asarray(frames[0])) < apart(found.rgb, np.asarray(frames[1])) / 4


def test_a_phones_second_picture_is_counted() -> None:
    first, second = picture((64, 64)), picture((32, 32), 1)
    found = decode(encoded(first, "MPO", save_all=True, append_images=[second]), 512, 10_000)
    assert (found.format, found.frames) == ("JPEG", 2)
    assert apart(found.rgb, np.asarray(first)) < 8
    assert not found.remarks


def test_progressive_and_grey_jpegs_decode() -> None:
    image = picture((64, 64))
    assert apart(shown(encoded(image, "JPEG", progressive=True, quality=95)), np.asarray(image)) < 8
    grey = shown(encoded(image.convert("L"), "JPEG", quality=95))
    assert apart(grey, np.asarray(image.convert("L").convert("RGB"))) < 3


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_bytes_behind_the_picture_are_a_remark(format_: str) -> None:
    content = encoded(picture(), format_)
    assert decode(content, 512, 10_000).remarks == []
    found = decode(content + b"PK\3\4 what else the file hides", 512, 10_000)
    assert kinds(found.remarks) == {"trailing bytes"}
    assert "29 after" in found.remarks[0]


def test_strong_compression_is_a_remark() -> None:
    for quality, flagged in ((4, True), (50, False), (95, False)):
        found = decode(encoded(picture((64, 64)), "JPEG", quality=quality), 512, 10_000)
        assert (kinds(found.remarks) == {"strong compression"}) is flagged
    coarse = decode(encoded(picture((64, 64)), "JPEG", quality=12), 512, 10_000)
    assert coarse.remarks == ["strong compression: JPEG quality about 12"]


def test_large_pictures_are_refused_before_they_are_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(Undecodable, match=r"^too many pixels: 60000x60000"):
        decode(bomb, 512, 1_000_000)


def test_text_in_a_png_is_not_unpacked() -> None:
    content = encoded(picture())
    body = b"Comment\0\0" + zlib.compress(bytes(50_000_000))
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    assert apart(shown(content[:33] + text + content[33:]), np.asarray(picture())) == 0


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    content = encoded(picture(), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    with pytest.raises(Undecodable, match="scans"):
        decode(content[:start] + content[start:-2] * 600 + b"\xff\xd9", 512, 10_000)


def test_downscaling_has_antialiasing() -> None:
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    for content in (encoded(Image.fromarray(stripes)), encoded(Image.fromarray(stripes), "JPEG", quality=95)):
        inner = shown(content, side=100)[1:-1, 1:-1]  # the last columns of a JPEG are filled up to whole blocks
        assert np.abs(inner.astype(int) - 127).max() < 45
