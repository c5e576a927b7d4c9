"""What is told of a training's pace: its speed, how busy its threads are, and the time that is left."""

from itertools import chain, repeat

import pytest
import torch

from darkroom.recipe import Train
from darkroom.training.pace import BUSY, LEFT, SPEED, Pace, duration, in_words

PLAN = Train(steps=100, batch=8, threads=2)


def pace(walls: list[float], works: list[float], step: int = 0) -> Pace:
    """A stopwatch that reads these wall and CPU seconds one after another."""
    wall, work = (chain(iter(values), repeat(values[-1])) for values in (walls, works))
    return Pace(PLAN, torch.device("cpu"), step, lambda: next(wall), lambda: next(work))


def test_speed_and_share_are_of_the_last_stretch_and_time_left_of_all() -> None:
    watch = pace([10.0, 20.0, 22.0], [1.0, 11.0, 15.0])
    assert watch.told(10) == {SPEED: 8.0, BUSY: 0.5, LEFT: 90.0}
    # Twice as busy and five times as fast as before: 20 steps took 12 s, so 80 take 48.
    assert watch.told(20) == {SPEED: 40.0, BUSY: 1.0, LEFT: 48.0}


def test_a_resumed_training_counts_from_where_it_goes_on() -> None:
    assert pace([0.0, 10.0], [0.0, 0.0], step=90).told(95)[LEFT] == pytest.approx(10.0)
    assert pace([0.0, 10.0], [0.0, 0.0], step=90).told(100)[LEFT] == 0


def test_in_words() -> None:
    assert in_words({SPEED: 1234.5, BUSY: 0.934, LEFT: 61.2}) == "1,234 pictures/s, 93% busy, 61 s left"
    assert in_words({SPEED: 3.0, LEFT: 7200.0}) == "3 pictures/s, 2.0 h left", "a GPU whose driver says nothing"
    assert [duration(119.6), duration(150), duration(5400)] == ["120 s", "2 min", "90 min"]
