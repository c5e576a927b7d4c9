"""The pass over a picture: faults are found, odd pictures are flagged, nobody's metadata survives."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, JpegImagePlugin

from darkroom.quality.hashes import from_hex
from darkroom.quality.picture import MEASURES, Rules, judged, learn, look, measure, pixel_digest

RULES = Rules(min_side=8, max_pixels=1_000_000, working_side=64, max_aspect=8)


def picture(size: tuple[int, int] = (32, 24), seed: int = 0) -> Image.Image:
    """Smooth colours with some grain, as photos have."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = random.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format_, **options)
    return out.getvalue()


def run(tmp_path: Path, content: bytes, rules: Rules = RULES) -> tuple[dict, Path]:
    path, copy = tmp_path / "picture", tmp_path / "new" / "copy"
    path.write_bytes(content)
    return measure(path, rules, copy), copy


def kinds(flags: list[str]) -> set[str]:
    return {flag.split(":")[0] for flag in flags}


def flags_of(image: Image.Image) -> set[str]:
    values, _ = look(encoded(image), RULES)
    return kinds(judged(values, RULES)["flags"])


def test_a_good_picture_is_measured_and_copied(tmp_path: Path) -> None:
    values, copy = run(tmp_path, encoded(picture()))
    assert set(values) == {*MEASURES, "flags"}
    assert (values["width"], values["height"], values["format"], values["mode"]) == (32, 24, "PNG", "RGB")
    assert values["flags"] == []
    assert np.array_equal(np.asarray(Image.open(copy)), np.asarray(picture()))
    assert list(copy.parent.iterdir()) == [copy]


def test_a_jpegs_copy_is_a_jpeg_and_close_to_it(tmp_path: Path) -> None:
    content = encoded(picture((60, 40)), "JPEG", quality=90)
    _, copy = run(tmp_path, content)
    shown = Image.open(copy)
    assert shown.format == "JPEG"
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(Image.open(io.BytesIO(content)))).mean() < 1.5


@pytest.mark.parametrize(
    ("size", "subsampling", "kept"),
    [((200, 150), "4:2:0", 2), ((200, 150), "4:2:2", 0), ((200, 150), "4:4:4", 0), ((60, 40), "4:2:0", 0)],
)
def test_colour_is_subsampled_only_where_source_was_and_is_reduced(
    tmp_path: Path, size: tuple[int, int], subsampling: str, kept: int
) -> None:
    _, copy = run(tmp_path, encoded(picture(size), "JPEG", subsampling=subsampling))
    with Image.open(copy) as shown:
        assert JpegImagePlugin.get_sampling(shown) == kept


@pytest.mark.parametrize("side", [64, 2000])
def test_pictures_in_step_are_found_as_each_alone(tmp_path: Path, side: int) -> None:
    rules = Rules(min_side=8, max_pixels=1_000_000, working_side=side)
    whole = encoded(picture((200, 150), seed=1), "JPEG", quality=90)
    contents = [whole, whole[:-300], encoded(picture(seed=2)), b"", whole + bytes(3_000_000), encoded(picture((9, 7)))]
    tasks = [(str(tmp_path / name), str(tmp_path / "copies" / name)) for name in "abcdefg"]
    for content, (path, _) in zip(contents, tasks[1:], strict=True):
        Path(path).write_bytes(content)
    lost, *together = learn(tasks, rules)
    assert isinstance(lost, FileNotFoundError)
    for content, (path, copy), found in zip(contents, tasks[1:], together, strict=True):
        assert found == look(content, rules)[0]
        shown = Path(copy).read_bytes() if Path(copy).exists() else None
        (alone,) = learn([(path, str(tmp_path / "alone"))], rules)
        assert found == alone
        assert shown == ((tmp_path / "alone").read_bytes() if shown else None)
    assert [Path(copy).exists() for _, copy in tasks] == [False, True, False, True, False, True, False]


def test_large_pictures_get_a_smaller_working_copy(tmp_path: Path) -> None:
    for format_ in ("PNG", "JPEG"):
        values, copy = run(tmp_path, encoded(picture((400, 200)), format_))
        with Image.open(copy) as shown:
            assert (values["width"], values["height"], shown.size) == (400, 200, (64, 32))


def test_figures_do_not_depend_on_the_size_of_the_working_copy() -> None:
    content = encoded(picture((400, 300)), "JPEG")
    small, large = (look(content, Rules(8, 10**6, side))[0] for side in (32, 256))
    changed = {name for name in small if small[name] != large[name]}
    assert changed == {"pixels"}


def test_sizes_and_aspects_out_of_bounds_are_refused(tmp_path: Path) -> None:
    def reason(size: tuple[int, int], rules: Rules = RULES) -> str:
        values, copy = run(tmp_path, encoded(picture(size)), rules)
        assert not copy.exists()
        return str(values["reason"])

    assert reason((7, 40)).startswith("too small: 7x40")
    assert reason((8, 65)).startswith("extreme aspect: 8x65")
    for format_ in ("PNG", "JPEG"):
        values, _ = run(tmp_path, encoded(picture(), format_), Rules(8, 100, 64))
        assert values["reason"].startswith("too many pixels: 32x24")


