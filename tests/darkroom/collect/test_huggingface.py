"""Data sets of ``datasets``: folders that it wrote or can read, with the pictures' own bytes, and no network."""

import io
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before datasets is imported

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from darkroom.collect.huggingface import items
from darkroom.collect.source import Item
from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.recipe import Collect, Columns
from darkroom.store import Store

datasets = pytest.importorskip("datasets")


def picture(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


PICTURES = [picture(colour) for colour in range(3)]


def made(**columns: list[object]) -> "datasets.Dataset":
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
        }
    )
    values = {
        "image": [{"bytes": content, "path": None} for content in PICTURES],
        "label": [0, 1, -1],
        "text": ["a cat", None, "neither"],
        **columns,
    }
    return datasets.Dataset.from_dict(values, features=features)


def read(path: Path | str, tmp_path: Path, web: object = None, **fields: object) -> list[Item]:
    plan = Collect(source="huggingface", path=str(path), **fields)
    return list(items(plan, Store(tmp_path / "store"), web, cache=tmp_path / "cache"))


def why_not(item: Item) -> str:
    try:
        item.read()
    except OSError as error:
        return error.strerror or str(error)
    raise AssertionError(f"{item.path} was read")


@pytest.fixture(params=["saved", "saved splits", "parquet", "imagefolder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    if request.param == "saved":
        made().save_to_disk(str(folder))
    elif request.param == "saved splits":
        datasets.DatasetDict({"train": made(), "test": made()}).save_to_disk(str(folder))
    elif request.param == "parquet":
        folder.mkdir()
        made().to_parquet(str(folder / "train.parquet"))
    else:
        folder.mkdir()
        for index, content in enumerate(PICTURES):
            (folder / f"{index}.png").write_bytes(content)
        (folder / "metadata.csv").write_text("file_name,text,label\n0.png,a cat,cat\n1.png,,dog\n2.png,neither,\n")
    return folder


def test_rows_have_the_bytes_the_texts_and_the_names_of_classes(place: Path, tmp_path: Path) -> None:
    found = read(place, tmp_path, licence="MIT")
    assert [item.read() for item in found] == PICTURES
    assert [item.caption for item in found] == ["a cat", None, "neither"]
    assert [item.label for item in found] == ["cat", "dog", None]
    assert len({item.path for item in found}) == 3
    assert {item.licence for item in found} == {"MIT"}
    assert [item.size for item in found] == [len(content) for content in PICTURES]
    assert [item.fingerprint for item in read(place, tmp_path)] == [item.fingerprint for item in found]
    assert None not in {item.fingerprint for item in found}


def test_prints_hold_until_the_data_changes(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    made().save_to_disk(str(folder))
    before = [item.fingerprint for item in read(folder, tmp_path)]
    assert None not in before
    assert len(set(before)) == 3
    assert [item.fingerprint for item in read(folder, tmp_path)] == before
    made(text=["other", "texts", "here"]).save_to_disk(str(folder))
    assert not {item.fingerprint for item in read(folder, tmp_path)} & set(before)


def test_columns_of_the_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    data = made().rename_columns({"image": "photo", "text": "alt"})
    data = data.add_column("number", [1, 2, 3])
    data.save_to_disk(str(folder))
    found = read(folder, tmp_path, columns=Columns(caption="alt"))
    assert [item.caption for item in found] == ["a cat", None, "neither"]
    assert [item.read() for item in found] == PICTURES, "the only column of pictures"
    with pytest.raises(RecipeError, match=r"collect\.columns\.caption = 'txt'.*photo"):
        read(folder, tmp_path, columns=Columns(caption="txt"))
    with pytest.raises(RecipeError, match="holds no pictures"):
        read(folder, tmp_path, columns=Columns(file="number"))
    data.remove_columns("photo").save_to_disk(str(tmp_path / "texts"))
    with pytest.raises(RecipeError, match=r"no column of pictures or addresses.*alt"):
        read(tmp_path / "texts", tmp_path)


def test_a_row_cannot_name_a_file_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PICTURES[0])
    folder = tmp_path / "set"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    paths = [str(tmp_path / "secret.png"), f"{folder}/../secret.png", f"{folder}/pipe.png", f"{folder}/gone.png", None]
    rows = [{"image": {"bytes": None, "path": path}, "label": 0, "text": "text"} for path in paths]
    table = pa.Table.from_pylist(rows, schema=made().features.arrow_schema)
    pq.write_table(table, folder / "train.parquet")
    told = [why_not(item) for item in read(folder, tmp_path)]
    assert told == [
        *["the row names a file that is not part of the data set"] * 2,
        "not a file",
        "No such file or directory",
        "this row has no picture",
    ]


def test_addresses_are_fetched(tmp_path: Path) -> None:
    def fetch(addresses: Iterable[SimpleNamespace], plan: Collect, store: Store) -> Iterator[Item]:
        return (Item(one.url, one.caption, one.label, one.licence, None, None, bytes) for one in addresses)

    data = datasets.Dataset.from_dict({"url": ["https://a.example/1.jpg", None], "text": ["one", "two"]})
    data.save_to_disk(str(tmp_path / "set"))
    found = read(tmp_path / "set", tmp_path, SimpleNamespace(Address=SimpleNamespace, items=fetch))
    assert {(item.path, item.caption) for item in found} == {("https://a.example/1.jpg", "one"), ("train:1", "two")}


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": made()}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(RecipeError, match=r"collect\.split = 'test'.*train"):
        read(tmp_path / "set", tmp_path, split="test")
    (tmp_path / "parquet").mkdir()
    made().to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    with pytest.raises(RecipeError, match="nowhere"):
        read(tmp_path / "parquet", tmp_path, split="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="empty"):
        read(tmp_path / "empty", tmp_path)


def test_a_hub_that_does_not_answer_and_a_missing_package() -> None:
    program = """
import sys
from pathlib import Path
if sys.argv[1] == "missing":
    sys.modules["datasets"] = None
from darkroom.collect.huggingface import load
from darkroom.recipe import Collect
try:
    load(Collect(source="huggingface", path="nobody/nothing"))
except Exception as error:
    print(type(error).__name__, error)
"""
    for case, told in (("missing", "RecipeError"), ("offline", "ServiceUnavailable")):
        done = subprocess.run(
            [sys.executable, "-c", program, case],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(told), done.stdout
        if case == "missing":
            assert "pip install 'darkroom[huggingface]'" in done.stdout
    assert ServiceUnavailable.exit_status == 4
