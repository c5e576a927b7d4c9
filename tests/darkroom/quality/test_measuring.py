"""The pass over many pictures: each is measured once, and no picture takes another down."""

import hashlib
import sys
from pathlib import Path

import pytest
from PIL import Image

from darkroom.collect.manifest import picture_path
from darkroom.errors import DarkroomError
from darkroom.quality.measuring import COLUMNS, measure_all
from darkroom.quality.picture import Rules, working_path
from darkroom.quality.pool import Pool, Task
from darkroom.store import Store

from .test_picture import encoded, picture

RULES = Rules(min_side=8, max_pixels=10_000, working_side=32)
# Measures as the real process does, but for two contents that do to it what decoders have been seen to do.
DANGEROUS = """
import os, time
from darkroom.quality import measurer
def learn(tasks, rules):
    for path, copy in tasks:
        content = open(path, "rb").read()
        if content == b"crash":
            os.abort()
        if content == b"hang":
            time.sleep(60)
    return [{"reason": "undecodable: of no use", "flags": []}] * len(tasks)
measurer.main(learn)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def keep(store: Store, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    path = picture_path(store, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


def test_every_row_gets_its_values_in_order(store: Store) -> None:
    good, other, bad = (keep(store, c) for c in (encoded(picture()), encoded(picture(seed=1), "JPEG"), b"rubbish"))
    ids = [other, None, bad, good, other]
    columns = measure_all(ids, RULES, store, workers=2)
    assert tuple(columns) == COLUMNS
    assert all(len(column) == len(ids) for column in columns.values())
    assert columns["format"] == ["JPEG", None, None, "PNG", "JPEG"]
    assert [bool(reason) for reason in columns["reason"]] == [False, False, True, False, False]
    for key, one in zip(columns["working"], ids, strict=True):
        assert (key is not None) == (one in (good, other))
        assert key is None or working_path(store.root, key).is_file()


def test_processes_find_what_this_process_finds(tmp_path: Path) -> None:
    contents = [encoded(picture(seed=seed), "JPEG") for seed in range(6)] + [b"rubbish", b""]
    found = []
    for workers in (0, 1, 2):
        store = Store(tmp_path / str(workers))
        found.append(measure_all([keep(store, content) for content in contents], RULES, store, workers))
    assert found[0] == found[1] == found[2]


def test_nothing_is_measured_twice(store: Store) -> None:
    ids = [keep(store, encoded(picture(seed=seed))) for seed in range(3)] + [keep(store, b"rubbish")]
    first = measure_all(ids, RULES, store, workers=0)
    for one in ids:
        picture_path(store, one).unlink()
    assert measure_all(ids, RULES, store, workers=0) == first


def test_a_lost_working_copy_is_made_again(store: Store) -> None:
    ids = [keep(store, encoded(picture()))]
    (key,) = measure_all(ids, RULES, store, workers=0)["working"]
    working_path(store.root, key).unlink()
    measure_all(ids, RULES, store, workers=0)
    assert working_path(store.root, key).is_file()


def test_changed_rules_judge_what_is_known(store: Store) -> None:
    ids = [keep(store, encoded(picture((16, 12)))), keep(store, encoded(picture((32, 24))))]

    def reasons(rules: Rules) -> list[str | None]:
        return [reason and reason.split(":")[0] for reason in measure_all(ids, rules, store, workers=0)["reason"]]

    assert reasons(RULES) == [None, None]
    assert reasons(Rules(16, 10_000, 32)) == ["too small", None]
    assert reasons(Rules(8, 500, 32)) == [None, "too many pixels"]
    assert reasons(Rules(8, 10, 32)) == ["too many pixels", "too many pixels"]
    assert reasons(RULES) == [None, None]


def test_a_picture_refused_by_one_rule_is_measured_under_another(store: Store) -> None:
    ids = [keep(store, encoded(picture((32, 24))))]
    for refusing in (Rules(30, 10_000, 32), Rules(8, 100, 32)):
        assert measure_all(ids, refusing, store, workers=0)["working"] == [None]
    (key,) = measure_all(ids, RULES, store, workers=0)["working"]
    assert working_path(store.root, key).is_file()


def test_progress_ends_with_all(store: Store) -> None:
    ids = [keep(store, encoded(picture(seed=seed))) for seed in range(3)]
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        measure_all(ids, RULES, store, workers=0, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (3, 3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_was_learnt_is_kept_when_it_is_interrupted(store: Store) -> None:
    ids = [keep(store, encoded(picture(seed=seed))) for seed in range(3)]

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_all(ids, RULES, store, workers=0, progress=stop)
    for one in sorted(ids)[:2]:
        picture_path(store, one).unlink()
    assert measure_all(ids, RULES, store, workers=0)["format"] == ["PNG"] * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_the_store_lost_is_an_error_that_names_it(store: Store, workers: int) -> None:
    lost = "ab" * 32
    with pytest.raises(FileNotFoundError, match=lost):
        measure_all([keep(store, encoded(picture())), lost], RULES, store, workers)


def test_a_crash_costs_one_picture_and_is_not_remembered(store: Store) -> None:
    contents = [str(number).encode() for number in range(20)]
    contents.insert(7, b"crash")
    ids = [keep(store, content) for content in contents]
    columns = measure_all(ids, RULES, store, workers=2, command=(sys.executable, "-c", DANGEROUS))
    reasons = columns["reason"]
    assert reasons[7] == "undecodable: the process that decoded it ended by SIGABRT"
    assert {reason for at, reason in enumerate(reasons) if at != 7} == {"undecodable: of no use"}
    picture_path(store, ids[7]).write_bytes(encoded(picture()))  # as if it had been for want of memory
    again = measure_all(ids, RULES, store, workers=0)["reason"]
    assert again == [None if at == 7 else reason for at, reason in enumerate(reasons)]


def test_a_picture_that_is_never_done_is_given_up(tmp_path: Path) -> None:
    tasks: list[Task] = []
    for name in ("a", "hang", "b"):
        (tmp_path / name).write_bytes(name.encode())
        tasks.append((name, str(tmp_path / name), str(tmp_path / "copy")))
    pool = Pool(tasks, RULES, 1, (sys.executable, "-c", DANGEROUS), patience_seconds=0.4)
    try:
        found = dict(pool.next() for _ in tasks)
    finally:
        pool.close()
    assert found["hang"] == {"lost": "the process that decoded it gave no answer within 0.4 seconds"}
    assert found["a"] == found["b"] == {"reason": "undecodable: of no use", "flags": []}


def test_processes_that_cannot_start_blame_no_picture(store: Store) -> None:
    with pytest.raises(DarkroomError, match="could not start: it ended with exit status 3"):
        measure_all([keep(store, b"a")], RULES, store, 1, command=(sys.executable, "-c", "raise SystemExit(3)"))


def test_thousands_that_are_known_take_no_time(store: Store) -> None:
    from darkroom.cache import Cache

    (one,) = [keep(store, encoded(Image.new("RGB", (4, 4))))]
    measure_all([one], RULES, store, workers=0)
    ids = [f"{number:064x}" for number in range(3000)]
    with Cache(store.root / "cache.db") as cache:
        (values,) = cache.get("measures", [RULES.key(one)]).values()
        cache.put("measures", {RULES.key(other): values for other in ids})
    assert len(measure_all(ids, RULES, store, workers=2)["reason"]) == 3000
