"""Which pictures look like the same picture: candidates by perceptual hashes, each then looked at more closely.

Hashes propose and the 8 x 8 colour descriptors decide. A pair of photos is taken when one hash is near and the other
not far, the brightness agrees after one gain and offset for the whole picture (in most cells, for text may have been
added), and the colours agree after one cast and one saturation (so a recoloured copy is found, and the same shirt in
another colour is not).

Drawings, icons and other pictures of few tones share their bits with every picture of the same outline: a clock at
three and at four, a man and a woman with the same easel. There pHash must be near and every cell must agree; text added
to a drawing, and crops of one, are not found. The limits were set on 632 photos and 627 emoji with 28 kinds of
changed copies each: see benchmarks/duplicates.py.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .hashes import SYMMETRIES, dhash_symmetries, from_hex, parts_and_crops, symmetries, turned
from .pairs import Hashes, Rows, apart, group, linked_pairs

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

TONES = 6.5  # bits of entropy of brightness; of 627 emoji all have less, of 632 photos one in fifteen
CHUNK = 1 << 16  # pairs that are looked at together: some arrays of 50 MB
CROPS_CHUNK = 1 << 12  # likewise, with all crops of both
ROUNDING = 6.0  # levels in which every cell of a drawing may differ
CHANGED = 8.0  # levels from which a cell counts as changed
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
# Flips and turns that are enough for unordered pairs: a quarter turn the other way is the same pair seen from the
# other side.
ONE_WAY = (1, 2, 3, 4, 5, 7)
MIRRORED = (0, 1)  # crops are looked for as they are and mirrored

TURNS = (
    "",
    "mirrored",
    "mirrored and turned",
    "turned",
    "mirrored and turned",
    "turned",
    "turned",
    "mirrored and turned",
)
SAME, RECOLOURED, PARTLY, CROPPED = range(4)
PAINTED = 24.0  # levels, of 255, by which a crop differs from the same part of the whole on average
CHANGES = ("re-encoded or resized", "recoloured", "changed in part", "cropped")


@dataclass(frozen=True)
class Looks:
    """What N pictures look like."""

    phash: Hashes  # [N]
    dhash: Hashes  # [N, 2]
    known: Flags  # [N]: has hashes and a descriptor
    crops: Hashes  # [C], all pictures' after one another
    crop_starts: Rows  # [N + 1]: picture n has crops[crop_starts[n]:crop_starts[n + 1]]
    descriptor: npt.NDArray[np.uint8]  # [N, 64, 3]
    entropy: npt.NDArray[np.float64]  # [N], bits; NaN where unknown


@dataclass(frozen=True)
class Likeness:
    """Pairs of pictures that are copies of one another, i < j, each pair once."""

    i: Rows
    j: Rows
    turn: npt.NDArray[np.int64]  # which of the eight flips and turns
    change: npt.NDArray[np.int64]  # index into CHANGES
    distance: npt.NDArray[np.int64]  # bits of pHash


def looks(
    phash: Sequence[Any],
    dhash: Sequence[Any],
    crops: Sequence[Any],
    descriptor: Sequence[Any],
    entropy: npt.NDArray[np.float64],
) -> Looks:
    """Columns of the manifest, with None where a picture has no hash, -> :class:`Looks`."""
    known = np.array(
        [
            isinstance(p, str)
            and isinstance(d, str)
            and isinstance(c, str)
            and (len(p), len(d), len(c)) == (16, 32, 384)
            for p, d, c in zip(phash, dhash, descriptor, strict=True)
        ],
        bool,
    )
    rows = np.flatnonzero(known)
    phashes, dhashes = np.zeros(len(known), np.uint64), np.zeros((len(known), 2), np.uint64)
    descriptors = np.zeros((len(known), 64, 3), np.uint8)
    texts = [crop if isinstance(crop, str) and fine else "" for crop, fine in zip(crops, known, strict=True)]
    if len(rows):
        phashes[rows] = from_hex(_chosen(phash, known))[:, 0]
        dhashes[rows] = from_hex(_chosen(dhash, known))
        content = bytes.fromhex("".join(_chosen(descriptor, known)))
        descriptors[rows] = np.frombuffer(content, np.uint8).reshape(-1, 64, 3)
    starts = np.concatenate([[0], np.cumsum([len(text) // 16 for text in texts], dtype=np.int64)]).astype(np.int64)
    crop_hashes = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)
    return Looks(phashes, dhashes, known, crop_hashes, starts, descriptors, entropy)


def _chosen(texts: Sequence[Any], known: Flags) -> list[str]:
    return list(itertools.compress(texts, known))


def copies(pictures: Looks, fresh: Flags, distance: int) -> Likeness:
    """All pairs of copies of which one at least is ``fresh`` (bool[N]); ``distance`` as in ``check.near_distance``."""
    i, j = near_candidates(pictures, fresh, distance)
    near = _in_chunks(lambda part: _near(pictures, i[part], j[part], distance), len(i))
    crop = _cropped(pictures, fresh, distance)
    pairs = [np.concatenate(columns) for columns in zip(near, crop, strict=True)]
    # Each pair once: near before cropped, the nearest first.
    order = np.lexsort((pairs[4], pairs[3] == CROPPED, pairs[1], pairs[0]))
    pairs = [column[order] for column in pairs]
    new = np.ones(len(order), bool)
    new[1:] = (pairs[0][1:] != pairs[0][:-1]) | (pairs[1][1:] != pairs[1][:-1])
    return Likeness(*(column[new] for column in pairs))


def near_candidates(pictures: Looks, fresh: Flags, distance: int) -> tuple[Rows, Rows]:
    """Pairs i < j, one of them ``fresh``, whose pHashes differ in at most ``distance`` of 64 bits, or whose dHashes
    in at most twice as many of 128, over the eight flips and turns.

    dHashes of pictures of few tones are left out: :func:`copies` would take none of what they propose alone. Where more
    than 32 pictures share a hash, not all of their pairs are given (see :func:`pairs.linked_pairs`).
    """
    varied = ~(pictures.entropy < TONES)
    found: list[tuple[Rows, Rows]] = []
    for hashes, turns, radius, rows in (
        (pictures.phash, symmetries, distance, pictures.known),
        (pictures.dhash, dhash_symmetries, 2 * distance, pictures.known & varied),
    ):
        new, old = np.flatnonzero(rows & fresh), np.flatnonzero(rows & ~fresh)
        if not len(new):
            continue
        ours, images = group(hashes[new]), turns(hashes[new])
        i, j = linked_pairs(ours, radius)
        found.append((new[i], new[j]))
        i, j = linked_pairs(ours, radius, group(np.concatenate([images[:, k] for k in ONE_WAY])))
        found.append((new[i], new[j % len(new)]))
        if len(old):
            every = group(np.concatenate([images[:, k] for k in range(SYMMETRIES)]))
            i, j = linked_pairs(every, radius, group(hashes[old]))
            found.append((new[i % len(new)], old[j]))
    return _unique(found)


def _unique(found: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    """Each unordered pair of different pictures once, i < j, sorted."""
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    left, right = (np.concatenate(side) for side in zip(*found, strict=True))
    codes = ((np.minimum(left, right) << 32) | np.maximum(left, right))[left != right]
    codes.sort()
    codes = codes[np.concatenate([[True], codes[1:] != codes[:-1]])] if len(codes) else codes
    return codes >> 32, codes & 0xFFFFFFFF


def _in_chunks(judge: Any, count: int, chunk: int = CHUNK) -> list[npt.NDArray[Any]]:
    """What ``judge`` says of each slice of the candidates, put together: i, j, turn, change, distance."""
    pieces = [judge(slice(start, start + chunk)) for start in range(0, count, chunk)]
    pieces = pieces or [[np.zeros(0, np.int64)] * 5]
    return [np.concatenate(columns) for columns in zip(*pieces, strict=True)]


def _near(pictures: Looks, i: Rows, j: Rows, distance: int) -> list[npt.NDArray[Any]]:
    """Candidates -> those that are copies: i, j, turn, change, distance."""
    row = np.arange(len(i))
    p = np.bitwise_count(symmetries(pictures.phash[j]) ^ pictures.phash[i][:, None]).astype(np.int64)
    d = np.bitwise_count(dhash_symmetries(pictures.dhash[j]) ^ pictures.dhash[i][:, None]).sum(axis=2, dtype=np.int64)
    turn = (2 * p + d).argmin(axis=1)
    p, d = p[row, turn], d[row, turn]
    a = pictures.descriptor[i].astype(np.float32)
    b = pictures.descriptor[j[:, None], _turned_cells()[turn]].astype(np.float32)
    light = _brightness(a, b)
    colour, most = _colour(a, b)
    drawing = np.fmax(pictures.entropy[i], pictures.entropy[j]) < TONES
    # Plain grounds tell dHash of neighbours that are nearly equal: more of its bits may differ.
    whole = (p <= distance) & (d <= 3 * distance) & (light.worst <= ROUNDING) & (colour <= 10)
    alike = ((p <= distance) | (d <= 2 * distance)) & (p <= 2 * distance) & (d <= 5 * distance)
    alike &= ((light.correlation >= 0.9) | (light.agreeing >= 0.6)) & (most <= 12)
    keep = np.where(drawing, whole, alike)
    shift = np.abs(a - b).mean(axis=(1, 2))
    change = np.where(shift <= 3, SAME, np.where(light.agreeing >= 0.95, RECOLOURED, PARTLY))
    change = np.where((shift <= 3) & (light.worst > 2 * CHANGED), PARTLY, change)
    return [column[keep] for column in (i, j, turn, change, p)]


def _cropped(pictures: Looks, fresh: Flags, distance: int) -> list[npt.NDArray[Any]]:
    """Pictures that are one of the fixed crops of another: i, j, turn, change, distance."""
    rows = np.flatnonzero(pictures.known)
    counts = np.diff(pictures.crop_starts)
    owner = np.repeat(np.arange(len(counts)), counts)
    images = symmetries(pictures.phash[rows])[:, MIRRORED]
    found: list[npt.NDArray[Any]] = []
    # A fresh picture may be the crop or the whole.
    for some, others in ((fresh[rows], np.ones(len(owner), bool)), (~fresh[rows], fresh[owner])):
        chosen, places = rows[some], np.flatnonzero(others)
        if not len(chosen) or not len(places):
            continue
        i, c = linked_pairs(group(images[some].T.ravel()), distance + 2, apart(pictures.crops[places]))
        found.append(np.stack([chosen[i % len(chosen)], places[c], i // len(chosen)]))
    hits = np.concatenate(found, axis=1) if found else np.zeros((3, 0), np.int64)
    hits = hits[:, hits[0] != owner[hits[1]]] if len(owner) else hits
    return _in_chunks(lambda part: _windows(pictures, owner, hits[:, part], distance), hits.shape[1], CROPS_CHUNK)


def _windows(pictures: Looks, owner: Rows, hits: Rows, distance: int) -> list[npt.NDArray[Any]]:
    """Look at the part of the whole that a crop's hash is of, and at the picture that may be that crop.

    ``hits`` is int64[3, P]: the picture, the crop, and whether the picture is mirrored.
    """
    i, crop, turn = hits
    j = owner[crop]
    image = symmetries(pictures.phash[i])[np.arange(len(i)), turn]
    bits = np.bitwise_count(image ^ pictures.crops[crop]).astype(np.int64)
    # Crops of a crop are crops of the whole: hardly any two of different pictures are as near as most of these.
    shared = _nearest_crops(pictures, i, j, turn)
    surer = (bits <= distance // 2) | (shared < distance)
    whole = np.bitwise_count(image ^ pictures.phash[j])
    little = (shared <= distance + 2) & (whole <= 2 * distance)  # is cut off: the whole pictures are not far, either
    least = np.select([surer, bits < distance, little], [0.7, 0.85, 0.88], 2.0)
    windows, bands = np.array(parts_and_crops()[1][1:]), _window_operators()
    a = pictures.descriptor[i[:, None], _turned_cells()[turn]].astype(np.float32)
    place = crop - pictures.crop_starts[j]
    missing = len(windows) - (pictures.crop_starts[j + 1] - pictures.crop_starts[j])
    good = np.zeros(len(i), bool)
    # Flat crops have no hash: of a picture that lacks some, it may be any of the next crops.
    for skipped in range(int(missing.max(initial=0)) + 1):
        at = np.flatnonzero(~good & (missing >= skipped) & (least <= 1))
        down, across = windows[place[at] + skipped].T
        cells = pictures.descriptor[j[at]].astype(np.float32).reshape(-1, 8, 24)
        part = (bands[down] @ cells).reshape(-1, 8, 8, 3).transpose(0, 2, 1, 3).reshape(-1, 8, 24)
        b = (bands[across] @ part).reshape(-1, 8, 8, 3).transpose(0, 2, 1, 3).reshape(-1, 64, 3)
        light, (colour, _) = _brightness(a[at], b), _colour(a[at], b)
        # Who crops seldom paints: a shirt of another colour on the same table is another shirt.
        painted = np.abs(a[at] - b).mean(axis=(1, 2)) > PAINTED
        good[at] = (light.correlation >= least[at]) & (light.contrast >= CHANGED) & (colour <= 15) & ~painted
    good &= ~(np.fmax(pictures.entropy[i], pictures.entropy[j]) < TONES)
    low, high = np.minimum(i, j), np.maximum(i, j)
    change = np.full(len(i), CROPPED)
    return [column[good] for column in (low, high, turn, change, bits)]


def _nearest_crops(pictures: Looks, i: Rows, j: Rows, turn: Rows) -> npt.NDArray[np.int64]:
    """int64[P]: the least distance of a crop of picture ``i``, mirrored where ``turn`` is 1, and one of ``j``."""
    places = np.arange(len(parts_and_crops()[1]) - 1)
    pairs: list[Hashes] = []
    for picture, mirrored in ((i, turn == 1), (j, np.zeros(len(j), bool))):
        starts, ends = pictures.crop_starts[picture], pictures.crop_starts[picture + 1]
        # A picture without some of them has its last one several times.
        rows = np.minimum(starts[:, None] + places, np.maximum(ends - 1, 0)[:, None])
        crops = pictures.crops[rows]
        crops[mirrored] = symmetries(crops[mirrored].ravel())[:, 1].reshape(-1, len(places))
        pairs.append(crops)
    nearest = np.bitwise_count(pairs[0][:, :, None] ^ pairs[1][:, None]).min(axis=(1, 2)).astype(np.int64)
    counts = np.diff(pictures.crop_starts)
    return np.where((counts[i] > 0) & (counts[j] > 0), nearest, 64)


@dataclass(frozen=True)
class _Light:
    """How the brightness of two pictures agrees, each float32[P]."""

    correlation: Floats
    agreeing: Floats  # share of the cells that differ by less than CHANGED after gain and offset of most of them
    worst: Floats  # levels, of the cell that differs most after gain and offset of all
    contrast: Floats  # levels, standard deviation of the flatter picture


def _brightness(a: Floats, b: Floats) -> _Light:
    """[P, 64, 3] twice -> how their brightness agrees."""
    x, y = a @ BRIGHTNESS, b @ BRIGHTNESS
    x_deviation, y_deviation = x.std(axis=1) + 1e-3, y.std(axis=1) + 1e-3
    u = (x - x.mean(axis=1, keepdims=True)) / x_deviation[:, None]
    v = (y - y.mean(axis=1, keepdims=True)) / y_deviation[:, None]
    contrast = np.minimum(x_deviation, y_deviation)
    worst = (np.abs(u - v) * contrast[:, None]).max(axis=1)
    # Gain and offset of the 44 cells that fit best: what was added on top of a picture does not count.
    weight = np.ones_like(x)
    difference = x
    for _ in range(3):
        count = weight.sum(axis=1, keepdims=True)
        x_mean, y_mean = ((weight * z).sum(axis=1, keepdims=True) / count for z in (x, y))
        spread = (weight * (x - x_mean) ** 2).sum(axis=1, keepdims=True) + 1e-3
        gain = ((weight * (x - x_mean) * (y - y_mean)).sum(axis=1, keepdims=True) / spread).clip(0.4, 2.5)
        difference = np.abs(y - y_mean - gain * (x - x_mean)) / np.sqrt(gain)
        weight = (difference <= np.partition(difference, 43, axis=1)[:, 43:44]).astype(np.float32)
    return _Light((u * v).mean(axis=1), (difference <= CHANGED).mean(axis=1, dtype=np.float32), worst, contrast)


def _colour(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """[P, 64, 3] twice -> levels by which their colours differ after one cast and one saturation: (all cells, most)."""
    x, y = a @ BRIGHTNESS, b @ BRIGHTNESS
    gain = (a * b).sum(axis=1) / ((a * a).sum(axis=1) + 1e-3)
    overall = ((x * y).sum(axis=1) / ((x * x).sum(axis=1) + 1e-3) + 1e-6)[:, None]
    a = a * (overall * (gain / overall).clip(0.7, 1.45))[:, None]
    p, q = a - (a @ BRIGHTNESS)[..., None], b - y[..., None]
    p, q = p[..., ::2], q[..., ::2]  # red and blue less brightness say it all
    saturation = ((p * q).sum(axis=(1, 2)) / ((p * p).sum(axis=(1, 2)) + 1e-3)).clip(0, 2.5)
    error = ((q - saturation[:, None, None] * p) ** 2).mean(axis=2)
    return np.sqrt(error.mean(axis=1)), np.sqrt(np.partition(error, 43, axis=1)[:, :44].mean(axis=1))


@cache
def _turned_cells() -> npt.NDArray[np.int64]:
    """int64[8, 64]: which cell of a descriptor comes to which place in the k-th flip or turn."""
    cells = np.arange(64).reshape(8, 8)
    return np.stack([turned(cells, k).ravel() for k in range(SYMMETRIES)])


@cache
def _window_operators() -> Floats:
    """float32[parts, 8, 8]: for each part of a side, the eight cells of the part made of the eight of the side."""
    fine = (np.arange(256) + 0.5) / 256
    smooth = np.stack([np.interp(fine, (np.arange(8) + 0.5) / 8, row) for row in np.eye(8)], axis=1)
    operators = []
    for start, stop in parts_and_crops()[0]:
        cell = np.floor((fine - start) / (stop - start) * 8)
        weights = (cell[None] == np.arange(8)[:, None]).astype(np.float64)
        operators.append(weights / weights.sum(axis=1, keepdims=True) @ smooth)
    return np.array(operators, np.float32)
