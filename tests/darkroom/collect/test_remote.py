"""Folders and tables behind fsspec: S3 (a server on loopback), a zip, memory; the same rows as the local folder."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from darkroom.collect import folder, table, webdataset
from darkroom.collect.manifest import Source, open_source, read_rows
from darkroom.collect.remote import Remote, last_part, local_path
from darkroom.collect.source import Item
from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.recipe import Collect
from darkroom.store import Store

FILES = {
    "a.png": b"bytes of a",
    "sub/b.jpg": b"bytes of b",
    "sub/b.txt": b"caption of b\n",
    "c.heic": b"bytes of c",
    ".hidden.png": b"no",
    "__MACOSX/a.png": b"no",
    "notes.md": b"no",
    "sub/metadata.jsonl": b"\n".join(
        b'{"file_name": "%s", "text": "a line"}' % name for name in (b"b.jpg", b"../../x.png", b"gone.png")
    ),
    "list.csv": b"file,text\nsub/b.jpg,from the table\n../list.csv,out\ngone.png,gone\n",
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket on a server of this process."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    wanted = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    try:
        yield "s3://bucket"
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


@pytest.fixture(params=["s3", "zip", "zip in s3", "memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder with :data:`FILES`."""
    kind = request.param
    address = f"memory://{tmp_path.name}/photos" if kind == "memory" else f"file://{tmp_path}/photos"
    if "s3" in kind:
        address = f"{request.getfixturevalue('bucket')}/{tmp_path.name}/photos"
    if "zip" not in kind:
        fill(address)
        return address
    address = address.replace("file://", "") + ".zip"
    with fsspec.open(address, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(f"photos/{name}", content)
    return f"zip://photos::{address}"


def fill(address: str, files: dict[str, bytes] = FILES) -> None:
    system, root = fsspec.core.url_to_fs(address)
    for name, content in files.items():
        system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        system.pipe_file(f"{root}/{name}", content)


def rows_of(source: Source, max_bytes: int, store: Store) -> list[dict[str, object]]:
    return read_rows(source.name, source.items, max_bytes, store, place=source.place)


def told(items: list[Item]) -> list[tuple[object, ...]]:
    """What rows say, with their bytes or why those cannot be had."""
    return [(item.path, item.caption, item.label, item.sidecar, item.licence, had(item)) for item in items]


def had(item: Item) -> object:
    try:
        return item.read()
    except OSError as error:
        return error.strerror or str(error)


def test_a_folder_is_the_same_wherever_it_lies(place: str, tmp_path: Path) -> None:
    fill(f"file://{tmp_path}/same")
    local = list(folder.items(Collect(source="folder", path=str(tmp_path / "same"))))
    away = list(folder.items(Collect(source="folder", path=place)))
    assert told(away) == told(local)
    assert {item.path for item in away} == {"a.png", "c.heic", "sub/b.jpg", "../../x.png", "sub/gone.png"}
    assert {item.path: item.sidecar for item in away}["sub/b.jpg"] == "caption of b"


def test_a_table_is_the_same_wherever_it_lies(place: str, tmp_path: Path) -> None:
    fill(f"file://{tmp_path}/same")
    store = Store(tmp_path / "store")
    head, colons, rest = place.partition("::")
    local = list(table.items(Collect(source="table", path=str(tmp_path / "same" / "list.csv")), store))
    away = list(table.items(Collect(source="table", path=f"{head}/list.csv{colons}{rest}"), store))
    assert told(away) == told(local)
    assert had(away[0]) == b"bytes of b"


@pytest.mark.parametrize("place", ["s3", "zip", "zip in s3", "file"], indirect=True)
def test_what_did_not_change_is_not_read_again(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.collect.keep.SETTLED_NS", -1)  # files that were written just now count as settled
    store = Store(tmp_path / "store")
    plan = Collect(source="folder", path=place)
    first = rows_of(open_source(plan, store), 10**6, store)
    items = list(folder.items(plan))
    assert all(item.fingerprint for item in items if isinstance(had(item), bytes))
    again = list(folder.items(plan))
    assert [item.fingerprint for item in again] == [item.fingerprint for item in items]

    def refuse() -> bytes:
        raise AssertionError("read again")

    source = open_source(plan, store)
    unread = (item if item.fingerprint is None else replace(item, read=refuse, open=refuse) for item in source.items)
    assert rows_of(replace(source, items=unread), 10**6, store) == first


def test_a_changed_object_has_another_fingerprint(bucket: str, tmp_path: Path) -> None:
    address = f"{bucket}/{tmp_path.name}"
    fill(address, {"a.png": b"one", "b.png": b"b"})
    plan = Collect(source="folder", path=address)
    before = {item.path: item.fingerprint for item in folder.items(plan)}
    fill(address, {"a.png": b"two"})
    after = {item.path: item.fingerprint for item in folder.items(plan)}
    assert (before["a.png"] != after["a.png"], before["b.png"]) == (True, after["b.png"])


def test_caption_files_behind_a_network_are_read_again_only_when_they_changed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, store, read = f"{bucket}/{tmp_path.name}", Store(tmp_path / "store"), list[str]()
    texts = Remote.texts

    def counted(self: Remote, paths: list[str]) -> dict[str, bytes | OSError]:
        read.extend(paths)
        return texts(self, paths)

    monkeypatch.setattr(Remote, "texts", counted)
    plan = Collect(source="folder", path=address)
    fill(address, {f"{name}.png": b"x" for name in "abc"} | {"a.txt": "naïve ☕".encode(), "b.txt": b"b\xff\x00"})
    first = [item.caption for item in folder.items(plan, store)]
    assert first[0] == "naïve ☕"
    assert read == ["a.txt", "b.txt"]
    assert [item.caption for item in folder.items(plan, store)] == first
    assert read == ["a.txt", "b.txt"]
    fill(address, {"a.txt": b"changed", "c.txt": b"new"})
    assert [item.caption for item in folder.items(plan, store)] == ["changed", first[1], "new"]
    assert read == ["a.txt", "b.txt", "a.txt", "c.txt"]


def test_memory_promises_nothing(tmp_path: Path) -> None:
    fill(f"memory://{tmp_path.name}", {"a.png": b"a"})
    assert [item.fingerprint for item in folder.items(Collect(source="folder", path=f"memory://{tmp_path.name}"))] == [
        None
    ]


def test_a_service_that_went_away_is_not_a_fault_of_the_pictures(tmp_path: Path, bucket: str) -> None:
    address = f"{bucket}/{tmp_path.name}"
    fill(address, {"a.png": b"one"})
    (item,) = folder.items(Collect(source="folder", path=address))
    right = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"  # nobody listens there
    try:
        with pytest.raises(ServiceUnavailable, match="cannot be listed"):
            list(folder.items(Collect(source="folder", path=address)))
    finally:
        os.environ["AWS_ENDPOINT_URL"] = right
    assert item.read() == b"one"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("zip://::/nowhere.zip", "no such file"),
        ("ftpx://photos", "not an address that fsspec knows"),
        ("s3://no-such-bucket-anywhere/photos", "no-such-bucket|has no pictures"),
    ],
)
def test_wrong_addresses_are_mistakes_in_the_recipe(path: str, named: str, bucket: str, tmp_path: Path) -> None:
    from darkroom.collect.manifest import collect

    with pytest.raises(RecipeError, match=named):
        collect(Collect(source="folder", path=path), Store(tmp_path / "store"))


