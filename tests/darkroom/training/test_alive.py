"""Machines that fall silent are noticed; those that leave are not missed."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from darkroom.training import alive
from darkroom.training.alive import FOLDER, Watch

SILENCE = 0.3


class Machine:
    """A watch that notes that it would end the training."""

    def __init__(self, work: Path, number: int, call: str = "a") -> None:
        self.ended = threading.Event()
        self.watch = Watch(work, call, number, 3, SILENCE, self.ended.set)

    def fall_silent(self) -> None:
        self.watch._over.set()
        self.watch._thread.join()


@pytest.fixture
def entered() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_one_that_falls_silent_ends_the_others(tmp_path: Path, entered: ExitStack) -> None:
    first, second, third = machines = [Machine(tmp_path, number) for number in range(3)]
    for machine in machines:
        entered.enter_context(machine.watch)
    time.sleep(3 * SILENCE)
    assert not any(machine.ended.is_set() for machine in machines)
    second.fall_silent()
    assert first.ended.wait(30 * SILENCE)
    assert third.ended.wait(30 * SILENCE)
    assert first.watch.lost == third.watch.lost == 1


def test_one_that_leaves_is_not_missed(tmp_path: Path, entered: ExitStack) -> None:
    first, second = Machine(tmp_path, 0), Machine(tmp_path, 1)
    entered.enter_context(first.watch)
    with second.watch:
        time.sleep(SILENCE)
    assert not first.ended.wait(3 * SILENCE)
    assert first.watch.lost is None


def test_what_an_earlier_training_left_is_no_sign(tmp_path: Path, entered: ExitStack) -> None:
    old = Machine(tmp_path, 1, "before")
    entered.enter_context(old.watch)
    time.sleep(SILENCE / 2)
    old.fall_silent()
    first = Machine(tmp_path, 0)
    entered.enter_context(first.watch)
    assert not first.ended.wait(3 * SILENCE)


def test_a_file_server_that_stumbles_ends_nothing(
    tmp_path: Path, entered: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Machine(tmp_path, 0), Machine(tmp_path, 1)
    for machine in (first, second):
        entered.enter_context(machine.watch)
    time.sleep(SILENCE)
    stumbled = threading.Event()

    def stumble(*_: object) -> None:
        stumbled.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(alive, "write_json", stumble)
        assert stumbled.wait(30 * SILENCE)
    assert not first.ended.wait(3 * SILENCE)
    assert not second.ended.is_set()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    first, second = Machine(tmp_path, 0), Machine(tmp_path, 1)
    with first.watch:
        second.watch.__enter__()
        time.sleep(SILENCE)
        later = threading.Timer(SILENCE, second.watch.__exit__, [None])
        later.start()
    assert not (tmp_path / FOLDER).exists()
    later.join()
    assert not second.watch._thread.is_alive()
