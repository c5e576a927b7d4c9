"""The manifest: one row an occurrence, a digest of content, and nothing read twice."""

import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from darkroom.collect.manifest import collect, picture_path, read_rows
from darkroom.collect.source import Item
from darkroom.errors import RecipeError
from darkroom.recipe import Collect
from darkroom.store import Store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (16, 16), (index * 40, 0, 0)).save(folder / f"{index}.png")
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "text": "red"}\n{"file_name": "1.png", "text": 5}\n'
        '{"file_name": "gone.png", "text": "x"}\n'
    )
    return folder


def table(manifest) -> pd.DataFrame:
    return pd.read_parquet(manifest.path / "manifest.parquet").set_index("path")


def test_every_occurrence_is_a_row_with_its_reasons(photos: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    rows = table(collect(Collect(source="folder", path=str(photos)), store))
    assert list(rows.index) == ["0.png", "1.png", "2.png", "gone.png"]
    assert rows["row_id"].is_unique
    assert list(rows.loc["0.png", "reasons"]) == []
    assert list(rows.loc["1.png", "reasons"]) == ["collect: caption is not a text: it is int"]
    assert list(rows.loc["gone.png", "reasons"]) == ["collect: unreadable: No such file or directory"]
    assert picture_path(store, rows.loc["0.png", "id"]).read_bytes() == (photos / "0.png").read_bytes()


def test_the_digest_is_of_the_content(photos: Path, tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "store"), Collect(source="folder", path=str(photos))
    first = collect(plan, store)
    again = collect(plan, store)
    assert (again.digest, again.reused) == (first.digest, True)
    Image.new("RGB", (16, 16), (7, 7, 7)).save(photos / "2.png")
    changed = collect(plan, store)
    assert changed.digest != first.digest
    differs = table(changed)["id"] != table(first)["id"]
    assert list(differs[differs].index) == ["2.png", "gone.png"]  # None is not equal to None


def test_bytes_of_a_known_fingerprint_are_not_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def offer(read, fingerprint: str | None):
        return iter([Item("a.png", "a", None, "CC0", fingerprint, None, read)])

    def refuse() -> bytes:
        raise AssertionError("read again")

    first = read_rows("source", offer(lambda: b"one", "same"), 100, store)
    assert read_rows("source", offer(refuse, "same"), 100, store) == first
    assert read_rows("source", offer(lambda: b"two", "other"), 100, store)[0]["id"] != first[0]["id"]
    with pytest.raises(AssertionError):
        read_rows("another source", offer(refuse, "same"), 100, store)


def test_files_over_the_limit_stay_unread(photos: Path, tmp_path: Path) -> None:
    rows = table(collect(Collect(source="folder", path=str(photos), max_bytes=10), Store(tmp_path / "store")))
    assert rows.loc["0.png", "reasons"][0].startswith("collect: too large: ")
    assert pd.isna(rows.loc["0.png", "id"])


def test_an_empty_source_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(RecipeError, match="has no pictures"):
        collect(Collect(source="folder", path=str(tmp_path / "none")), Store(tmp_path / "store"))


def test_text_that_is_no_text_is_a_reason(photos: Path, tmp_path: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "\\ud83d"}')
    odd = os.fsencode(photos) + b"/odd\xff.png"
    with open(odd, "wb") as file:  # noqa: PTH123  (a name that is not UTF-8)
        file.write((photos / "1.png").read_bytes())
    rows = table(collect(Collect(source="folder", path=str(photos)), Store(tmp_path / "store")))
    assert list(rows.loc["0.png", "reasons"]) == ["collect: caption is not valid text: it has half of a surrogate pair"]
    assert "odd\\udcff.png" in rows.index


def test_no_caption_is_not_the_caption_none(photos: Path, tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "store"), Collect(source="folder", path=str(photos))
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png"}')
    without = collect(plan, store).digest
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "None"}')
    assert collect(plan, store).digest != without
