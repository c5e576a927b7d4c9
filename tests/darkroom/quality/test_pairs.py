"""Pairs of near hashes: equal to comparing all with all, and small where hashes repeat."""

import numpy as np
import pytest

from darkroom.quality.pairs import group, linked_pairs, near_pairs


def reference(hashes: np.ndarray, distance: int, others: np.ndarray | None = None) -> np.ndarray:
    """All with all."""
    a = hashes.reshape(len(hashes), -1)
    b = a if others is None else others.reshape(len(others), -1)
    near = np.bitwise_count(a[:, None] ^ b[None]).sum(axis=2) <= distance
    return np.argwhere(np.triu(near, 1) if others is None else near)


def hashes(count: int, words: int = 1, share: float | np.ndarray = 0.5, seed: int = 0) -> np.ndarray:
    """Hashes whose bits are set with probability ``share``; a third differ from another by a few bits, or none."""
    generator = np.random.default_rng(seed)
    bits = generator.random((count, 64 * words)) < share
    copies = count // 3
    flips = generator.random((copies, 64 * words)) < generator.integers(0, 10, (copies, 1)) / (64 * words)
    bits[:copies] = bits[-copies:] ^ flips
    found = np.packbits(bits[generator.permutation(count)], axis=1).view(np.uint64)
    return found[:, 0] if words == 1 else found


@pytest.mark.parametrize("distance", [0, 1, 3, 6, 9, 16])
@pytest.mark.parametrize("words", [1, 2])
def test_equal_to_comparing_all_with_all(distance: int, words: int) -> None:
    some = hashes(1500, words)
    found = near_pairs(some, distance)
    assert len(found) > 10
    np.testing.assert_array_equal(found, reference(some, distance))


def test_equal_where_tables_are_worth_their_making() -> None:
    some = hashes(3000)
    np.testing.assert_array_equal(near_pairs(some, 6), reference(some, 6))
    two = hashes(2500, words=2)
    np.testing.assert_array_equal(near_pairs(two, 12), reference(two, 12))


@pytest.mark.parametrize("seed", range(3))
def test_equal_where_bits_are_uneven(seed: int) -> None:
    generator = np.random.default_rng(seed)
    share = generator.beta(0.5, 1.0, 64)
    some = hashes(3000, share=share, seed=seed)
    some[generator.random(len(some)) < 0.6] &= np.uint64(0x00000000FFFFFF0F)  # most share 36 bits
    np.testing.assert_array_equal(near_pairs(some, 4), reference(some, 4))


def test_crowded_hashes_are_not_compared_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most share most bits, the tables of the shared bits would compare a third of all pairs 28 times."""
    from darkroom.quality import pairs

    generator = np.random.default_rng(0)
    some = generator.integers(0, 2**64, 20_000, dtype=np.uint64)
    some[:14_000] &= np.uint64(0x0000003FFFFFFFFF)
    compared = 0
    weigh = pairs._weight

    def counted(words: list[np.ndarray]) -> np.ndarray:
        nonlocal compared
        compared += words[0].size
        return weigh(words)

    monkeypatch.setattr(pairs, "_weight", counted)
    found = near_pairs(some, 3)
    assert compared < 14_000**2 / 8
    sample = some[:2000]
    np.testing.assert_array_equal(found[(found < 2000).all(axis=1)], reference(sample, 3))


@pytest.mark.parametrize("sizes", [(3000, 40), (40, 3000), (2500, 2500)])
@pytest.mark.parametrize("words", [1, 2])
def test_others_are_the_whole_restricted(sizes: tuple[int, int], words: int) -> None:
    whole = hashes(sum(sizes), words)
    ours, others = whole[: sizes[0]], whole[sizes[0] :]
    found = near_pairs(ours, 6 * words, others)
    np.testing.assert_array_equal(found, reference(ours, 6 * words, others))
    every = near_pairs(whole, 6 * words)
    across = every[(every[:, 0] < sizes[0]) & (every[:, 1] >= sizes[0])]
    np.testing.assert_array_equal(found, across - [0, sizes[0]])


def test_order_of_rows_does_not_matter() -> None:
    some = hashes(2000)
    order = np.random.default_rng(1).permutation(len(some))
    there = order[near_pairs(some[order], 6)]
    assert {tuple(sorted(pair)) for pair in there.tolist()} == {tuple(pair) for pair in near_pairs(some, 6).tolist()}


def test_nothing_and_one_have_no_pairs() -> None:
    for count in (0, 1):
        assert near_pairs(np.zeros(count, np.uint64), 6).shape == (0, 2)
    assert near_pairs(np.zeros(0, np.uint64), 6, np.zeros(3, np.uint64)).shape == (0, 2)


def test_a_distance_beyond_the_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="distance = 65"):
        near_pairs(np.zeros(2, np.uint64), 65)


def test_linked_pairs_connect_the_same_and_stay_few() -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def components(left: np.ndarray, right: np.ndarray, count: int) -> int:
        graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(count, count))
        return int(connected_components(graph, directed=False)[0])

    few = np.append(hashes(500), np.repeat(hashes(3, seed=5), 100))
    every = near_pairs(few, 6)
    left, right = linked_pairs(group(few), 6)
    assert {tuple(sorted(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)} <= set(
        map(tuple, every.tolist())
    )
    assert components(left, right, len(few)) == components(*every.T, len(few))

    value = np.uint64(0x0123456789ABCDEF)
    many = np.append(np.repeat([value, value ^ np.uint64(1)], 50_000), hashes(100))
    left, right = linked_pairs(group(many), 6)
    assert len(left) < 3 * len(many)
    assert components(left, right, len(many)) <= 101
    left, right = linked_pairs(group(many), 6, group(many[:60_000]))
    assert len(left) < 3 * len(many)
