"""Tables: the same rows from every kind of file; wrong lines are rows; addresses go to whoever fetches them."""

import csv
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from darkroom.collect.source import Item
from darkroom.collect.table import items
from darkroom.errors import RecipeError
from darkroom.recipe import Collect, Columns
from darkroom.store import Store


class Web:
    """A fetcher that knows every address, and answers in pairs as concurrent ones do."""

    @dataclass(frozen=True)
    class Address:
        url: str
        caption: object
        label: object
        licence: str
        origin: str | None

    def __init__(self) -> None:
        self.asked: list[Web.Address] = []

    def items(self, addresses: Iterable[Address], plan: Collect, store: Store) -> Iterator[Item]:
        waiting: list[Item] = []
        for address in addresses:
            self.asked.append(address)
            waiting.append(Item(address.url, address.caption, address.label, address.licence, None, None, bytes))
            if len(waiting) == 2:
                yield from reversed(waiting)
                waiting.clear()
        yield from waiting


LINES = [
    {"file_name": "a.png", "text": "a cat, sitting", "label": "cat", "license": "CC0", "source": "a museum"},
    {"file_name": "sub/b.png", "text": 'a "dog"', "label": "dog", "license": None, "source": None},
    {"file_name": "./a.png", "text": "again\nin two lines", "label": None, "license": "MIT", "source": None},
]


def write(folder: Path, kind: str, lines: list[dict[str, object]]) -> Path:
    """A table of this kind, beside two pictures whose content is their name."""
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "sub/b.png"):
        (folder / name).write_bytes(name.encode())
    path = folder / f"list{kind}"
    if kind == ".jsonl":
        path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    elif kind == ".parquet":
        pd.DataFrame(lines).to_parquet(path)
    else:
        separator = {".csv": ",", ".tsv": "\t", ";.csv": ";"}[kind]
        path.write_text(pd.DataFrame(lines).to_csv(index=False, sep=separator), "utf-8-sig")
    return path


def read(path: Path, web: Web | None = None, **fields: object) -> list[Item]:
    plan = Collect(source="table", path=str(path), **fields)
    return list(items(plan, Store(path.parent / "store"), web))


def why_not(item: Item) -> str:
    try:
        item.read()
    except OSError as error:
        return error.strerror or str(error)
    raise AssertionError(f"{item.path} was read")


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet", ";.csv"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    found = read(write(tmp_path, kind, LINES), licence="by default")
    assert [item.path for item in found] == ["a.png", "sub/b.png", "a.png"]
    assert [item.read() for item in found] == [b"a.png", b"sub/b.png", b"a.png"]
    assert [item.caption for item in found] == [line["text"] for line in LINES]
    assert [item.label for item in found] == ["cat", "dog", None]
    assert [item.licence for item in found] == ["CC0", "by default", "MIT"]
    assert [item.origin for item in found] == ["a museum", None, None]
    assert all(item.fingerprint and item.open for item in found)


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_columns_of_the_recipe(tmp_path: Path, kind: str) -> None:
    renamed = [{"f": line["file_name"], "text": "no", "alt": line["text"]} for line in LINES]
    path = write(tmp_path, kind, renamed)
    found = read(path, columns=Columns(file="f", caption="alt"))
    assert [item.caption for item in found] == [line["text"] for line in LINES]
    with pytest.raises(RecipeError, match=r"neither a column of files.*it has f, text, alt"):
        read(path)
    with pytest.raises(RecipeError, match=r"collect\.columns\.label = 'class'.*it has f, text, alt"):
        read(path, columns=Columns(file="f", label="class"))


def test_large_letters_of_columns(tmp_path: Path) -> None:
    web = Web()
    pd.DataFrame({"URL": ["https://a.example/1.jpg"], "TEXT": ["one"]}).to_parquet(tmp_path / "laion.parquet")
    assert [(item.path, item.caption) for item in read(tmp_path / "laion.parquet", web)] == [
        ("https://a.example/1.jpg", "one")
    ]


def test_nothing_outside_the_tables_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    names = ["../secret.png", str(tmp_path / "secret.png"), "sub/../../secret.png", "link.png", "file:///etc/passwd"]
    names += ["sub", ".", "gone.png", "..\\secret.png"]
    path = write(tmp_path / "in", ".jsonl", [{"file_name": name} for name in names])
    (tmp_path / "in" / "link.png").symlink_to("../secret.png")
    found = read(path)
    assert [item.path for item in found] == names
    assert all(why_not(item) for item in found)