def test_a_zip_that_is_named_as_a_folder_is_looked_into(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat/a.png", b"a")
        archive.writestr("../evil.png", b"evil")
        archive.writestr("twice.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice.png", b"2")
    found = {item.path: item for item in folder.items(Collect(source="folder", path=str(tmp_path / "photos.zip")))}
    assert found["cat/a.png"].read() == b"a"
    assert found["cat/a.png"].label == "cat"
    assert "several files" in str(had(found["twice.png"]))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["photos.zip"]


def test_tars_are_read_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    import io
    import tarfile

    for number in range(2):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in ((f"{number}.jpg", b"picture"), (f"{number}.txt", b"caption")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        fill(f"{bucket}/{tmp_path.name}", {f"{number}.tar": out.getvalue()})
    for pattern in ("{0..1}.tar", "*.tar"):
        items = webdataset.items(Collect(source="webdataset", path=f"{bucket}/{tmp_path.name}/{pattern}"))
        assert [(item.path, item.caption, item.read()) for item in items] == [
            ("0.tar/0.jpg", "caption", b"picture"),
            ("1.tar/1.jpg", "caption", b"picture"),
        ]


def test_paths_and_addresses() -> None:
    assert local_path("photos") == Path("photos")
    assert local_path("file:///a/photos") == Path("/a/photos")
    assert local_path("s3://bucket") is None
    assert local_path("zip::/a.zip") is None
    assert [last_part(path) for path in ("/a/b", "s3://b/c/", "zip://::/a/b.zip", "zip://in::/b.zip", "s3://b")] == [
        "b", "c", "b.zip", "in", "b",
    ]  # fmt: skip
