"""The folder source: metadata of every kind of wrongness, caption files, class folders; nothing read outside."""

import json
import os
import random
from pathlib import Path

import pytest

from darkroom.collect.folder import class_of, items
from darkroom.collect.source import Item
from darkroom.errors import RecipeError
from darkroom.recipe import Collect, Columns
from darkroom.store import Store


def put(folder: Path, *names: str) -> Path:
    """Files whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def make(folder: Path, lines: list[object], pictures: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    put(folder, *pictures)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, "utf-8")
    return folder


def rows(folder: Path, **fields: object) -> dict[str, Item]:
    found = list(items(Collect(source="folder", path=str(folder), **fields)))
    assert len({item.path for item in found}) == len(found), "every row has a path of its own"
    return {item.path: item for item in found}


def why_not(item: Item) -> str:
    try:
        item.read()
    except OSError as error:
        return error.strerror or str(error)
    raise AssertionError(f"{item.path} was read")


def test_rows_carry_their_metadata(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "photos",
        [
            {"file_name": "a.png", "text": "a cat", "label": "cat", "license": "CC0-1.0", "source": "a museum"},
            {"file_name": "./sub/c.jpg", "caption": "a dog"},
        ],
        ("a.png", "b.png", "sub/c.jpg", "notes.md"),
    )
    found = rows(folder)
    assert sorted(found) == ["a.png", "b.png", "sub/c.jpg"]
    first = found["a.png"]
    assert (first.caption, first.label, first.licence, first.origin) == ("a cat", "cat", "CC0-1.0", "a museum")
    assert (found["sub/c.jpg"].caption, found["sub/c.jpg"].licence) == ("a dog", "unknown")
    assert found["b.png"].caption is None
    assert all(item.read() == path.encode() and item.size == len(path) for path, item in found.items())


def test_wrong_lines_become_rows_that_cannot_be_read(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "photos",
        [
            "{broken",
            {"text": "no name"},
            {"file_name": 3},
            {"file_name": "a.png"},
            {"file_name": "a.png"},
            {"file_name": "gone.png"},
            "[" * 100_000,
            {"file_name": ""},
            {"file_name": "sub"},
            {"file_name": "../x"},
            {"file_name": "../x"},
        ],
        ("a.png", "b.png", "sub/c.png"),
    )
    found = rows(folder)
    wrong = {"gone.png", "sub", "../x", *(f"metadata.jsonl:{line}" for line in (1, 2, 3, 5, 7, 8, 11))}
    assert set(found) == {"a.png", "b.png", "sub/c.png"} | wrong
    for path in wrong:
        assert why_not(found[path])
        assert found[path].fingerprint is None
    assert why_not(found["metadata.jsonl:5"]) == "a second line for a.png"
    assert why_not(found["sub"]) == "a folder, not a file"


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (tmp_path / "photos2").mkdir()
    names = ["../secret.png", str(secret), "bad\0name", "../photos2/x.png", "sub/../../secret.png", "door/secret.png"]
    names += [f"file://{secret}", "..\\secret.png"]
    folder = make(tmp_path / "photos", [{"file_name": name} for name in names], ("a.png", "sub/b.png"))
    (folder / "link.png").symlink_to(secret)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("gone")
    (folder / "door").symlink_to(tmp_path)
    (folder / "a.txt").symlink_to(secret)
    found = rows(folder)
    assert found.pop("sub/b.png").read() == b"sub/b.png"
    assert set(names) | {"link.png", "loop.png", "nowhere.png", "door", "a.png"} == set(found)
    for item in found.values():
        assert why_not(item)
        assert item.open is None


def test_a_link_that_stays_inside_is_read(tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", "real/a.png")
    (folder / "link.png").symlink_to("real/a.png")
    assert rows(folder)["link.png"].read() == b"real/a.png"


def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", "a.png")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "a.txt")
    found = rows(folder)
    assert "a pipe" in why_not(found["pipe.png"])
    assert "a pipe" in why_not(found["a.png"]), "its caption is not known"
    # A file that becomes a pipe after the listing is not waited for either.
    (folder / "a.txt").unlink()
    item = rows(folder)["a.png"]
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")
    assert "a pipe" in why_not(item)


def test_what_systems_leave_behind_is_no_picture(tmp_path: Path) -> None:
    left = (".DS_Store", "._a.png", ".hidden/a.png", "__MACOSX/a.png", "Thumbs.db", "desktop.ini", "notes.pdf")
    assert set(rows(put(tmp_path / "photos", "a.png", *left))) == {"a.png"}


def test_pictures_that_nobody_decodes_are_rows(tmp_path: Path) -> None:
    names = ("a.heic", "b.avif", "c.svg", "d.JXL", "e.cr2")
    assert set(rows(put(tmp_path / "photos", *names))) == set(names)


def test_the_store_is_not_collected(tmp_path: Path) -> None:
    put(tmp_path / "photos", "a.png", "store/working/b.png")
    plan = Collect(source="folder", path=str(tmp_path / "photos"))
    assert [item.path for item in items(plan, Store(tmp_path / "photos" / "store"))] == ["a.png"]


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", "a.png", "b.png")
    before = {path: item.fingerprint for path, item in rows(folder).items()}
    (folder / "a.png").write_bytes(b"A.png")  # the same size
    after = {path: item.fingerprint for path, item in rows(folder).items()}
    assert before["a.png"] != after["a.png"]
    assert before["b.png"] == after["b.png"]


def test_a_missing_folder_is_a_mistake_in_the_recipe(tmp_path: Path) -> None:
    put(tmp_path, "file.txt")
    for name in ("nowhere", "file.txt"):
        with pytest.raises(RecipeError, match=r"collect\.path"):
            rows(tmp_path / name)


def test_a_caption_file_is_the_caption_or_the_sidecar(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "photos",
        [{"file_name": "both.png", "text": "from the line"}, {"file_name": "null.png", "text": None}],
        ("both.png", "null.png", "alone.png", "older.png", "none.png", "dotted.v2.png"),
    )
    for name in ("both.txt", "null.txt", "alone.txt", "older.caption", "dotted.v2.txt", "README.txt"):
        (folder / name).write_text(f"text of {name}\n")
    (folder / "alone.caption").write_text("the .txt goes first")
    found = rows(folder)
    assert (found["both.png"].caption, found["both.png"].sidecar) == ("from the line", "text of both.txt")
    for name in ("null", "alone", "dotted.v2"):
        item = found[f"{name}.png"]
        assert (item.caption, item.sidecar) == (f"text of {name}.txt", None)
    assert found["older.png"].caption == "text of older.caption"
    assert found["none.png"].caption is None
    assert len(found) == 6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_caption_files_of_every_editor(tmp_path: Path, encoding: str) -> None:
    folder = put(tmp_path / "photos", "a.png")
    (folder / "a.txt").write_bytes("café\r\n".encode(encoding))
    assert rows(folder)["a.png"].caption == "café"


def test_folders_are_classes_where_there_is_no_metadata(tmp_path: Path) -> None:
    folder = put(tmp_path / "photos", "cat/1.png", "dog/images/2.png", "train/3.png", "4.png")
    labels = {path: item.label for path, item in rows(folder).items()}
    assert labels == {"cat/1.png": "cat", "dog/images/2.png": "dog", "train/3.png": None, "4.png": None}
    (folder / "metadata.jsonl").write_text('{"file_name": "4.png", "text": "x"}')
    assert {item.label for item in rows(folder).values()} == {None}


def test_kohyas_repeats_are_not_part_of_the_label() -> None:
    assert class_of("10_sks dog/1.png", numbered=True) == "sks dog"
    assert class_of("10_sks dog/1.png", numbered=False) == "10_sks dog"
    assert class_of("1990/1.png", numbered=True) == "1990"


def test_metadata_below_the_folder_is_relative_to_its_own(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "photos",
        [{"file_name": "a.png", "text": "up"}, {"file_name": "sub/b.png", "text": "up"}],
        ("a.png", "sub/b.png", "sub/c.png"),
    )
    (folder / "sub" / "metadata.csv").write_text('file_name,text\nb.png,"near, and nearer"\nc.png,\n../../x.png,out\n')
    found = rows(folder)
    assert found["sub/b.png"].caption == "near, and nearer", "the nearer line wins"
    assert why_not(found["metadata.jsonl:2"]) == "a second line for sub/b.png"
    assert found["a.png"].caption == "up"
    assert found["sub/c.png"].caption is None
    assert why_not(found["../../x.png"])


def test_columns_of_the_recipe(tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", [{"file_name": "a.png", "text": "no", "alt": "yes"}])
    assert rows(folder, columns=Columns(caption="alt"))["a.png"].caption == "yes"
    with pytest.raises(RecipeError, match=r"collect\.columns\.caption = 'atl'.*file_name, text, alt"):
        rows(folder, columns=Columns(caption="atl"))


def test_names_that_are_spelt_differently_are_found(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "photos",
        [{"file_name": "cafe\u0301.png", "text": "accent"}, {"file_name": "sub\\b.png", "text": "windows"}],
        ("caf\u00e9.png", "sub/b.png"),
    )
    found = rows(folder)
    assert {path: item.caption for path, item in found.items()} == {"caf\u00e9.png": "accent", "sub/b.png": "windows"}


def test_lines_of_random_bytes_lose_no_picture(tmp_path: Path) -> None:
    chance = random.Random(0)
    names = [f"{index}.png" for index in range(20)]
    folder = put(tmp_path / "photos", *names)
    for name, lines in (
        ("metadata.jsonl", [json.dumps({"file_name": name, "text": name}) for name in names]),
        ("metadata.csv", ["file_name,text", *(f'{name},"{name}"' for name in names)]),
    ):
        good = "\n".join(lines).encode()
        for _ in range(30):
            bad = bytearray(good)
            start = 0 if name.endswith("l") else len(lines[0])
            for _ in range(5):
                bad[chance.randrange(start, len(bad))] = chance.randrange(256)
            (folder / name).write_bytes(bytes(bad))
            assert set(names) <= set(rows(folder))
        (folder / name).unlink()
