"""The store: built once, whole or not at all, also when builders race or are killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from darkroom.artifacts import Manifest, Shards
from darkroom.errors import DiskFull
from darkroom.store import Store, digest_of, file_digest, marker, need_room

DIGEST = digest_of({"a": 1})


def write(text: str):
    def build(work: Path) -> None:
        (work / "deep").mkdir(exist_ok=True)
        (work / "deep" / "file.txt").write_text(text)

    return build


def test_builds_once_and_answers_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.get_or_build(Manifest, DIGEST, write("one"), inputs={"from": "here"}, fields={"size": 3})
    again = store.get_or_build(Manifest, DIGEST, write("two"), inputs={})
    assert (made.reused, again.reused, again) == (False, True, made)
    assert (again.path / "deep" / "file.txt").read_text() == "one"
    content = marker(made)
    assert (content["inputs"], content["fields"], content["kind"]) == ({"from": "here"}, {"size": 3}, "manifest")
    assert content["files"]["deep/file.txt"] == {"bytes": 3, "sha256": file_digest(made.path / "deep" / "file.txt")}


def test_fresh_builds_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_build(Manifest, DIGEST, write("one"), inputs={})
    made = store.get_or_build(Manifest, DIGEST, write("two"), inputs={}, fresh=True)
    assert not made.reused
    assert (made.path / "deep" / "file.txt").read_text() == "two"
    assert not list((tmp_path / ".work").iterdir())


@pytest.mark.parametrize("damage", ["cut", "gone", "marker"])
def test_a_damaged_artifact_counts_as_missing(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    made = store.get_or_build(Manifest, DIGEST, write("one"), inputs={})
    target = made.path / "deep" / "file.txt"
    if damage == "cut":
        target.write_text("o")
    elif damage == "gone":
        target.unlink()
    else:
        (made.path / "artifact.json").write_text('{"kind"')
    assert store.find(Manifest, DIGEST) is None
    assert (
        store.get_or_build(Manifest, DIGEST, write("one"), inputs={}).path / "deep" / "file.txt"
    ).read_text() == "one"


def test_a_failed_build_leaves_nothing_unless_it_can_resume(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(work: Path) -> None:
        (work / "half").write_text("half")
        raise RuntimeError("no")

    for resumable in (False, True):
        with pytest.raises(RuntimeError):
            store.get_or_build(Manifest, DIGEST, fail, inputs={}, resumable=resumable)
        assert store.find(Manifest, DIGEST) is None
        assert (store.workplace(Manifest, DIGEST) / "half").exists() is resumable


def _race(root: Path, log: Path) -> None:
    def build(work: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.2)
        (work / "file").write_text("x")

    Store(root).get_or_build(Shards, DIGEST, build, inputs={})


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_race, args=(tmp_path / "store", tmp_path / "log")) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_killed_builder_releases_the_lock_and_leaves_no_artifact(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from darkroom.store import Store\nfrom darkroom.artifacts import Manifest\n"
        "def build(work):\n (work / 'half').write_text('x'); print('building', flush=True); time.sleep(60)\n"
        f"Store(Path(sys.argv[1])).get_or_build(Manifest, {DIGEST!r}, build, inputs={{}})"
    )
    builder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "building\n"
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    made = Store(tmp_path).get_or_build(Manifest, DIGEST, write("one"), inputs={})
    assert not made.reused
    assert sorted(json.loads((made.path / "artifact.json").read_text())["files"]) == ["deep/file.txt"]


def test_too_little_room_is_said_before_the_work(tmp_path: Path) -> None:
    need_room(tmp_path, 10, "this", free=lambda path: 10)
    with pytest.raises(DiskFull, match="training needs about 2 MB") as caught:
        need_room(tmp_path, 2_000_000, "training", free=lambda path: 1_000_000)
    assert caught.value.exit_status == 5


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
