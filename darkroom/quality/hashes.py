"""Perceptual hashes of which every flip and turn follows by exact bit operations, and hashes of fixed crops.

A hash is made of a picture's brightness in about ``SIDE`` x ``SIDE`` cells, and does not depend on its shape. Bit
``8 u + v``, counted from the most significant, belongs to row ``u`` and column ``v`` of an 8 x 8 table.

pHash (after Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010): the signs of the 8 x 8
lowest coefficients of the discrete cosine transform. Zauner compares with their median; a sign is kept here because a
flip changes the sign of the odd coefficients and nothing else. The mean brightness, whose sign says nothing, gives its
place to a sum that no flip or turn changes.

dHash (after Krawetz, "Kind of like that", 2013): is a cell brighter than its neighbour nearer to the middle? Krawetz
asks about the neighbour to the right; asking outwards lets a flip only move bits, also where neighbours are equal, as
on white grounds. 64 bits from left to right and 64 from top to bottom, so that turns are exact, too.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

SIDE = 32
SYMMETRIES = 8
# Levels of 255 up to which a coefficient counts as zero (what rounding does to it), and neighbours as equal.
SILENCE = 0.001
EQUAL = 0.5
CROSSED = 8  # the first parts of a side are combined with others, the rest each with itself
FIRST = 16 + 9 * CROSSED  # rows of an operator that are combined with all others
CONTRAST = 2.0  # a crop whose waves have less has no hash


def symmetries(phash: np.ndarray) -> np.ndarray:
    """pHashes of the flips and turns: uint64[N] -> uint64[N, 8].

    Column ``k`` is that of the picture transposed if ``k & 4``, then flipped left to right if ``k & 1`` and top to
    bottom if ``k & 2`` (:func:`turned`); column 0 is the hash itself. Exact where no coefficient is zero.
    """
    odd = np.tile(np.arange(8) % 2, (8, 1)).astype(bool)
    across, down = _integers(odd[None])[0], _integers(odd.T[None])[0]
    masks = np.array([(across if k & 1 else 0) ^ (down if k & 2 else 0) for k in range(SYMMETRIES)], np.uint64)
    bases = np.stack([phash] * 4 + [_transpose(phash)] * 4, axis=-1)
    return np.asarray(bases ^ masks, np.uint64)


def dhash_symmetries(dhash: np.ndarray) -> np.ndarray:
    """dHashes of the flips and turns, as :func:`symmetries`: uint64[N, 2] (across, down) -> uint64[N, 8, 2]."""
    across, down = dhash[:, 0], dhash[:, 1]
    found = []
    for k in range(SYMMETRIES):
        pair = (_transpose(down), _transpose(across)) if k & 4 else (across, down)
        if k & 1:
            pair = (_reverse_rows(pair[0]), _reverse_rows(pair[1]))
        if k & 2:
            pair = (pair[0].byteswap(), pair[1].byteswap())  # a row of the table is a byte
        found.append(np.stack(pair, axis=-1))
    return np.stack(found, axis=1)


def turned(picture: np.ndarray, k: int) -> np.ndarray:
    """The ``k``-th flip or turn of an array whose first axes are rows and columns."""
    if k & 4:
        picture = np.swapaxes(picture, 0, 1)
    if k & 1:
        picture = picture[:, ::-1]
    return picture[::-1] if k & 2 else picture


def from_hex(texts: Sequence[str]) -> np.ndarray:
    """Hex digits, 16 a hash and equally many in each text -> uint64[N, hashes in a text]."""
    if len(texts) == 0:
        return np.empty((0, 1), np.uint64)
    return np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64).reshape(len(texts), -1)


def to_hex(hashes: np.ndarray) -> str:
    """uint64[K] -> 16 K hex digits."""
    return hashes.astype(">u8").tobytes().hex()


def perceptual(cells: np.ndarray) -> tuple[str | None, str | None, str | None]:
    """float32[H, W] of brightness, 0-255 -> (pHash: 16 hex digits, dHash: 32, pHashes of the crops: 16 for each).

    None for a picture that is flat, and no hash for a crop that is: with nothing in it, it is like any other.
    """
    steps, waves = _places()
    down, across, centres = _factors(*cells.shape)
    half = down @ cells  # by columns last: pictures are wide more often than tall
    crossed = half[:FIRST] @ across
    alone = half[FIRST:].reshape(-1, 9, cells.shape[1]) @ centres
    every = np.concatenate((crossed, alone), axis=None)
    found = every.take(waves)
    power = np.einsum("ij,ij->i", found[:, 1:64], found[:, 1:64])
    if power[0] <= CONTRAST**2:
        return None, None, None
    found[:, 0] = found[:, 64] + found[:, 65]
    phashes = np.packbits(found[:, :64] > SILENCE, axis=1)
    dhash = np.packbits(every.take(steps) > EQUAL)
    return phashes[0].tobytes().hex(), dhash.tobytes().hex(), phashes[1:][power[1:] > CONTRAST**2].tobytes().hex()


def parts_and_crops() -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    """(parts of a side from 0 to 1, the crops as pairs of parts (down, across)); the whole is the first of both.

    The middle in seven sizes, four sides and four corners in two, and the squares out of the middle of 4:3, 3:2 and
    16:9. Of 631 photos, each second one cropped and saved at JPEG quality 80, a crop's pHash is within 8 bits of one of
    these where up to 15 % was cut off all around, 10 % off a side or 20 % off a corner (100 %), for the middle square
    (99 %), for crops anywhere with 90-100 % of each side (93 %), with 80-90 % (43 %) and with 60-80 % (2 %). Within 8
    bits were also 2 of 397,530 pairs of different photos, none within 6. (Nine crops found 71, 10 and 2 % of the crops
    anywhere, 75 found 100, 67 and 9 %, with 7 false pairs.)
    """
    parts, crops = [(0.0, 1.0)], [(0, 0)]
    for share in (0.9, 0.8):
        low, high = len(parts), len(parts) + 1
        parts += [(0.0, share), (1 - share, 1.0)]
        crops += [(low, low), (low, high), (high, low), (high, high), (0, low), (0, high), (low, 0), (high, 0)]
    for share in (3 / 4, 2 / 3, 9 / 16):
        parts.append(((1 - share) / 2, (1 + share) / 2))
        crops += [(0, len(parts) - 1), (len(parts) - 1, 0)]
    assert len(parts) == CROSSED
    for share in (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5):
        parts.append(((1 - share) / 2, (1 + share) / 2))
        crops.append((len(parts) - 1, len(parts) - 1))
    return parts, crops


@cache
def _operator(count: int) -> np.ndarray:
    """What :func:`perceptual` multiplies a side of ``count`` cells by: float32[16 + 9 parts, count].

    Rows 0-7 are means of eighths of the side, 8-15 steps outwards between ninths, then the nine waves of every part.
    """
    means, finer = (_overlaps(np.linspace(0, 1, pieces + 1), count) * pieces for pieces in (8, 9))
    outward = np.diff(finer, axis=0) * np.where(np.arange(8) < 4, -1, 1)[:, None]
    waves = [_waves(start, stop, count) for start, stop in parts_and_crops()[0]]
    return np.concatenate([means, outward, *waves]).astype(np.float32)


@cache
def _factors(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What cells of this shape are multiplied by: [16 + 9 parts, height] from the left, then from the right what its
    first rows are, [width, FIRST], and for each of the parts that are only combined with themselves [width, 9].
    """
    across = _operator(width)
    alone = across[FIRST:].reshape(-1, 9, width)
    return _operator(height), across[:FIRST].T, np.ascontiguousarray(alone.transpose(0, 2, 1))


