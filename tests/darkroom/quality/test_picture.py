"""The pass over a picture: every mode comes out right, every fault is found, nobody's metadata survives."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.quality.picture import MEASURES, Rules, measure, statistics, to_rgb

RULES = Rules(min_side=8, max_pixels=1_000_000, working_side=64)


def picture(size: tuple[int, int] = (32, 24)) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def run(tmp_path: Path, content: bytes, rules: Rules = RULES) -> tuple[dict, Path]:
    path, copy = tmp_path / "picture", tmp_path / "copy.png"
    path.write_bytes(content)
    return measure(path, rules, copy), copy


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format_, **options)
    return out.getvalue()


def test_a_good_picture_is_measured_and_copied(tmp_path: Path) -> None:
    values, copy = run(tmp_path, encoded(picture()))
    assert set(values) == set(MEASURES)
    assert (values["width"], values["height"], values["format"], values["mode"]) == (32, 24, "PNG", "RGB")
    assert np.array_equal(np.asarray(Image.open(copy)), np.asarray(picture()))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, format_: str, share: float) -> None:
    content = encoded(picture((96, 96)), format_)
    values, copy = run(tmp_path, content[: int(len(content) * share)])
    assert values["reason"].startswith("undecodable")
    assert not copy.exists()


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    assert run(tmp_path, content)[0]["reason"].startswith("undecodable")


def test_sizes_out_of_bounds_are_refused(tmp_path: Path) -> None:
    assert run(tmp_path, encoded(picture((7, 40))))[0]["reason"].startswith("too small: 7x40")
    small = Rules(min_side=8, max_pixels=100, working_side=64)
    assert run(tmp_path, encoded(picture()), small)[0]["reason"].startswith("too many pixels: 32x24")


def test_orientation_is_applied_and_metadata_is_gone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "Jane Doe, 12 Some Street"
    values, copy = run(tmp_path, encoded(picture(), "JPEG", exif=exif, quality=95))
    assert (values["width"], values["height"], values["orientation"]) == (24, 32, 6)
    shown = Image.open(copy)
    assert shown.size == (24, 32)
    assert not shown.getexif()
    assert b"Jane" not in copy.read_bytes()


def test_large_pictures_get_a_smaller_working_copy(tmp_path: Path) -> None:
    values, copy = run(tmp_path, encoded(picture((200, 100))))
    assert (values["width"], Image.open(copy).size) == (200, (64, 32))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
    shallow = np.asarray(to_rgb(deep))[..., 0].ravel()
    assert np.abs(shallow.astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    shown = np.asarray(to_rgb(grey.convert(mode)))
    assert shown.shape == (32, 32, 3)
    if mode != "1":
        assert np.abs(shown.astype(int) - np.asarray(grey)[..., None]).max() <= 8


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert np.asarray(to_rgb(clear)).min() == 255


def test_statistics_order_pictures_as_they_should() -> None:
    flat = np.full((32, 32, 3), 100, np.uint8)
    noisy = np.asarray(picture((32, 32)))
    assert statistics(flat)["sharpness"] == pytest.approx(0)
    assert statistics(noisy)["sharpness"] > 1000
    assert statistics(flat)["entropy"] == pytest.approx(0)
    assert statistics(noisy)["entropy"] > 6
    assert statistics(flat)["saturation"] == 0
    assert statistics(flat)["pixels"] != statistics(flat.reshape(16, 64, 3))["pixels"]