def test_what_shows_nothing_is_refused() -> None:
    def reason(image: Image.Image) -> str:
        return str(judged(look(encoded(image), RULES)[0], RULES)["reason"]).split(":")[0]

    assert reason(Image.new("RGB", (64, 64), (10, 200, 30))) == "blank"
    assert reason(Image.new("RGBA", (64, 64), (10, 20, 30, 0))) == "fully transparent"
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert reason(Image.fromarray(noise)) == "noise"


def test_tiny_scans_of_few_levels_are_usable_and_kept_exactly(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        levels = np.zeros((8, 8), np.uint8)
        levels[:, 2:6] = random.integers(0, 17, (8, 4)) * 15
        values, copy = run(tmp_path, encoded(Image.fromarray(levels)))
        assert "reason" not in values
        with Image.open(copy) as image:
            shown = np.asarray(image.convert("RGB"))
        assert np.array_equal(shown, np.repeat(levels[..., None], 3, axis=2))
        assert values["pixels"] == pixel_digest(shown)


def sharp(size: tuple[int, int]) -> Image.Image:
    """Things with edges: the same picture in any size."""
    width, height = size
    image = picture((32, 24)).resize(size, Image.Resampling.BICUBIC)
    image.paste((250, 250, 240), (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    image.paste((0, 10, 20), (3 * width // 8, 3 * height // 8, width // 2, height // 2))
    return image


def test_odd_pictures_are_flagged_and_plain_ones_are_not() -> None:
    edges = sharp((200, 152))
    assert flags_of(edges) == set()
    assert flags_of(edges.filter(ImageFilter.GaussianBlur(4))) == {"blurred"}
    assert "dark" in flags_of(edges.point(lambda level: level * 0.2))
    assert flags_of(edges.point(lambda level: 245 + level * 0.04)) >= {"bright"}
    assert flags_of(edges.convert("L")) == flags_of(edges.convert("L").convert("RGB")) == {"greyscale"}
    line = Image.new("RGB", (200, 200), (0, 90, 200))
    line.paste((250, 0, 0), (0, 0, 200, 20))
    assert "low information" in flags_of(line)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 40)])
def test_frames_and_bars_are_found(colour: tuple[int, int, int]) -> None:
    inner = picture((160, 120))
    framed = Image.new("RGB", (200, 160), colour)
    framed.paste(inner, (20, 20))
    barred = Image.new("RGB", (160, 200), colour)
    barred.paste(inner, (0, 40))
    for image in (framed, barred):
        values, _ = look(encoded(image), RULES)
        assert values["border"] == pytest.approx(1 - 160 * 120 / (image.width * image.height), abs=0.03)
        assert "thick border" in flags_of(image)


def test_a_thing_on_a_plain_ground_has_no_frame() -> None:
    disc = Image.new("RGB", (200, 160), (255, 255, 255))
    across, down = np.meshgrid(np.arange(200), np.arange(160))
    inside = Image.fromarray(((across - 100) ** 2 + (down - 80) ** 2 < 50**2).astype(np.uint8) * 255)
    disc.paste(picture((200, 160)), mask=inside)
    assert look(encoded(disc), RULES)[0]["border"] == 0


def test_small_and_flat_pictures_have_no_hashes() -> None:
    assert look(encoded(picture((31, 40))), RULES)[0]["phash"] is None
    assert look(encoded(Image.new("RGB", (64, 64), (9, 9, 9))), RULES)[0]["dhash"] is None
    assert look(encoded(picture((32, 40))), RULES)[0]["phash"] is not None


def test_hashes_survive_resizing_and_compression() -> None:
    image = picture((300, 200), seed=3)
    one = look(encoded(image), RULES)[0]
    other = look(encoded(image.resize((150, 100), Image.Resampling.LANCZOS), "JPEG", quality=60), RULES)[0]
    for name, bits in (("phash", 4), ("dhash", 8)):
        assert np.bitwise_count(from_hex([one[name]]) ^ from_hex([other[name]])).sum() <= bits


def test_sharpness_compares_across_resolutions() -> None:
    small, large = (look(encoded(sharp(size)), RULES)[0]["sharpness"] for size in ((256, 192), (512, 384)))
    blurred = look(encoded(sharp((512, 384)).filter(ImageFilter.GaussianBlur(4))), RULES)[0]["sharpness"]
    assert large == pytest.approx(small, rel=0.2)
    assert blurred < 0.1 * large


def test_descriptor_is_the_picture_as_eight_by_eight() -> None:
    image = Image.new("RGB", (80, 80), (255, 0, 0))
    image.paste((0, 0, 255), (40, 0, 80, 80))
    shown = np.frombuffer(bytes.fromhex(look(encoded(image), RULES)[0]["descriptor"]), np.uint8).reshape(8, 8, 3)
    assert (shown[:, :4] == (255, 0, 0)).all()
    assert (shown[:, 4:] == (0, 0, 255)).all()


def test_rules_that_only_judge_are_not_part_of_the_key() -> None:
    one = RULES.key("ab")
    assert Rules(1, 2, 64, 3).key("ab") == one
    assert Rules(8, 1_000_000, 65, 8).key("ab") != one


def test_equal_pixels_have_equal_digests_and_shape_counts() -> None:
    flat = np.zeros((32, 32, 3), np.uint8)
    assert pixel_digest(flat) == pixel_digest(flat[::-1])
    assert pixel_digest(flat) != pixel_digest(flat.reshape(16, 64, 3))