@cache
def _places() -> tuple[np.ndarray, np.ndarray]:
    """Where in the flat products dHash's steps are, [128], and the waves, [crops, 66]: 8 x 8, then two of the ninth."""
    size, table = FIRST, np.arange(8)
    steps = [table[:, None] * size + 8 + table, (8 + table)[:, None] * size + table]
    u, v = np.append(np.repeat(table, 8), (0, 8)), np.append(np.tile(table, 8), (8, 0))
    waves = [
        (16 + 9 * down + u) * size + 16 + 9 * across + v
        if down < CROSSED
        else size * size + 81 * (down - CROSSED) + 9 * u + v
        for down, across in parts_and_crops()[1]
    ]
    return np.concatenate(steps).ravel(), np.stack(waves)


def _overlaps(edges: np.ndarray, count: int) -> np.ndarray:
    """What of each interval between edges lies in each cell of the unit side: [intervals, count]."""
    cells = np.linspace(0, 1, count + 1)
    top = np.minimum(edges[1:, None], cells[None, 1:])
    return np.asarray((top - np.maximum(edges[:-1, None], cells[None, :-1])).clip(0))


def _waves(start: float, stop: float, count: int) -> np.ndarray:
    """Cosines over a part of the side, integrated over each cell: [9, count]; row 0 is the mean."""
    edges = (np.linspace(0, 1, count + 1).clip(start, stop) - start) / (stop - start)
    k = np.arange(1, 9)[:, None]
    rising = np.sin(np.pi * k * edges) / (np.pi * k) * np.sqrt(2)
    return np.concatenate([np.diff(edges)[None], np.diff(rising, axis=1)])


def _integers(bits: np.ndarray) -> np.ndarray:
    """bool[N, 8, 8] -> uint64[N]."""
    return np.packbits(bits.reshape(len(bits), 64), axis=1).view(">u8").astype(np.uint64)[:, 0]


def _transpose(tables: np.ndarray) -> np.ndarray:
    """Rows to columns in every 8 x 8 table of bits (Warren, "Hacker's Delight", 7-3)."""
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        moved = (tables ^ (tables >> np.uint64(shift))) & np.uint64(mask)
        tables = tables ^ moved ^ (moved << np.uint64(shift))
    return tables


def _reverse_rows(tables: np.ndarray) -> np.ndarray:
    """Left to right in every 8 x 8 table of bits: the bits of each byte reversed."""
    for shift, mask in ((1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        low = np.uint64(mask)
        tables = ((tables >> np.uint64(shift)) & low) | ((tables & low) << np.uint64(shift))
    return tables
