"""Versions: a batch is accepted once, a repeated run changes nothing, and a kill between any two steps is no matter."""

import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from darkroom.artifacts import CheckedManifest, QualityReport
from darkroom.errors import DarkroomError, RecipeError
from darkroom.recipe import load
from darkroom.store import Store
from darkroom.versions import log


def test_each_accepted_batch_is_a_version_with_its_counts(press: Any) -> None:
    one = press.version(press.files(1, 2, 3))
    two = press.version(
        {**press.files(2, 4, 5), "03.png": press.shot(3, caption="another"), "bad.png": press.shot(9, faults=("x",))}
    )
    assert (one.number, one.previous, one.new, one.changed, one.gone) == (1, None, 3, 0, 0)
    assert (two.number, two.previous, two.new, two.changed, two.gone) == (2, one.checked, 3, 1, 1)
    assert (two.rows, two.accepted, two.quarantined) == (5, 4, 1)
    assert log.versions("photos", press.store) == [one, two]
    assert log.datasets(press.store) == ["photos"]


def test_a_run_that_finds_nothing_new_changes_nothing(press: Any) -> None:
    batches = [press.files(1, 2), press.files(1, 2, 3), press.files(3)]
    made = [press.version(batch) for batch in batches]
    done = press.checks
    assert press.version(batches[-1]) == made[-1]
    assert press.version(batches[0]) == made[0], "going back gives the version that it was"
    assert press.version(batches[1]) == made[1]
    assert press.checks == done
    assert len(log.versions("photos", press.store)) == 3


def test_two_recipes_that_share_a_data_set_do_not_push_each_other_forward(press: Any) -> None:
    batch = press.files(1, 2)
    strict = dataclasses.replace(press, rules={"min_side": 64})
    first, second = press.version(batch), strict.version(batch)
    assert second.previous == first.checked
    for _ in range(2):
        assert press.version(batch) == first
        assert strict.version(batch) == second


def test_what_comes_next_builds_upon_the_newest_also_after_going_back(press: Any) -> None:
    press.version(press.files(1))
    two = press.version(press.files(1, 2))
    press.version(press.files(1))
    three = press.version(press.files(3))
    assert three.previous == two.checked
    history = log.history_of("photos", three.checked, press.store)
    assert history is not None
    assert set(history["id"]) == {press.shot(number).id for number in (1, 2, 3)}


