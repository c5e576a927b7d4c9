"""Draws from several buckets: nothing is lost, in proportion, and from (seed, step) alone."""

from collections import Counter

import pytest
import torch

from darkroom.training.draws import batch, batch_rows

COUNTS = [(10, 3), (7, 100, 1), (5, 5, 5, 5), (1, 1), (2, 3, 64)]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("size", [1, 4, 9])
def test_every_row_of_every_bucket_is_seen_equally_often(counts: tuple[int, ...], size: int) -> None:
    epochs = 6
    steps = sum(count * epochs // size for count in counts)
    seen: Counter[tuple[int, int]] = Counter()
    drawn: Counter[int] = Counter()
    for step in range(steps):
        bucket, rows = batch(counts, size, 0, step)
        assert len(rows) == size
        drawn[bucket] += 1
        seen.update((bucket, int(row)) for row in rows)
    for bucket, count in enumerate(counts):
        assert drawn[bucket] == count * epochs // size  # in proportion to the rows
        times = [seen[bucket, row] for row in range(count)]
        assert max(times) - min(times) <= 1
        assert min(times) >= epochs - 1 - size // count


@pytest.mark.parametrize("counts", COUNTS)
def test_a_draw_follows_from_seed_and_step_alone(counts: tuple[int, ...]) -> None:
    forward = [batch(counts, 4, 7, step) for step in range(40)]
    backward = [batch(counts, 4, 7, step) for step in reversed(range(40))][::-1]
    for (bucket, rows), (other_bucket, other_rows) in zip(forward, backward, strict=True):
        assert bucket == other_bucket
        assert torch.equal(rows, other_rows)


def test_buckets_are_mixed_within_an_epoch_and_differ_by_seed() -> None:
    order = [[batch((200, 200), 4, seed, step)[0] for step in range(100)] for seed in (0, 1)]
    assert order[0] != order[1]
    assert 20 < sum(one != other for one, other in zip(order[0], order[0][1:], strict=False)) < 80


def test_one_bucket_is_drawn_from_as_ever() -> None:
    for step in range(20):
        bucket, rows = batch((13,), 4, 3, step)
        assert bucket == 0
        assert torch.equal(rows, batch_rows(13, 4, 3, step))


def test_late_steps_are_found_quickly() -> None:
    bucket, rows = batch((100_000, 900, 3), 64, 0, 10**9)
    assert len(rows) == 64
    assert max(rows) < (100_000, 900, 3)[bucket]
