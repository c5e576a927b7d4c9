"""The folder source: metadata of every kind of wrongness, and nothing read outside the folder."""

import json
from pathlib import Path

import pytest

from darkroom.collect.folder import items
from darkroom.errors import RecipeError


def make(folder: Path, lines: list[object], pictures: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    folder.mkdir(exist_ok=True)
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, "utf-8")
    return folder


def test_rows_carry_their_metadata(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "photos",
        [
            {"file_name": "a.png", "text": "a cat", "label": "cat", "license": "CC0-1.0"},
            {"file_name": "sub/c.jpg", "caption": "a dog"},
        ],
        ("a.png", "b.png", "sub/c.jpg", "notes.txt"),
    )
    found = {item.path: item for item in items(folder, "unknown")}
    assert sorted(found) == ["a.png", "b.png", "sub/c.jpg"]
    assert (found["a.png"].caption, found["a.png"].label, found["a.png"].licence) == ("a cat", "cat", "CC0-1.0")
    assert (found["sub/c.jpg"].caption, found["sub/c.jpg"].licence) == ("a dog", "unknown")
    assert found["b.png"].caption is None
    assert found["a.png"].read() == b"a.png"


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
        ],
    )
    found = {item.path: item for item in items(folder, "unknown")}
    assert sorted(found) == ["a.png", "b.png", "gone.png", *(f"metadata.jsonl:{line}" for line in (1, 2, 3, 5))]
    for path in set(found) - {"a.png", "b.png"}:
        with pytest.raises(OSError, match=r"metadata|file_name|No such file|second line|JSON"):
            found[path].read()


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    folder = make(
        tmp_path / "photos", [{"file_name": "../secret.png"}, {"file_name": str(secret)}, {"file_name": "bad\0name"}]
    )
    (folder / "link.png").symlink_to(secret)
    hostile = [item for item in items(folder, "unknown") if item.path not in ("a.png", "b.png")]
    assert len(hostile) == 4
    for item in hostile:
        with pytest.raises(OSError, match=r"leads out of the folder|not a path"):
            item.read()


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", [])
    before = {item.path: item.fingerprint for item in items(folder, "unknown")}
    (folder / "a.png").write_bytes(b"A.png")  # the same size
    after = {item.path: item.fingerprint for item in items(folder, "unknown")}
    assert before["a.png"] != after["a.png"]
    assert before["b.png"] == after["b.png"]


def test_a_missing_folder_is_a_mistake_in_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"collect\.path"):
        list(items(tmp_path / "nowhere", "unknown"))


def test_hostile_lines_are_rows_and_do_not_end_the_run(tmp_path: Path) -> None:
    folder = make(tmp_path / "photos", ["[" * 100_000, '{"file_name": "a.png", "text": "one\u2028line"}'])
    found = {item.path: item for item in items(folder, "unknown")}
    assert found["a.png"].caption == "one\u2028line"
    with pytest.raises(OSError, match="not a JSON object"):
        found["metadata.jsonl:1"].read()
