"""The manifest: one row an occurrence, a digest of content, and nothing read twice."""

import contextlib
import hashlib
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from darkroom.collect.manifest import (
    BATCH_BYTES,
    BATCH_ITEMS,
    Source,
    batches,
    collect,
    open_source,
    picture_path,
    read_rows,
    source_name,
)
from darkroom.collect.source import Item
from darkroom.errors import DiskFull, RecipeError
from darkroom.recipe import Collect
from darkroom.store import Store

given_items = pytest.mark.parametrize(
    "sizes", [[], [1], [None] * 2500, [BATCH_BYTES] * 3, [BATCH_BYTES // 3] * 10, [0] * 1001]
)


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


def rows_of(source: Source, max_bytes: int, store: Store) -> list[dict[str, object]]:
    return read_rows(source.name, source.items, max_bytes, store, place=source.place)


def offer(
    read, fingerprint: str | None = None, name: str = "source", place: str = "here", size: int | None = None
) -> Source:
    return Source(name, place, iter([Item("a.png", "a", None, "CC0", fingerprint, size, read)]))


def refuse() -> bytes:
    raise AssertionError("read again")


def test_bytes_of_a_known_fingerprint_are_not_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = rows_of(offer(lambda: b"one", "same"), 100, store)
    assert rows_of(offer(refuse, "same"), 100, store) == first
    for other in (offer(refuse, "same", place="there"), offer(refuse, None), offer(refuse, "new")):
        with pytest.raises(AssertionError):
            rows_of(other, 100, store)
    second = rows_of(offer(lambda: b"two", "other"), 100, store)
    assert (second[0]["id"] != first[0]["id"], second[0]["row_id"]) == (True, first[0]["row_id"])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_picture_that_the_store_lost_is_read_again(tmp_path: Path, damage) -> None:
    store = Store(tmp_path / "store")
    kept = picture_path(store, rows_of(offer(lambda: b"one", "same"), 100, store)[0]["id"])
    damage(kept)
    rows_of(offer(lambda: b"one", "same"), 100, store)
    assert kept.read_bytes() == b"one"


def test_a_path_that_comes_twice_is_two_rows(tmp_path: Path) -> None:
    contents = [b"one", b"two", b"one"]
    items = [
        Item("a.png", str(index), None, "CC0", f"print {index}", None, partial(bytes, content))
        for index, content in enumerate(contents)
    ]
    store = Store(tmp_path / "store")
    rows = rows_of(Source("source", "here", iter(items)), 100, store)
    assert [row["caption"] for row in rows] == ["0", "1", "2"]
    assert len({row["row_id"] for row in rows}) == 3
    assert [row["id"] for row in rows] == [hashlib.sha256(content).hexdigest() for content in contents]
    again = [replace(item, read=refuse) for item in items]
    assert rows_of(Source("source", "here", iter(again)), 100, store) == rows


def test_no_path_stands_for_another(tmp_path: Path) -> None:
    paths = ["a", "a", "a", "a\x002", "2\0\0source\0a", "a\0\x002", "", "\0", "odd\udcff", "odd\\udcff"]
    items = (Item(path, None, None, "CC0", None, None, bytes) for path in paths)
    rows = rows_of(Source("source", "here", items), 100, Store(tmp_path / "store"))
    assert len({row["row_id"] for row in rows}) == len(paths)


def test_a_full_disk_is_foreseen(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    with pytest.raises(DiskFull):
        collect(Collect(source="folder", path=str(folder)), Store(tmp_path / "store", reserve=10**18))
    with pytest.raises(DiskFull):
        rows_of(offer(lambda: b"one"), 100, Store(tmp_path / "store", reserve=10**18))
    assert not [path for path in (tmp_path / "store" / "pictures").rglob("*") if path.is_file()]


def test_a_file_that_changes_while_it_is_read_is_read_again(photos: Path, tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "store"), Collect(source="folder", path=str(photos))
    source = open_source(plan, store)
    listed = list(source.items)
    (photos / "0.png").write_bytes((photos / "1.png").read_bytes())  # after the listing
    rows = rows_of(replace(source, items=iter(listed)), 10**6, store)
    assert rows[0]["id"] == rows[1]["id"]
    (photos / "0.png").write_bytes(b"now this")
    rows = rows_of(open_source(plan, store), 10**6, store)
    assert rows[0]["id"] == hashlib.sha256(b"now this").hexdigest()


def test_remote_pictures_are_read_several_at_a_time_and_stay_in_order(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=10)

    def read(number: int) -> bytes:
        together.wait()  # only passes when four read at once
        return str(number).encode()

    items = [Item(f"{n}.png", None, None, "CC0", None, None, partial(read, n), remote=True) for n in range(8)]
    rows = rows_of(Source("source", "here", iter(items)), 100, Store(tmp_path / "store"))
    assert [row["id"] for row in rows] == [hashlib.sha256(str(n).encode()).hexdigest() for n in range(8)]


def test_a_digest_that_the_source_knows_is_believed_of_what_the_store_has(tmp_path: Path) -> None:
    store, digest = Store(tmp_path / "store"), hashlib.sha256(b"one").hexdigest()
    rows_of(offer(lambda: b"one"), 100, store)
    rows = rows_of(offer(refuse, f"sha256:{digest}", name="other", size=3), 100, store)
    assert (rows[0]["id"], rows[0]["bytes"]) == (digest, 3)
    with pytest.raises(AssertionError):
        rows_of(offer(refuse, "sha256:" + "0" * 64, size=3), 100, store)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_source_is_closed_however_the_collection_ends(tmp_path: Path, error: type[BaseException] | None) -> None:
    ended = []

    def read() -> bytes:
        if error:
            raise error
        return b""

    def items():
        try:
            yield Item("a.png", None, None, "CC0", None, BATCH_BYTES, read)
            yield Item("b.png", None, None, "CC0", None, None, bytes)
        finally:
            ended.append(True)

    source = Source("source", "here", items())
    with pytest.raises(error) if error else contextlib.nullcontext():
        rows_of(source, BATCH_BYTES, Store(tmp_path / "store"))
    assert ended == [True]


def test_what_was_read_before_an_interruption_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def items(stop: bool, read):
        yield Item("a.png", None, None, "CC0", "print", BATCH_BYTES, read)
        if stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows_of(Source("source", "here", items(True, lambda: b"a")), BATCH_BYTES, store)
    assert len(rows_of(Source("source", "here", items(False, refuse)), BATCH_BYTES, store)) == 1


@given_items
def test_batches_lose_nothing(sizes: list[int | None]) -> None:
    items = [Item(str(n), None, None, "", None, size, refuse) for n, size in enumerate(sizes)]
    found = list(batches(iter(items)))
    assert [item for batch in found for item in batch] == items
    for batch in found:
        assert 0 < len(batch) <= BATCH_ITEMS
        assert sum(item.size or 0 for item in batch[:-1]) < BATCH_BYTES


def test_the_name_of_a_source_is_that_of_its_last_part() -> None:
    def name(source: str, path: str, **fields) -> str:
        return source_name(Collect(source=source, path=path, **fields))

    assert name("folder", "/a/photos") == name("folder", "/b/photos/") == name("folder", "s3://bucket/photos")
    assert name("folder", "zip://::/a/photos.zip") == "folder:photos.zip"
    assert name("table", "s3://bucket/list.csv") == "table:list.csv"
    assert name("webdataset", "/a/tars/{000..012}.tar") == name("webdataset", "s3://b/tars/*.tar") == "webdataset:tars"
    assert name("huggingface", "owner/name", config="small") == "huggingface:owner/name:small"


def test_licence_and_origin_that_are_no_text_do_not_end_the_run(photos: Path, tmp_path: Path) -> None:
    (photos / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "license": {"a": 1}, "source": ["\\ud83d"]}\n'
        '{"file_name": "1.png", "license": "\\ud83d"}'
    )
    rows = table(collect(Collect(source="folder", path=str(photos)), Store(tmp_path / "store")))
    assert rows.loc["1.png", "licence"] == "\\ud83d"


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
