"""All pairs of hashes within a Hamming distance, found exactly and without comparing all with all.

A hash is one uint64 or several: uint64[N] or uint64[N, words]. Its bits are dealt into k bands. Two hashes that differ
in at most d bits differ in at most d bands, so they agree in at least m = k - d of them: every pair within d shares a
bucket in one of the C(k, m) tables that are keyed by m bands (Norouzi, Punjani and Fleet, "Fast exact search in Hamming
space with multi-index hashing", 2014; Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", 2007).

Hashes of real pictures are not uniform: plain grounds give the same bits again and again, and a bucket that most hashes
share would be compared all with all. So the plan follows the entropy of the bits, they are dealt so that every band
has its part of it, and hashes in crowded buckets are set aside and searched once more among themselves, with keys of
more bits and a deal that suits them.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Words = list[Hashes]  # one array a word, so that one word is as fast as it can be
Rows = npt.NDArray[np.int64]
Pieces = Iterator[tuple[Rows, Rows]]

CROWDED = 96  # a bucket of more hashes is not compared all with all
MOST_TABLES = 1001
MOST_TWINS = 32  # of the rows that share a hash, so many are paired with each row of a near one
BLOCK = 1 << 17  # hashes that are looked up together: a few arrays of 1 MB
SAMPLE = 1 << 16  # hashes that the bits' entropies are estimated on
# Rough costs of one step in nanoseconds; they choose between plans that all give the same pairs.
INDEX, LOOK_UP, COMPARE, BRUTE, TABLE = 50.0, 35.0, 12.0, 1.3, 60_000.0


def near_pairs(hashes: Hashes, distance: int, others: Hashes | None = None) -> Rows:
    """uint64[N] or [N, words] -> int64[P, 2]: all pairs of rows (i < j) at most ``distance`` bits apart, sorted.

    With ``others`` (uint64[M] or [M, words]): all pairs of a row of ``hashes`` and a row of ``others``. A hash that n
    rows share gives n(n-1)/2 pairs: where there may be many such rows, take :func:`linked_pairs`.
    """
    ours = group(hashes)
    if others is None:
        u, v = _search(ours.words, None, distance)
        left, right = _expand(u, v, ours, ours)
        pairs = np.concatenate([np.stack([left, right], axis=1), _twins(ours)])
        codes = _codes(pairs.min(axis=1), pairs.max(axis=1))
        return np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)
    theirs = group(others)
    u, v = _search(ours.words, theirs.words, distance)
    codes = _codes(*_expand(u, v, ours, theirs))
    return np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)


def linked_pairs(ours: "Groups", distance: int, theirs: "Groups | None" = None) -> tuple[Rows, Rows]:
    """(i, j): as :func:`near_pairs`, unsorted, and few also where many rows share a hash.

    Of rows that share a hash, the first ``MOST_TWINS`` are paired with all; every further one with the first, with the
    one before it, and with no row of another hash. So they stay connected, and n rows give about 2 n pairs.
    """
    if theirs is None:
        u, v = _search(ours.words, None, distance)
        left, right = _expand(u, v, ours, ours, MOST_TWINS)
        few, chain = _twins(ours, MOST_TWINS), _chain(ours, MOST_TWINS)
        return np.concatenate([left, few[:, 0], chain[:, 0]]), np.concatenate([right, few[:, 1], chain[:, 1]])
    u, v = _search(ours.words, theirs.words, distance)
    # Equal hashes of both sides are linked whole: each of one side's with the first of the other's.
    same = _equal(ours.words, theirs.words, u, v)
    left, right = _expand(u, v, ours, theirs, MOST_TWINS)
    more = [_expand(u[same], v[same], ours, theirs, *most) for most in ((None, 1), (1, None))]
    return np.concatenate([left, *(i for i, _ in more)]), np.concatenate([right, *(j for _, j in more)])


@dataclass(frozen=True)
class Groups:
    """Hashes, distinct if made by :func:`group`, and the rows that have each."""

    words: Words  # of the V hashes
    rows: Rows  # int64[N]: the rows ordered by their hash
    starts: Rows  # int64[V + 1]: rows[starts[v]:starts[v + 1]] have hash v


def group(hashes: Hashes) -> Groups:
    """Rows by hash."""
    words = _words(hashes)
    rows = np.lexsort(words[::-1]) if len(words) > 1 else np.argsort(words[0], kind="stable")
    ordered = [word[rows] for word in words]
    new = np.zeros(len(rows), bool)
    new[:1] = True
    for word in ordered:
        new[1:] |= word[1:] != word[:-1]
    first = np.flatnonzero(new)
    return Groups([word[first] for word in ordered], rows, np.append(first, len(rows)))


def apart(hashes: Hashes) -> Groups:
    """Every row on its own, without looking for equal ones: for :func:`linked_pairs` with hashes that seldom repeat."""
    words = _words(hashes)
    return Groups(words, np.arange(len(words[0])), np.arange(len(words[0]) + 1))


def _words(hashes: Hashes) -> Words:
    hashes = np.asarray(hashes, np.uint64)
    return [hashes] if hashes.ndim == 1 else [np.ascontiguousarray(word) for word in hashes.T]


def _equal(ours: Words, theirs: Words, u: Rows, v: Rows) -> npt.NDArray[np.bool_]:
    return np.asarray(np.logical_and.reduce([one[u] == other[v] for one, other in zip(ours, theirs, strict=True)]))


def _expand(
    u: Rows, v: Rows, ours: Groups, theirs: Groups, most: int | None = None, most_theirs: int | None = None
) -> tuple[Rows, Rows]:
    """Pairs of hashes -> pairs of their rows, of at most the first ``most`` rows of each."""
    counts, other_counts = np.diff(ours.starts)[u], np.diff(theirs.starts)[v]
    if most is not None:
        counts = np.minimum(counts, most)
    if (most_theirs := most_theirs or most) is not None:
        other_counts = np.minimum(other_counts, most_theirs)
    sizes = counts * other_counts
    pair = np.repeat(np.arange(len(u)), sizes)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    left = ours.rows[ours.starts[u][pair] + within // other_counts[pair]]
    right = theirs.rows[theirs.starts[v][pair] + within % other_counts[pair]]
    return left, right


def _twins(groups: Groups, most: int | None = None) -> Rows:
    """All pairs of rows that share a hash, or of the first ``most`` of them."""
    counts = np.diff(groups.starts)
    ends = groups.starts[:-1] + (counts if most is None else np.minimum(counts, most))
    later = np.maximum(np.repeat(ends, counts) - np.arange(len(groups.rows)) - 1, 0)
    place = np.repeat(np.arange(len(groups.rows)), later)
    step = np.arange(len(place)) - np.repeat(np.cumsum(later) - later, later) + 1
    return np.stack([groups.rows[place], groups.rows[place + step]], axis=1)


def _chain(groups: Groups, most: int) -> Rows:
    """Each row beyond the first ``most`` of its hash, with the first row and with the one before."""
    start = np.repeat(groups.starts[:-1], np.diff(groups.starts))
    place = np.arange(len(groups.rows))
    place = place[place - start >= most]
    rows = groups.rows
    return np.stack([np.concatenate([rows[start[place]], rows[place - 1]]), np.tile(rows[place], 2)], axis=1)


def _search(a: Words, b: Words | None, distance: int) -> tuple[Rows, Rows]:
    """(i, j) of all near pairs, each once, in no order; where ``b`` is None, of distinct hashes ``a`` with i < j."""
    if not 0 <= distance <= 64 * len(a):
        raise ValueError(f"distance = {distance}: hashes of {64 * len(a)} bits differ in 0 to {64 * len(a)}")
    if b is not None and len(b[0]) < len(a[0]):  # the table is made of the fewer
        j, i = _search(b, a, distance)
        return i, j
    pieces = list(_near(a, b, distance, 0))
    if not pieces:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    left, right = (np.concatenate(side) for side in zip(*pieces, strict=True))
    if b is None:
        left, right = np.minimum(left, right), np.maximum(left, right)
    # Pairs of crowded buckets may have been found a second time.
    codes = _codes(left, right)
    codes = codes[np.concatenate([[True], codes[1:] != codes[:-1]])]
    return codes >> 32, codes & 0xFFFFFFFF


def _codes(left: Rows, right: Rows) -> Rows:
    """Pairs as single numbers, sorted: far faster than sorting by two keys, or np.unique."""
    codes = (left << 32) | right
    codes.sort()
    return codes


def _near(a: Words, b: Words | None, distance: int, more_than: int) -> Pieces:
    """Near pairs of ``a`` with ``b`` (of ``a`` with itself where None); keys are of more than ``more_than`` bands."""
    count, other = len(a[0]), None if b is None else len(b[0])
    if count == 0 or other == 0:
        return
    share = _unpack([word[:: max(1, count // SAMPLE)] for word in a]).mean(axis=0)
    plan = _plan(count, other, share, distance, more_than)
    if plan is None:
        yield from _brute(a, b, distance)
        return
    bands, agreeing = plan
    deal = _deal(share, bands)
    a_dealt = _permute(a, deal.order)
    b_dealt = None if b is None else _permute(b, deal.order)
    crowded_a = np.zeros(count, bool)
    crowded_b = crowded_a if other is None else np.zeros(other, bool)
    for combination in itertools.combinations(range(bands), agreeing):
        table = _Table(a_dealt, deal, combination, distance)
        crowded_a[table.crowded()] = True
        if b_dealt is None:
            yield from table.within()
        else:
            yield from table.against(b_dealt, crowded_b)
    rest_a = np.flatnonzero(crowded_a)
    rest_b = rest_a if b is None else np.flatnonzero(crowded_b)
    if len(rest_a) and len(rest_b):
        left_b = None if b is None else [word[rest_b] for word in b]
        for i, j in _near([word[rest_a] for word in a], left_b, distance, agreeing):
            yield rest_a[i], rest_b[j]


def _plan(
    count: int, other: int | None, share: npt.NDArray[Any], distance: int, more_than: int
) -> tuple[int, int] | None:
    """(bands, how many of them form a key) of the least expected cost; None where comparing all is cheaper.

    ``share`` is float64[bits]: how often each bit is set. Two hashes agree in a bit with probability p^2 + (1 - p)^2.
    """
    bits = len(share)
    told = -np.log2(share**2 + (1 - share) ** 2).sum() / bits  # what a bit tells apart: 1 where it is even
    product = count * (count - 1) / 2 if other is None else count * other
    looked_up = 0 if other is None else other
    words = bits // 64
    best, chosen = BRUTE * words * product, None
    for agreeing in range(more_than + 1, bits - distance + 1):
        bands = distance + agreeing
        if bands < words:
            continue
        tables = math.comb(bands, agreeing)
        if tables > MOST_TABLES:
            break
        candidates = product / 2.0 ** min(told * (bits * agreeing // bands), 60)
        cost = tables * (TABLE + words * (INDEX * count + LOOK_UP * looked_up + COMPARE * candidates))
        if cost < best:
            best, chosen = cost, (bands, agreeing)
    return chosen


@dataclass(frozen=True)
class _Deal:
    """Which bit goes where: ``order[p]`` is the bit that comes to place p; band k has the places starts[k] on."""

    order: npt.NDArray[np.int64]
    starts: list[int]
    widths: list[int]


def _deal(share: npt.NDArray[Any], bands: int) -> _Deal:
    """Deal the bits, which are set as often as ``share`` says, so that every band gets about the same entropy."""
    even = share.clip(1e-9, 1 - 1e-9)
    entropy = -(even * np.log2(even) + (1 - even) * np.log2(1 - even))
    totals = [0.0] * bands
    members: list[list[int]] = [[] for _ in range(bands)]
    for bit in np.argsort(-entropy, kind="stable"):
        room = [band for band in range(bands) if len(members[band]) < 64]  # a band is read as one number
        band = min(room, key=lambda band: (totals[band], len(members[band])))
        totals[band] += float(entropy[bit])
        members[band].append(int(bit))
    widths = [len(bits) for bits in members]
    starts = list(itertools.accumulate(widths, initial=0))[:-1]
    return _Deal(np.array([bit for bits in members for bit in bits]), starts, widths)


def _unpack(hashes: Words) -> npt.NDArray[np.uint8]:
    """W words of N -> uint8[N, 64 W], the lowest bit of the first word first."""
    pages = np.stack(hashes, axis=1).astype("<u8").view(np.uint8)
    return np.unpackbits(pages, axis=1, bitorder="little")


def _permute(hashes: Words, order: npt.NDArray[np.int64]) -> Words:
    """Bring bit order[p] to place p; distances stay."""
    out = [np.empty(len(word), np.uint64) for word in hashes]
    for start in range(0, len(hashes[0]), BLOCK):
        piece = slice(start, start + BLOCK)
        bits = np.ascontiguousarray(_unpack([word[piece] for word in hashes])[:, order])
        dealt = np.packbits(bits, axis=1, bitorder="little").view("<u8")
        for word, column in zip(out, dealt.T, strict=True):
            word[piece] = column
    return out


def _bits(words: Words, start: int, width: int) -> Hashes:
    """Places ``start`` to ``start + width`` of every hash, as a number; ``width`` is at most 64."""
    if width == 0:
        return np.zeros(len(words[0]), np.uint64)
    word, low = divmod(start, 64)
    part = words[word] >> np.uint64(low)
    if low + width > 64:
        part = part | (words[word + 1] << np.uint64(64 - low))
    return part if width == 64 else part & np.uint64((1 << width) - 1)


class _Table:
    """Hashes by the bits of some bands."""

    def __init__(self, hashes: Words, deal: _Deal, combination: tuple[int, ...], distance: int) -> None:
        self.deal, self.combination, self.distance = deal, combination, distance
        count = len(hashes[0])
        # More buckets than hashes would be empty: longer keys are hashed down. That only adds candidates.
        self.width = sum(deal.widths[band] for band in combination)
        self.size_bits = min(self.width, max(8, (2 * count - 1).bit_length()))
        keys = self._keys(hashes)
        packed = (keys << np.uint64(32)) | np.arange(count, dtype=np.uint64)
        packed.sort()  # far faster than an argsort
        self.rows = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
        self.keys = (packed >> np.uint64(32)).view(np.int64)
        self.hashes = [word[self.rows] for word in hashes]
        counts = np.bincount(keys.view(np.int64), minlength=1 << self.size_bits)
        # Bucket k is places edges[k] to edges[k + 1] - 1; small numbers, so that most of it stays in the cache.
        self.edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    def _keys(self, hashes: Words) -> Hashes:
        keys = np.zeros(len(hashes[0]), np.uint64)
        total = 0
        for band in self.combination:
            width = self.deal.widths[band]
            part = _bits(hashes, self.deal.starts[band], width)
            if total + width > 64:  # an even mix, where the bands do not fit side by side
                keys = keys * np.uint64(0x9E3779B97F4A7C15) + part
            else:
                keys = (keys << np.uint64(width)) | part if width < 64 else part
            total += width
        if self.width > self.size_bits:
            keys = (keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - self.size_bits)
        return keys

    def _bucket(self, keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The first place of each key's bucket, and the one after its last."""
        return self.edges[keys], self.edges[keys + 1]

    def crowded(self) -> Rows:
        """The rows in crowded buckets."""
        first, last = self._bucket(self.keys)
        return self.rows[last - first > CROWDED]

    def within(self) -> Pieces:
        """Near pairs of this table's own hashes."""
        for start in range(0, len(self.rows), BLOCK):
            place = np.arange(start, min(start + BLOCK, len(self.rows)), dtype=np.int32)
            first, last = self._bucket(self.keys[place])
            keep = (place + 1 < last) & (last - first <= CROWDED)
            place, last = place[keep], last[keep]
            yield from self._compare([word[place] for word in self.hashes], self.rows[place], place + 1, last)

    def against(self, others: Words, crowded: npt.NDArray[np.bool_]) -> Pieces:
        """Near pairs of this table's hashes with ``others``; those that met a crowded bucket are marked."""
        for start in range(0, len(others[0]), BLOCK):
            block = [word[start : start + BLOCK] for word in others]
            first, last = self._bucket(self._keys(block).view(np.int64))
            counts = last - first
            crowded[start : start + BLOCK] |= counts > CROWDED
            active = np.flatnonzero((counts > 0) & (counts <= CROWDED))
            hashes, first, last = [word[active] for word in block], first[active], last[active]
            for other, row in self._compare(hashes, start + active, first, last):
                yield row, other

    def _compare(self, hashes: Words, rows: Rows, first: npt.NDArray[np.int32], last: npt.NDArray[np.int32]) -> Pieces:
        """Compare each hash with the table's places first to last - 1; one step is one place of every hash."""
        counts = (last - first).astype(np.uint8)
        order = np.argsort(counts, kind="stable")  # a radix sort; those that go on are the last ones
        ends = np.searchsorted(counts[order], np.arange(int(counts.max(initial=0))), side="right")
        hashes, rows, first = [word[order] for word in hashes], rows[order], first[order]
        for step, done in enumerate(ends.tolist()):
            place = first[done:] + step
            differ = [word[done:] ^ held[place] for word, held in zip(hashes, self.hashes, strict=True)]
            hit = np.flatnonzero(_weight(differ) <= self.distance)
            if len(hit):
                hit = hit[self._is_first([word[hit] for word in differ])]
                yield rows[done + hit], self.rows[place[hit]]

    def _is_first(self, differ: Words) -> npt.NDArray[np.bool_]:
        """Whether no earlier table has this pair: then it is told here, and nowhere else."""
        first = np.ones(len(differ[0]), bool)
        for band, (start, width) in enumerate(zip(self.deal.starts, self.deal.widths, strict=True)):
            agrees = _bits(differ, start, width) == 0
            if band in self.combination:
                first &= agrees  # hashed keys may meet by chance
            elif band < self.combination[-1]:
                first &= ~agrees
        return first


def _weight(words: Words) -> npt.NDArray[Any]:
    """How many bits are set in each."""
    weight = np.bitwise_count(words[0])
    for word in words[1:]:
        weight = weight + np.bitwise_count(word)  # at most 64 W, and W is 1 or 2: a byte holds it
    return weight


def _brute(a: Words, b: Words | None, distance: int) -> Pieces:
    """Compare all with all, in blocks of about 256k."""
    others = a if b is None else b
    rows = max(1, (1 << 18) // len(others[0]))
    for start in range(0, len(a[0]), rows):
        low = start + 1 if b is None else 0
        differ = [word[start : start + rows, None] ^ other[None, low:] for word, other in zip(a, others, strict=True)]
        hit = np.flatnonzero(_weight(differ).ravel() <= distance)  # far faster than np.nonzero of a matrix
        i, j = np.divmod(hit, len(others[0]) - low)
        i, j = i + start, j + low
        if b is None:
            keep = i < j
            i, j = i[keep], j[keep]
        if len(i):
            yield i, j
