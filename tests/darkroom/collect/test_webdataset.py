"""WebDataset tars: samples by their names, tars that are cut, members that are hostile."""

import io
import random
import tarfile
from pathlib import Path

import pytest

from darkroom.collect.source import Item
from darkroom.collect.webdataset import MAX_TARS, expand, find_tars, items
from darkroom.errors import RecipeError
from darkroom.recipe import Collect, Columns

Members = list[tuple[str, bytes]]
SAMPLES: Members = [
    ("000.jpg", b"picture 0" * 100),
    ("000.txt", b"caption 0\n"),
    ("000.cls", b"3"),
    ("001.png", b"picture 1"),
    ("001.json", b'{"caption": "caption 1", "label": "dog", "license": "CC0", "url": "https://a.example/1"}'),
    ("sub/000.webp", b"picture 2"),
    ("sub/000.json", b'{"caption": "second"}'),
    ("sub/000.txt", b"first"),
]


def tar(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path: Path | str, **fields: object) -> list[Item]:
    return list(items(Collect(source="webdataset", path=str(path), **fields)))


def had(item: Item) -> bytes | str:
    try:
        return item.read()
    except OSError as error:
        return error.strerror or str(error)


@pytest.mark.parametrize(
    ("mode", "name"), [("w", "a.tar"), ("w:gz", "a.tar.gz"), ("w:xz", "a.tar.xz"), ("w:bz2", "a.tbz")]
)
def test_samples_are_rows(tmp_path: Path, mode: str, name: str) -> None:
    found = read(tar(tmp_path / name, SAMPLES, mode), licence="by default")
    assert [item.path for item in found] == [f"{name}/{path}" for path in ("000.jpg", "001.png", "sub/000.webp")]
    assert [item.read() for item in found] == [SAMPLES[index][1] for index in (0, 3, 5)]
    assert [item.caption for item in found] == ["caption 0", "caption 1", "first"]
    assert [item.sidecar for item in found] == [None, None, "second"]
    assert [item.label for item in found] == ["3", "dog", None]
    assert [item.licence for item in found] == ["by default", "CC0", "by default"]
    assert [item.origin for item in found] == [None, "https://a.example/1", None]
    chosen = read(tmp_path / name, columns=Columns(caption="caption"))
    assert [(item.caption, item.sidecar) for item in chosen][2] == ("second", "first")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_tar_gives_what_came_before_and_says_so(tmp_path: Path, mode: str) -> None:
    whole = tar(tmp_path / "whole.tar", SAMPLES, mode).read_bytes()
    content = {f"cut.tar/{name}": content for name, content in SAMPLES}
    end = len(whole) if mode == "w:gz" else 512 * sum(1 + -(-len(content) // 512) for _, content in SAMPLES)
    chance = random.Random(0)
    for size in sorted({0, 1, 511, 512, *range(512, end, 512), *(chance.randrange(end) for _ in range(20))}):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        found = read(tmp_path / "cut.tar")
        if found[-1].path != "cut.tar":  # the end of a compressed one is padding
            assert (mode, [had(item) for item in found]) == ("w:gz", [SAMPLES[index][1] for index in (0, 3, 5)])
            continue
        *before, last = found
        assert "damaged" in str(had(last))
        for item in before:
            assert had(item) == content[item.path] or "damaged" in str(had(item))
            if had(item) == content[item.path]:
                assert item.caption is not None, "no picture passes whose caption may have been lost"


def test_a_whole_tar_after_a_cut_one_is_read(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", SAMPLES)
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:700])
    (tmp_path / "1.tar").write_bytes(b"no tar at all")
    tar(tmp_path / "2.tar", SAMPLES)
    found = read(f"{tmp_path}/{{0..2}}.tar")
    assert [item.path for item in found if "/" not in item.path] == ["0.tar", "1.tar"]
    assert sum(isinstance(had(item), bytes) for item in found) == 3


def test_random_bytes_never_end_the_run(tmp_path: Path) -> None:
    chance = random.Random(0)
    whole = tar(tmp_path / "whole.tar", SAMPLES).read_bytes()
    for _ in range(100):
        bad = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            place = chance.randrange(len(SAMPLES) * 1024)
            bad[place] = chance.randrange(256)
        (tmp_path / "bad.tar").write_bytes(bytes(bad))
        for item in read(tmp_path / "bad.tar"):
            assert item.path.startswith("bad.tar")
            assert isinstance(had(item), bytes | str)


def test_hostile_members_are_rows_and_nothing_is_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name in ("../../evil.png", "/etc/evil.png", "ok.png"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
    found = {item.path: had(item) for item in read(folder / "a.tar")}
    assert {path for path, content in found.items() if content == b"evil"} == {
        "a.tar/../../evil.png",
        "a.tar//etc/evil.png",
        "a.tar/ok.png",
    }
    assert all("not a plain file" in str(found[f"a.tar/{name}.png"]) for name in ("link", "hard", "pipe"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "secret.png", "tars"]


def test_odd_samples_are_rows(tmp_path: Path) -> None:
    members: Members = [
        ("alone.txt", b"no picture"),
        ("broken.jpg", b"picture"),
        ("broken.json", b"{"),
        ("masked.jpg", b"picture"),
        ("masked.mask.png", b"mask"),
        ("my.photo.jpg", b"dotted"),
        ("large.jpg", bytes(1001)),
        (".hidden.jpg", b"no"),
        ("__MACOSX/large.jpg", b"no"),
        ("twice.jpg", b"1"),
        ("other.jpg", b"-"),
        ("twice.jpg", b"2"),
    ]
    found = [
        (item.path.removeprefix("a.tar/"), had(item)) for item in read(tar(tmp_path / "a.tar", members), max_bytes=1000)
    ]
    told = dict(found)
    assert "no picture" in str(told["alone"])
    assert "not a JSON object" in str(told["broken.jpg"])
    assert (told["masked.jpg"], told["my.photo.jpg"]) == (b"picture", b"dotted")
    assert "masked.mask.png" not in told
    assert "max_bytes" in str(told["large.jpg"])
    assert [content for path, content in found if path == "twice.jpg"] == [b"1", b"2"]
    assert len(found) == 8


def test_prints_hold_until_the_tar_changes(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", SAMPLES)
    before = read(path)
    assert [item.fingerprint for item in read(path)] == [item.fingerprint for item in before]
    assert len({item.fingerprint for item in before}) == 3
    tar(path, [(name, content.upper()) for name, content in SAMPLES])
    assert not {item.fingerprint for item in read(path)} & {item.fingerprint for item in before}
    assert had(before[0]) == "the tar changed while it was read"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{000..012}.tar", [f"{number:03d}.tar" for number in range(13)]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{}{one}", ["{}{one}"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern: str, names: list[str]) -> None:
    assert list(expand(pattern)) == names


def test_patterns_find_tars(tmp_path: Path) -> None:
    for name in ("b/1.tar", "b/0.tar", "a/0.tar", "odd[1].tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tar(tmp_path / name, SAMPLES)

    def names(pattern: str) -> list[str]:
        return [one.name for one in find_tars(f"{tmp_path}/{pattern}")]

    assert names("b/*.tar") == ["0.tar", "1.tar"]
    assert names("**/*.tar") == ["a/0.tar", "b/0.tar", "b/1.tar", "odd[1].tar"]
    assert names("{b,a}/0.tar") == ["b/0.tar", "a/0.tar"]
    assert names("odd[1].tar") == ["odd[1].tar"]
    for wrong in ("none.tar", "*.none", f"{{0..{MAX_TARS}}}.tar", "pipe:touch x"):
        with pytest.raises(RecipeError, match=r"collect\.path"):
            read(f"{tmp_path}/{wrong}")


def test_a_tar_that_is_named_and_not_there_is_a_row(tmp_path: Path) -> None:
    tar(tmp_path / "1.tar", SAMPLES)
    found = read(f"{tmp_path}/{{0..2}}.tar")
    assert {item.path: had(item) for item in found if "/" not in item.path} == dict.fromkeys(
        ["0.tar", "2.tar"], "there is no such tar"
    )
    assert len(found) == 5
