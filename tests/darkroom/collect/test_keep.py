"""Keeping pictures: the same bytes by every way, whole or not at all."""

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest

from darkroom.collect.keep import BLOCK, Keeper, TooLarge, picture_path
from darkroom.collect.tree import fingerprint
from darkroom.errors import DiskFull, Stopped
from darkroom.store import Store


def copying(target: int, source: int) -> None:
    """What a file system that shares blocks does, as far as one can see."""
    os.sendfile(target, source, 0, os.fstat(source).st_size)


def failing(number: int):
    def clone(target: int, source: int) -> None:
        raise OSError(number, os.strerror(number))

    return clone


def files(store: Store) -> list[Path]:
    return [path for path in (store.root / "pictures").rglob("*") if path.is_file()]


@pytest.mark.parametrize("clone", [None, copying, failing(errno.EOPNOTSUPP)])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_every_way_keeps_the_same_bytes(tmp_path: Path, clone, size: int) -> None:
    content = random.Random(size).randbytes(size)
    source = tmp_path / "source"
    source.write_bytes(content)
    os.utime(source, ns=(0, 0))
    store = Store(tmp_path / "store")
    keeper = Keeper(store, 3 * BLOCK, clone)
    for _ in range(2):
        with source.open("rb") as file:
            picture_id, found, _ = keeper.keep_file(file, None)
        assert (picture_id, found) == (hashlib.sha256(content).hexdigest(), size)
        assert keeper.keep(content) == picture_id
        assert files(store) == [picture_path(store, picture_id)]
        assert picture_path(store, picture_id).read_bytes() == content


@pytest.mark.parametrize("clone", [None, copying])
@pytest.mark.parametrize("limit", [0, 10, BLOCK + 5])
def test_too_much_leaves_nothing(tmp_path: Path, clone, limit: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(limit + 1))
    store = Store(tmp_path / "store")
    keeper = Keeper(store, limit, clone)
    with source.open("rb") as file, pytest.raises(TooLarge):
        keeper.keep_file(file, None)
    with pytest.raises(TooLarge):
        keeper.keep(bytes(limit + 1))
    assert files(store) == []


def test_the_print_holds_only_for_a_file_at_rest(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    facts = source.stat()

    def settled(age_ns: int, mark: str) -> bool:
        keeper = Keeper(Store(tmp_path / "store"), 100, clock=lambda: facts.st_ctime_ns + age_ns)
        with source.open("rb") as file:
            return keeper.keep_file(file, mark)[2]

    assert settled(10**9, fingerprint(facts))
    assert not settled(0, fingerprint(facts)), "it may change once more within one tick of the clock"
    assert not settled(10**9, "the print of before")


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    store = Store(tmp_path / "store")
    with source.open("rb") as file, pytest.raises(DiskFull):
        Keeper(store, 100, failing(errno.ENOSPC)).keep_file(file, None)
    assert files(store) == []


def test_a_store_that_cannot_be_written_is_not_the_pictures_fault(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    keeper = Keeper(store, 100)
    (store.root / "pictures" / ".incoming").rmdir()
    with pytest.raises(Stopped, match="cannot be written"):
        keeper.keep(b"content")


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Keeper(store, 100)
    old, new = (store.root / "pictures" / ".incoming" / name for name in ("1-0", "2-0"))
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    new.write_bytes(b"half")
    Keeper(store, 100)
    assert files(store) == [new]