def test_irregular_lines_are_rows_and_shift_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", LINES)
    path.write_text(
        'file_name,text\na.png,one,two\n\nsub/b.png\na.png,fine\n"a.png",bad"quote"\n"a.png"x,bad\n'
        f'a.png,{"long" * 50_000}\nsub/b.png,"also\n\nfine"\na.png,"never closed\nsub/b.png,last\n'
    )
    found = read(path)
    good = [(item.path, item.caption) for item in found if ":" not in item.path]
    assert ("a.png", "fine") in good
    assert ("sub/b.png", "also\n\nfine") in good
    assert ("sub/b.png", "last") in good, "a quote that is never closed swallows nothing"
    wrong = {item.path: why_not(item) for item in found if ":" in item.path}
    assert "3 values where the first line names 2 columns" in wrong["list.csv:2"]
    assert "1 values" in wrong["list.csv:4"]
    assert {"list.csv:7", "list.csv:8", "list.csv:12"} <= wrong.keys()
    assert all(item.caption in (None, "fine", "also\n\nfine", "last", 'bad"quote"') for item in found)


def test_random_tables_are_read_as_csv_reads_them(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(100):
        (tmp_path / "a.png").write_bytes(b"a")
        texts = ["".join(chance.choices('a",\n\r; ', k=chance.randrange(12))) for _ in range(10)]
        with (tmp_path / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "text"), *(("a.png", text) for text in texts)])
        assert [item.caption or "" for item in read(tmp_path / "list.csv")] == texts


def test_addresses_are_fetched_and_files_wait_for_nothing(tmp_path: Path) -> None:
    lines = [
        {"url": None, "file": "a.png", "text": "file"},
        {"url": "https://a.example/1.jpg", "file": None, "text": "one"},
        {"url": "ftp://a.example/2.jpg", "file": None, "text": "two"},
        {"url": "https://a.example/3.jpg", "file": None, "text": "three", "license": "CC0", "source": "page"},
        {"url": 5, "file": None, "text": "four"},
        {"url": "HTTPS://a.example/5.jpg", "file": None, "text": "five"},
        {"url": None, "file": "sub/b.png", "text": "last"},
        {"text": "nothing"},
    ]
    web = Web()
    found = read(write(tmp_path, ".jsonl", lines), web, licence="by default")
    assert len(found) == len(lines)
    assert {item.caption for item in found} == {line["text"] for line in lines}
    assert [address.url for address in web.asked] == [lines[index]["url"] for index in (1, 3, 5)]
    assert (web.asked[0].licence, web.asked[1].licence, web.asked[1].origin) == ("by default", "CC0", "page")
    by_caption = {item.caption: item for item in found}
    assert by_caption["last"].read() == b"sub/b.png"
    assert "address of the web" in why_not(by_caption["two"])
    assert "neither a file nor an address" in why_not(by_caption["nothing"])


def test_a_table_of_files_asks_no_fetcher(tmp_path: Path) -> None:
    web = Web()
    read(write(tmp_path, ".csv", LINES), web)
    assert web.asked == []


def test_which_column_wins(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", [{"file": "a.png", "url": "https://a.example/1.jpg"}])
    assert [item.path for item in read(path, Web())] == ["https://a.example/1.jpg"]
    assert [item.path for item in read(path, Web(), columns=Columns(file="file"))] == ["a.png"]
    path = write(tmp_path, ".csv", [{"image": "https://a.example/1.jpg"}])
    assert "collect.columns.url" in why_not(read(path, Web())[0]), "an address among files is not fetched unasked"


def test_a_list_of_addresses(tmp_path: Path) -> None:
    web = Web()
    (tmp_path / "list.txt").write_text("https://a.example/1.jpg\r\n\n  http://a.example/2.jpg\nnot an address")
    found = read(tmp_path / "list.txt", web)
    assert [address.url for address in web.asked] == ["https://a.example/1.jpg", "http://a.example/2.jpg"]
    assert sorted(item.path for item in found) == [
        "http://a.example/2.jpg",
        "https://a.example/1.jpg",
        "list.txt:4",
    ]


def test_bytes_in_parquet(tmp_path: Path) -> None:
    pictures = [
        {"bytes": b"one", "path": "1.png"},
        {"bytes": b"two", "path": None},
        {"bytes": None, "path": "/etc/passwd"},
    ]
    pd.DataFrame({"image": pictures, "text": ["1", "2", "3"]}).to_parquet(tmp_path / "list.parquet")
    found = read(tmp_path / "list.parquet")
    assert [item.read() for item in found[:2]] == [b"one", b"two"]
    assert [item.path for item in found] == ["list.parquet/1.png", "list.parquet:2", "list.parquet:3"]
    assert "not a path" in why_not(found[2])


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("list.csv", "file,text\na.png,café\n".encode("latin-1"), "not UTF-8"),
        ("list.csv", "file,text\n".encode("utf-16"), "UTF-16"),
        ("list.jsonl", '{"file": "café"}'.encode("latin-1"), "not UTF-8"),
        ("list.csv", b"", "first line"),
        ("list.csv", b"file,file\n", "'file' twice"),
        ("list.csv", b'file,"text\n', "first line"),
        ("list.parquet", b"PAR1 not", "not a Parquet file"),
        ("list.xlsx", b"PK", r"must be one of \.csv"),
        ("list.csv", None, "there is no such file"),
    ],
)
def test_tables_that_cannot_be_read_are_mistakes(tmp_path: Path, name: str, content: bytes | None, named: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=named):
        read(tmp_path / name)
