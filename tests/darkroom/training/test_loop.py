"""The loop's parts: which rows a step sees, the learning rate, and resuming."""

import itertools
import math
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from darkroom.errors import Interrupted
from darkroom.recipe import Train
from darkroom.training.draws import batch_rows
from darkroom.training.optimizers import learning_rate
from darkroom.training.stop import Stop
from darkroom.training.team import Team


def test_every_row_is_seen_once_an_epoch_whatever_the_batch() -> None:
    count, batch = 10, 4
    seen = torch.cat([batch_rows(count, batch, 0, step) for step in range(15)]).tolist()
    for epoch in range(6):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_rows_follow_from_seed_and_step_alone() -> None:
    assert torch.equal(batch_rows(50, 8, 3, 17), batch_rows(50, 8, 3, 17))
    assert not torch.equal(batch_rows(50, 8, 3, 17), batch_rows(50, 8, 4, 17))
    assert not torch.equal(batch_rows(50, 8, 3, 17), batch_rows(50, 8, 3, 18))


def test_a_batch_may_be_larger_than_the_data() -> None:
    rows = batch_rows(3, 8, 0, 1)
    assert len(rows) == 8
    assert max(Counter(rows.tolist()).values()) <= 4


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    plan = Train(steps=100, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(plan, step) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[9] == 1.0
    assert rates[10] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert math.isclose(rates[100], 0, abs_tol=1e-12)


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = signal.getsignal(signal.SIGTERM)
    yield Stop(Team())
    signal.signal(signal.SIGTERM, before)


def test_a_stop_ends_what_runs_at_once(stop: Stop) -> None:
    with pytest.raises(Interrupted, match="last checkpoint"):
        signal.raise_signal(signal.SIGTERM)


def test_a_step_is_finished_before_a_stop(stop: Stop) -> None:
    stop.hold()
    signal.raise_signal(signal.SIGTERM)
    assert stop.asked  # the loop saves
    with pytest.raises(Interrupted, match="step 7"):
        stop.release("training stopped at step 7")
