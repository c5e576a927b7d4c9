"""Which rows a step trains on: it follows from (seed, step) alone, so that a resumed training goes on exactly."""

from functools import lru_cache

import torch

from darkroom.randomness import generator, seed_of


def batch(counts: tuple[int, ...], size: int, seed: int, step: int) -> tuple[int, torch.Tensor]:
    """(bucket, rows in it) of a step; ``counts`` are the rows of each bucket, and a batch is of one bucket.

    Each bucket has a stream of its own: its rows in one random order after another, cut into batches wherever they
    fall, so that the last batch of an order goes on into the next (:func:`batch_rows`). In epoch e, from 0, each bucket
    gives the batches that are full once every row was drawn e + 1 times, and the epoch's batches come in random order.
    So buckets are drawn in proportion to their rows, after each epoch every row was seen as often as any other but for
    less than one batch a bucket, and a bucket smaller than a batch has its turn every few epochs. With one bucket
    this is its stream.
    """
    if len(counts) == 1:
        return 0, batch_rows(counts[0], size, seed, step)
    epoch = _epoch_of(counts, size, step)
    place = step - _batches(counts, size, epoch)
    order = _order(counts, size, seed, epoch)
    bucket = order[place]
    index = counts[bucket] * epoch // size + order[:place].count(bucket)
    return bucket, batch_rows(counts[bucket], size, seed_of(seed, "bucket", bucket), index)


def batch_rows(count: int, batch: int, seed: int, step: int) -> torch.Tensor:
    """The rows of a step of one bucket: every row once an epoch, in an order that follows from (seed, epoch)."""
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    order = torch.cat([_shuffled(count, seed, epoch) for epoch in epochs])
    offset = first - epochs[0] * count
    return order[offset : offset + batch]


@lru_cache(maxsize=16)
def _shuffled(count: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(count, generator=generator(seed, "epoch", epoch))


def _batches(counts: tuple[int, ...], size: int, epoch: int) -> int:
    """How many batches come before this epoch."""
    return sum(count * epoch // size for count in counts)


def _epoch_of(counts: tuple[int, ...], size: int, step: int) -> int:
    """The epoch that a step falls into: the last one with at most ``step`` batches before it."""
    low, high = 0, (step + len(counts) + 1) * size // sum(counts) + 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _batches(counts, size, middle) <= step else (low, middle)
    return low


@lru_cache(maxsize=8)
def _order(counts: tuple[int, ...], size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The buckets of an epoch's batches, shuffled."""
    due = [count * (epoch + 1) // size - count * epoch // size for count in counts]
    batches = [bucket for bucket, number in enumerate(due) for _ in range(number)]
    return tuple(batches[at] for at in torch.randperm(len(batches), generator=generator(seed, "buckets", epoch)))
