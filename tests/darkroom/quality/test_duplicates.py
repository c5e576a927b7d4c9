"""Duplicates: copies are found, different pictures are not, and no order or earlier batch changes what is kept."""

import hashlib
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from darkroom.quality.duplicates import Clusters, find
from darkroom.quality.likeness import copies, looks
from darkroom.quality.picture import pixel_digest
from darkroom.quality.statistics import statistics
from darkroom.reasons import detail_of, kind_of
from darkroom.recipe import Check

PLAN = Check()


@cache
def photo(seed: int) -> Image.Image:
    """A picture with the spectrum of photos: noise whose amplitude falls with its frequency."""
    generator = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(128)[None]
    waves = generator.normal(size=(3, 96, 65)) + 1j * generator.normal(size=(3, 96, 65))
    waves /= np.maximum(np.hypot(y, x), 1 / 128) ** 1.3
    waves = 0.8 * waves[:1] + np.array([0.6, 0.3, 0.5])[:, None, None] * waves
    cells = np.fft.irfft2(waves, s=(96, 128))
    cells = 127 + 50 * (cells - cells.mean()) / cells.std()
    return Image.fromarray(cells.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def drawing(colour: str, hand: int = 0) -> Image.Image:
    """A clock: a disc on white with one hand, and a mark in a corner so that no turn of it is another hour."""
    picture = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((12, 12, 84, 84), fill=colour, outline="black", width=3)
    draw.rectangle((0, 0, 24, 10), fill="black")
    angle = hand * np.pi / 6
    draw.line((48, 48, 48 + 28 * np.sin(angle), 48 - 28 * np.cos(angle)), fill="black", width=6)
    return picture


def jpeg(picture: Image.Image, quality: int = 85) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def crop(picture: Image.Image, share: float) -> Image.Image:
    width, height = (round(side * share) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def captioned(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    ImageDraw.Draw(picture).text((8, 70), "SALE 50 %", fill="white", font_size=14)
    return picture


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda picture: jpeg(picture, 30),
    "resized": lambda picture: picture.resize((64, 48), Image.Resampling.BICUBIC),
    "stretched": lambda picture: picture.resize((128, 72), Image.Resampling.BICUBIC),
    "brighter": lambda picture: jpeg(ImageEnhance.Brightness(picture).enhance(1.2)),
    "more colour": lambda picture: jpeg(ImageEnhance.Color(picture).enhance(1.6)),
    "grey": lambda picture: jpeg(picture.convert("L").convert("RGB")),
    "text": lambda picture: jpeg(captioned(picture)),
    "mirrored": lambda picture: jpeg(ImageOps.mirror(picture)),
    "turned": lambda picture: jpeg(picture.transpose(Image.Transpose.ROTATE_90)),
    "cut": lambda picture: jpeg(crop(picture, 0.96)),
    "cropped": lambda picture: jpeg(crop(picture, 0.8)),
    "half": lambda picture: jpeg(crop(picture, 0.6)),
}


def row(path: str, picture: Image.Image, **values: Any) -> dict[str, Any]:
    """A row of the manifest; ``bytes_of`` makes another file of the same pixels. Photos take 1000 bytes."""
    pixels = np.asarray(picture)
    found = statistics(pixels)
    size = picture.width * picture.height * 1000 // 12_288
    file = hashlib.sha256(pixels.tobytes() + values.pop("bytes_of", b"")).hexdigest()
    return {
        "row_id": hashlib.sha256(path.encode()).hexdigest(), "id": file, "path": path, "pixels": pixel_digest(pixels),
        **{name: found[name] for name in ("phash", "dhash", "crops", "descriptor", "entropy")},
        "width": picture.width, "height": picture.height, "bytes": size, "format": "JPEG", "caption": "a picture",
        "label": None, **values,
    }  # fmt: skip


def judge(rows: list[dict[str, Any]], history: pd.DataFrame | None = None, **fields: Any) -> Clusters:
    return find(pd.DataFrame(rows), np.ones(len(rows), bool), PLAN.model_copy(update=fields), history)


def accepted(rows: list[dict[str, Any]], clusters: Clusters) -> pd.DataFrame:
    """The history after these rows."""
    table = pd.DataFrame(rows).assign(cluster=clusters.name, side="train")[clusters.kept]
    return table[["id", "pixels", "phash", "dhash", "crops", "descriptor", "cluster", "side"]]


@pytest.mark.parametrize("change", CHANGES)
def test_copies_of_photos_are_found(change: str) -> None:
    found = 0
    for seed in range(6):
        rows = [row("a.jpg", photo(seed)), row("b.jpg", CHANGES[change](photo(seed)))]
        clusters = judge(rows)
        if clusters.name[0] == clusters.name[1]:
            found += 1
            assert clusters.kept.tolist() in ([True, False], [False, True])
            (text,) = (reasons[0] for reasons in clusters.reasons if reasons)
            assert kind_of(text) == "near duplicate"
    assert found >= 5


def test_reasons_say_which_and_how() -> None:
    rows = [row("a.jpg", photo(0)), row("m.jpg", ImageOps.mirror(photo(0))), row("s.jpg", photo(0).resize((64, 48)))]
    clusters = judge(rows)
    assert clusters.reasons[0] == []
    assert [detail_of(reasons[0]) for reasons in clusters.reasons[1:]] == [
        "of a.jpg, mirrored",
        "of a.jpg, re-encoded or resized",
    ]
    assert set(clusters.pairs.columns) == {"left", "right", "kind", "distance"}
    assert {(0, 1, "mirrored"), (0, 2, "re-encoded or resized")} <= set(
        clusters.pairs[["left", "right", "kind"]].itertuples(index=False, name=None)
    )


def test_different_pictures_are_not_joined() -> None:
    rows = [row(f"{seed}.jpg", photo(seed)) for seed in range(60)]
    colours = ("red", "blue", "orange", "purple", "green", "gold")
    rows += [row(f"{colour}.png", drawing(colour), format="PNG") for colour in colours]
    rows += [row(f"{hand}.png", drawing("red", hand), format="PNG") for hand in range(1, 12)]
    clusters = judge(rows)
    assert clusters.kept.all()
    assert len(set(clusters.name)) == len(rows)


def test_copies_of_drawings_are_found_where_nothing_in_them_changed() -> None:
    for changed in (
        ImageOps.mirror(drawing("red", 2)),
        drawing("red", 2).resize((48, 48)),
        jpeg(drawing("red", 2), 60),
    ):
        assert (~judge([row("a.png", drawing("red", 2)), row("b.png", changed)]).kept).sum() == 1


def test_the_same_file_and_the_same_pixels() -> None:
    rows = [
        row("b.jpg", photo(1), caption="one", label="cat"),
        row("c.jpg", photo(1), bytes_of=b"other file", caption="two", label="dog"),
        row("a.jpg", photo(1), caption="One ", label="cat"),
        row("x.jpg", photo(2), caption="three", label="cat"),
    ]
    for near in (True, False):
        clusters = judge(rows, near_duplicates=near)
        assert clusters.kept.tolist() == [False, False, True, True]
        assert clusters.name[:3] == [rows[0]["pixels"]] * 3
        assert clusters.reasons == [["check: duplicate: of a.jpg"], ["check: duplicate: of a.jpg"], [], []]
        kinds = [{kind_of(flag) for flag in flags} for flags in clusters.flags]
        assert kinds == [{"labels differ within duplicates", "captions differ within duplicates"}] * 3 + [set()]
        assert sorted(clusters.pairs["kind"]) == ["same file", "same pixels"]
    assert judge([rows[0], row("m.jpg", ImageOps.mirror(photo(1)))], near_duplicates=False).kept.all()


def test_the_better_copy_is_kept() -> None:
    same, small, large = photo(3), photo(3).resize((64, 48)), photo(3).resize((192, 144))
    best_last = [
        [row("a.jpg", small, bytes=300), row("b.jpg", same)],
        [row("a.jpg", large, bytes=1050), row("b.jpg", same)],  # enlarged
        [row("a.jpg", crop(same, 0.96), bytes=1010), row("b.jpg", same)],
        [row("a.jpg", same), row("b.png", same, bytes_of=b"png", format="PNG", bytes=4000)],
        [row("a.png", small, format="PNG", bytes=4000), row("b.jpg", same)],
        [row("a.jpg", same, bytes=500), row("b.jpg", same, bytes_of=b"2")],
        [row("a.jpg", jpeg(same, 95), bytes=1100, caption=None), row("b.jpg", same)],
        [row("a.jpg", same, caption=" "), row("b.jpg", same)],
        [row("a (1).jpg", same), row("a.jpg", same)],
        [row("b.jpg", same), row("a.jpg", same)],
    ]
    for rows in best_last:
        assert judge(rows).kept.tolist() == [False, True]


def test_unusable_rows_are_not_kept_and_link_nothing() -> None:
    rows = [row("a.jpg", photo(4)), row("b.jpg", photo(4)), row("c.jpg", jpeg(photo(4)))]
    clusters = find(pd.DataFrame(rows), np.array([False, True, False]), PLAN)
    assert clusters.kept.tolist() == [False, True, False]
    assert clusters.reasons == [[], [], []]
    assert len(set(clusters.name)) == 1
    undecodable = {**rows[0], **dict.fromkeys(("pixels", "phash", "dhash", "crops", "descriptor", "entropy"))}
    clusters = find(pd.DataFrame([undecodable, undecodable]), np.zeros(2, bool), PLAN)
    assert clusters.name == [None, None]


def test_unusable_rows_link_nothing() -> None:
    """A half and the picture it is of are copies of a third; where that cannot be used, they are on their own."""
    rows = [row("a.jpg", photo(5), id=None), row("m.jpg", jpeg(photo(5))), row("b.jpg", ImageOps.mirror(photo(5)))]
    history = pd.DataFrame(rows).assign(cluster=["one", "two", "three"], side="train")[:2]
    linked = find(pd.DataFrame(rows), np.array([True, True, True]), PLAN, history)
    assert len(set(linked.name)) == 1
    apart = find(pd.DataFrame(rows), np.array([True, True, False]), PLAN, history)
    assert apart.name[:2] == ["one", "two"]
    assert apart.name[2] in ("one", "two")


def small_world() -> list[dict[str, Any]]:
    """Rows with copies of all kinds."""
    rows = [row(f"{seed}.jpg", photo(seed)) for seed in range(12)]
    for number, change in enumerate(CHANGES.values()):
        rows.append(row(f"copy {number}.jpg", change(photo(number % 4)), bytes=500 + number))
    rows += [row("same.jpg", photo(7)), row("other file.jpg", photo(8), bytes_of=b"again")]
    return rows


def test_order_of_rows_does_not_matter() -> None:
    rows = small_world()
    clusters = judge(rows)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    shuffled = judge([rows[place] for place in order])
    for before, after in ((clusters.name, shuffled.name), (clusters.reasons, shuffled.reasons)):
        assert [before[place] for place in order] == after
    np.testing.assert_array_equal(clusters.kept[order], shuffled.kept)
    assert 5 < (~clusters.kept).sum() < len(rows) - 12 + 1


def test_no_row_is_refused_but_as_the_copy_of_a_kept_one() -> None:
    rows = small_world()
    clusters = judge(rows)
    paths = {values["path"]: place for place, values in enumerate(rows)}
    for place, reasons in enumerate(clusters.reasons):
        assert bool(reasons) != clusters.kept[place]
        for text in reasons:
            original = paths[detail_of(text).removeprefix("of ").split(", ")[0]]
            assert clusters.kept[original]
            assert clusters.name[original] == clusters.name[place]


def test_a_new_batch_joins_the_clusters_of_the_accepted() -> None:
    first = [row(f"{seed}.jpg", photo(seed)) for seed in range(8)]
    known = accepted(first, judge(first))
    new = [
        row("copy.jpg", CHANGES["turned"](photo(2)).resize((960, 1280))),  # larger, but the accepted one stays
        row("0 same.jpg", photo(3)),
        row("new.jpg", photo(100)),
    ]
    clusters = judge(first + new, known)
    assert clusters.name[8] == first[2]["pixels"]
    assert clusters.name[9] == first[3]["pixels"]
    assert not clusters.kept[8]
    assert clusters.kept[[3, 9]].sum() == 1  # the same file: which row of it was accepted, this history does not say
    assert clusters.name[10] == new[2]["pixels"]
    named = known.assign(row_id=[values["row_id"] for values in first])
    assert judge(first + new, named).kept.tolist() == [True] * 8 + [False, False, True]


def test_the_same_pairs_whether_at_once_or_in_two_batches() -> None:
    rows = small_world()
    columns = pd.DataFrame(rows)
    seen = looks(
        *(columns[name].tolist() for name in ("phash", "dhash", "crops", "descriptor")), columns["entropy"].to_numpy()
    )
    fresh = np.random.default_rng(2).random(len(rows)) < 0.4
    every, some = copies(seen, np.ones(len(rows), bool), 6), copies(seen, fresh, 6)
    touched = fresh[every.i] | fresh[every.j]
    assert list(zip(every.i[touched], every.j[touched], strict=True)) == list(zip(some.i, some.j, strict=True))
    np.testing.assert_array_equal(every.distance[touched], some.distance)
    assert 0 < len(some.i) < len(every.i)


def test_names_stay_when_rows_are_added() -> None:
    rows = [row("b.jpg", photo(0)), row("x.jpg", photo(1))]
    before = judge(rows)
    history = accepted(rows, before)
    for seed, change in enumerate(CHANGES.values()):
        rows.append(row(f"a{seed}.jpg", change(photo(seed % 2))))
        clusters = judge(rows, history)
        assert clusters.name[:2] == before.name
        assert clusters.kept[:2].all()


def test_a_row_that_joins_two_clusters_takes_the_smaller_name_and_tells() -> None:
    rows = [row("a.jpg", photo(0)), row("b.jpg", jpeg(photo(0)))]
    apart = pd.DataFrame(rows).assign(cluster=["zz", "yy"], side=["train", "validation"])
    clusters = judge([*rows, row("c.jpg", ImageOps.mirror(photo(0)))], apart)
    assert clusters.name == ["yy"] * 3
    assert clusters.joined == {"yy": ("yy", "zz")}
    assert clusters.kept.tolist() == [True, True, False]
    alone = judge(rows, apart)
    assert alone.name == ["zz", "yy"]
    assert alone.joined == {"zz": ("zz",), "yy": ("yy",)}


def test_a_picture_that_comes_back_is_kept_under_its_old_name() -> None:
    gone = pd.DataFrame([row("old.jpg", photo(0))]).assign(cluster="old name", side="train")
    for picture in (photo(0), jpeg(photo(0), 60)):
        clusters = judge([row("new.jpg", picture), row("x.jpg", photo(1))], gone)
        assert clusters.kept.all()
        assert clusters.name[0] == "old name"
        assert clusters.joined == {"old name": ("old name",)}


def test_tiny_pictures_without_hashes_are_compared_by_their_pixels() -> None:
    tiny = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)) for seed in range(20)]
    rows = [row(f"{place:02}.png", picture) for place, picture in enumerate([*tiny, tiny[4]])]
    assert all(values["phash"] is None for values in rows)
    clusters = judge(rows)
    assert clusters.reasons[20] == ["check: duplicate: of 04.png"]
    assert clusters.kept.sum() == 20


def test_many_rows_of_one_picture_stay_cheap() -> None:
    same = row("a.jpg", photo(0))
    rows = [{**same, "path": f"{place}.jpg", "row_id": str(place)} for place in range(3000)]
    clusters = judge(rows)
    assert clusters.kept.sum() == 1
    assert len(clusters.pairs) == 2999


def test_an_empty_table() -> None:
    table = pd.DataFrame([row("a.jpg", photo(0))])
    clusters = find(table[:0], np.zeros(0, bool), PLAN, table.assign(cluster="c", side="train"))
    assert clusters.name == []
    assert len(clusters.pairs) == 0