def _version_killed_at(press: Any, batch: Any, step: int) -> None:
    """Make a version, killed before (even steps) or after (odd ones) the file or folder number ``step // 2`` moved."""
    real, moves = os.replace, iter(range(step // 2 + 1))

    def replace(*arguments: Any) -> None:
        last = next(moves, None) == step // 2
        if last and step % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    press.version(batch)


@pytest.mark.parametrize("step", range(14))
def test_a_kill_between_any_two_steps_and_a_repeat_give_the_same(press: Any, step: int, tmp_path: Path) -> None:
    press.version(press.files(1, 2))
    calm = dataclasses.replace(press, store=Store(tmp_path / "calm"))
    shutil.copytree(press.store.root, calm.store.root)
    wanted = calm.version(press.files(2, 3))
    child = multiprocessing.get_context("fork").Process(
        target=_version_killed_at, args=(press, press.files(2, 3), step)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    again = press.version(press.files(2, 3))
    assert dataclasses.replace(again, time="") == dataclasses.replace(wanted, time="")
    assert len(log.versions("photos", press.store)) == 2
    pd.testing.assert_frame_equal(
        log.history_of("photos", again.checked, press.store),
        log.history_of("photos", wanted.checked, calm.store),
    )


def _run(press: Any, batches: list[Any]) -> None:
    for batch in batches:
        press.version(batch)


def test_two_processes_forget_nothing_of_each_other(press: Any) -> None:
    dice = random.Random(0)
    shares = [[press.files(*dice.sample(range(20), 6)) for _ in range(3)] for _ in range(2)]
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_run, args=(press, share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    known = log.versions("photos", press.store)
    assert [one.number for one in known] == list(range(1, len(known) + 1))
    assert [one.previous for one in known] == [None, *(one.checked for one in known[:-1])]
    sides: dict[str, str] = {}
    for one in known:
        for path, side in pd.read_parquet(log.checked_of(one, press.store).path / "checked.parquet")[
            ["id", "split"]
        ].values:
            assert sides.setdefault(path, side) == side
    history = log.history_of("photos", known[-1].checked, press.store)
    assert history is not None
    assert set(history["id"]) == set(sides)


def test_a_batch_that_another_run_overtook_is_checked_again(press: Any) -> None:
    press.version(press.files(1))
    manifest = press.collect(press.files(2))
    key, _, _ = press.key(manifest)
    stale = press.check(manifest, log.base_of("photos", key, press.store))
    other = press.version(press.files(3))
    with pytest.raises(log.Overtaken, match=r"version 2 .* was accepted while"):
        log.record("photos", stale, key, press.store)
    assert press.version(press.files(2)).previous == other.checked


def test_what_the_gate_refused_is_no_version_but_is_the_last_report(press: Any) -> None:
    kept = press.version(press.files(1))
    report = press.check(press.collect(press.files(2)), kept.checked, passed=False)
    with pytest.raises(DarkroomError, match="did not pass"):
        log.record("photos", report, "key", press.store)
    assert log.versions("photos", press.store) == [kept]
    assert log.latest_report("photos", press.store).digest == report.digest


def test_a_version_is_found_by_number_name_digest_and_latest(press: Any) -> None:
    one, two = press.version(press.files(1)), press.version(press.files(2))
    named = log.name_version("photos", "1", "spring", press.store)
    assert named == dataclasses.replace(one, name="spring")
    for text, wanted in (("1", named), ("spring", named), (one.checked[:8], named), ("2", two), ("latest", two)):
        assert log.resolve("photos", text, press.store) == wanted
    with pytest.raises(RecipeError, match=r"'autumn' is no version .* 1 \(spring\), 2"):
        log.resolve("photos", "autumn", press.store)
    with pytest.raises(RecipeError, match="--move"):
        log.name_version("photos", "2", "spring", press.store)
    assert log.name_version("photos", "2", "spring", press.store, move=True).name == "spring"
    assert [each.name for each in log.versions("photos", press.store)] == [None, "spring"]


@pytest.mark.parametrize("name", ["latest", "7", "deadbeef", "Spring", "", "a/b", "../x", "-x", "a b", "a\n"])
def test_a_name_that_could_be_misread_is_refused(press: Any, name: str) -> None:
    press.version(press.files(1))
    with pytest.raises(RecipeError, match="cannot name a version"):
        log.name_version("photos", "1", name, press.store)


def test_going_back_gives_the_manifest_and_the_accepted_rows(press: Any) -> None:
    manifest = press.collect(press.files(1))
    one = press.version(press.files(1))
    press.version(press.files(2))
    assert log.manifest_of(one, press.store) == manifest
    assert isinstance(log.checked_of(one, press.store), CheckedManifest)
    shutil.rmtree(press.store.place(QualityReport, one.checked))
    with pytest.raises(DarkroomError, match="version 1 of 'photos' is not whole"):
        log.checked_of(one, press.store)


def test_the_history_outlives_the_artifact_and_its_loss_is_said(press: Any) -> None:
    one = press.version(press.files(1))
    before = log.history_of("photos", one.checked, press.store)
    shutil.rmtree(press.store.place(QualityReport, one.checked))
    pd.testing.assert_frame_equal(log.history_of("photos", one.checked, press.store), before)
    shutil.rmtree(log.folder("photos", press.store) / "history")
    with pytest.raises(DarkroomError, match="the history of the data set 'photos' is gone"):
        log.history_of("photos", one.checked, press.store)


def test_the_data_set_is_the_recipes_own_or_the_one_it_names() -> None:
    plan = load("digits")
    assert log.dataset_of(plan) == "digits"
    shared = plan.model_copy(update={"collect": plan.collect.model_copy(update={"dataset": "numbers"})})
    assert log.dataset_of(shared) == "numbers"
