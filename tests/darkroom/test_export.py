"""Exports: the same pictures and texts come back, under safe names, without what identifies people."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from darkroom.collect.folder import items
from darkroom.collect.manifest import picture_path
from darkroom.errors import RecipeError
from darkroom.export import LICENCES, export, folder_names, safe_stem
from darkroom.export_bytes import without_metadata
from darkroom.recipe import Collect
from darkroom.store import Store

HOSTILE = [
    "../../etc/passwd",
    "a/../../b.png",
    "CON",
    "x.tar.gz",
    "名前.png",
    "..",
    "-rf.png",
    "a\nb.png",
    ".hidden",
    "",
]


@pytest.fixture
def rows(noise, store: Store) -> list[dict]:
    made = [
        noise(number, (12, 10), path=path, label=["cat", "Cat!", None][number % 3], licence="=1+1", origin="@someone")
        for number, path in enumerate(HOSTILE)
    ]
    made[1] |= {"caption": 'two\nlines, "quoted" 七'}
    made[2] |= {"caption": None}
    for row in made:
        content = io.BytesIO()
        Image.fromarray(np.full((10, 12, 3), 99, np.uint8)).save(content, "PNG")
        path = picture_path(store, row["id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue() + row["id"].encode())  # what follows the end is not exported
    made[4] |= {"converted": ["CMYK"]}
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_imagefolder_is_read_again_with_the_same_texts(rows, checked_of, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    done = export(checked_of(rows), store, "imagefolder", out)
    assert done.sides == {"train": 8, "validation": 2}
    assert done.kinds == {"original without metadata": 9, "working copy": 1}
    found = [item for side in ("train", "validation") for item in items(Collect(source="folder", path=str(out / side)))]
    texts = sorted((item.caption or "", item.label or "", item.licence) for item in found)
    assert texts == sorted((row["caption"] or "", row["label"] or "", row["licence"]) for row in rows)
    for item in found:
        assert Image.open(io.BytesIO(item.read())).size == (12, 10)
    assert not list(tmp_path.glob("new/.*"))


def test_kohya_has_a_folder_for_each_label_and_a_text_beside_each_captioned_picture(
    rows, checked_of, store: Store, tmp_path: Path
) -> None:
    export(checked_of(rows), store, "kohya", tmp_path / "out", side="train", repeats=3)
    made = files(tmp_path / "out")
    folders = {name.split("/")[1] for name in made if "/" in name}
    assert folders == {"3_picture", "3_Cat", "3_cat-2"} or len({folder.lower() for folder in folders}) == 3
    assert all(folder.startswith("3_") for folder in folders)
    texts = sorted(content.decode() for name, content in made.items() if name.endswith(".txt"))
    assert texts == sorted(row["caption"] for row in rows if row["caption"] is not None and row["split"] == "train")
    for name in made:
        if name.endswith(".txt"):
            assert any(name.removesuffix(".txt") + suffix in made for suffix in (".png", ".jpg"))


def test_webdataset_tars_are_the_same_bytes_and_within_their_size(
    rows, checked_of, store: Store, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        export(checked_of(rows), store, "webdataset", tmp_path / name, tar_bytes=6000, pictures="working")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    samples: dict[str, dict[str, bytes]] = {}
    tars = sorted((tmp_path / "one").glob("*.tar"))
    assert len(tars) > 3
    assert tars[0].name == "train-000000.tar"
    for path in tars:
        with tarfile.open(path) as tar:
            assert sum(512 + -(-member.size // 512) * 512 for member in tar) <= 6000
            for member in tar.getmembers():
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
                stem, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                samples.setdefault(stem, {})[suffix] = content.read()
    assert len(samples) == len(rows)
    by_row = {row["row_id"]: row for row in rows}
    for parts in samples.values():
        said = json.loads(parts["json"])
        row = by_row[said["row_id"]]
        assert (said["id"], said["license"], said["label"]) == (row["id"], row["licence"], row["label"])
        assert parts.get("txt", b"").decode() == (row["caption"] or "")
        assert Image.open(io.BytesIO(parts["png"])).size == (12, 10)


def test_every_file_has_its_licence_and_no_cell_is_a_formula(rows, checked_of, store: Store, tmp_path: Path) -> None:
    export(checked_of(rows), store, "imagefolder", tmp_path / "out")
    with (tmp_path / "out" / LICENCES).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    assert all((tmp_path / "out" / line["file"]).is_file() for line in table)
    assert {line["licence"] for line in table} == {"'=1+1"}
    assert {line["origin"] for line in table} == {"'@someone"}


def test_nothing_is_overwritten_and_nothing_is_left_half_done(rows, checked_of, store: Store, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(RecipeError, match="is not an empty folder"):
        export(checked_of(rows), store, "kohya", tmp_path / "full")
    (tmp_path / "empty").mkdir()
    export(checked_of(rows), store, "kohya", tmp_path / "empty")
    picture_path(store, rows[-1]["id"]).unlink()
    with pytest.raises(Exception, match="is gone from the store"):
        export(checked_of(rows), store, "imagefolder", tmp_path / "broken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "store"]


def test_names_are_safe_and_unique() -> None:
    names = [safe_stem(path, f"{number:064x}"[::-1]) for number, path in enumerate(HOSTILE * 20)]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name.replace("-", "").isascii() and name.replace("-", "").isalnum() for name in names)
    assert not any(name.startswith("-") for name in names)
    folders = folder_names(["a/b", "a-b", "A b", "..", "../..", None, "七", "x" * 500])
    assert len({name.lower() for name in folders.values()}) == 8
    assert all(name.strip("-_.") and "/" not in name and ".." not in name for name in folders.values())


def test_metadata_goes_and_pixels_stay() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x013B] = "A. Uthor"
    exif.get_ifd(0x8825)[1] = "N"
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "A. Uthor")
    for kind, options in (
        ("JPEG", {"exif": exif, "comment": b"A. Uthor", "quality": 90}),
        ("JPEG", {"exif": exif, "progressive": True, "restart_marker_blocks": 2}),
        ("PNG", {"exif": exif, "pnginfo": text}),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found = without_metadata(file.getvalue() + b"A. Uthor")
        assert found is not None
        content, suffix = found
        assert b"Uthor" not in content
        assert suffix == {"JPEG": ".jpg", "PNG": ".png"}[kind]
        with Image.open(io.BytesIO(content)) as plain, Image.open(file) as original:
            assert np.array_equal(np.asarray(plain), np.asarray(original))
            assert not plain.getexif()
        for length in range(0, len(content), 97):
            cut = without_metadata(content[:length])
            assert cut is None  # a file that breaks its format is not passed on
    assert without_metadata(b"GIF89a...") is None
