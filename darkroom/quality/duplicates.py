"""Duplicates: the same file, the same pixels in another file, and near copies; clusters of them and the copy to keep.

A cluster is all that is linked by copies: it is on one side of the split. Within it a row is refused only as the copy
of a row that is kept, never because a chain of other rows leads to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from darkroom.reasons import reason
from darkroom.recipe import Check

from .likeness import CHANGES, SAME, TURNS, Likeness, Looks, copies, looks

if TYPE_CHECKING:
    import pandas as pd

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LOSSLESS = {"PNG", "BMP", "TIFF"}
AS_LARGE = 1.25  # files whose sizes differ by less hold about as much
ENLARGED = 1.3  # times the pixels in about as many bytes
SHOWN_LABELS = 5


@dataclass(frozen=True)
class Clusters:
    """Duplicates of a table of N rows; rows are positions in it."""

    name: list[str | None]  # [N]: the cluster's name; None for rows without pixels
    joined: dict[str, tuple[str, ...]]  # cluster -> the history's clusters that it joins, sorted
    kept: npt.NDArray[np.bool_]  # [N]: usable, and not refused as a copy
    reasons: list[list[str]]  # [N]: why refused as a copy; only of usable rows
    flags: list[list[str]]  # [N]: remarks on rows that have copies
    pairs: "pd.DataFrame"  # left, right (row numbers, left the better copy), kind, distance (bits of pHash)


def find(table: "pd.DataFrame", usable: Flags, plan: Check, history: "pd.DataFrame | None" = None) -> Clusters:
    """Cluster the rows of ``table`` and choose which copies to keep among the ``usable`` ones (bool[N]).

    ``table`` has the manifest's columns row_id, id, path, pixels, phash, dhash, crops, descriptor, entropy, width,
    height, bytes, format, caption and label; ``history`` has id, pixels, phash, dhash, crops, descriptor and cluster of
    every accepted picture, also of those that are gone, and row_id if known. Rows that the history knows are not
    compared among themselves again. The result depends on no order of rows.

    A cluster's name is the smallest of the history's clusters that it joins, else the smallest ``pixels`` of its
    members. Kept is, of the copies: what was accepted before, then the best by :func:`_better_first`. A picture whose
    copies are all gone from the table is the picture coming back, and kept. Rows that are not usable link no clusters.
    """
    known = _History(history)
    pictures = _pictures(table, known)
    usable = np.asarray(usable, bool)
    sound = pictures.before.copy()
    sound[pictures.of_row[usable & (pictures.of_row >= 0)]] = True
    near = copies(pictures.looks, ~pictures.before, plan.near_distance) if plan.near_duplicates else _none()
    component = _components(pictures, near, sound)
    better = _better_first(table, usable, np.append(component, -1)[pictures.of_row], known)
    best = _first_of(better, pictures.of_row, pictures.count)  # the best row of each picture, -1 if there is none
    names, joined = _names(pictures, component, known)
    keeper, copy_kind = _keepers(near, pictures, best, better, usable, table, known)
    kept, reasons, groups = _refusals(table["path"].tolist(), pictures.of_row, usable, best, keeper, copy_kind)
    present = set(_take(names, pictures.of_row))
    return Clusters(
        name=_take(names, pictures.of_row),
        joined={name: clusters for name, clusters in joined.items() if name in present},
        kept=kept,
        reasons=reasons,
        flags=_flags(table, groups),
        pairs=_pairs(table, pictures.of_row, best, better, near),
    )


class _History:
    """The columns of the accepted pictures, empty where there is no history."""

    def __init__(self, history: "pd.DataFrame | None") -> None:
        self.table = history
        self.size = 0 if history is None else len(history)
        self.ids = {value for value in self.column("id") if isinstance(value, str)}
        self.rows = {value for value in self.column("row_id") if isinstance(value, str)}

    def column(self, name: str) -> list[Any]:
        if self.table is None or name not in self.table.columns:
            return [None] * self.size
        return list(self.table[name].tolist())


@dataclass(frozen=True)
class _Pictures:
    """Distinct pictures by their pixels, in ascending order; names of the history's clusters count as pixels, too."""

    names: list[str]
    of_row: Rows  # [N]: the picture of each row of the table, -1 without pixels
    before: Flags  # known to the history
    links: tuple[Rows, Rows]  # pairs of pictures that are in one cluster whatever they look like
    clusters: Rows  # pictures that stand for a cluster of the history
    looks: Looks

    @property
    def count(self) -> int:
        return len(self.names)


def _pictures(table: "pd.DataFrame", known: _History) -> _Pictures:
    """Gather what the table and the history say of each picture."""
    import pandas as pd

    rows = len(table)
    texts = [*table["pixels"].tolist(), *known.column("pixels"), *known.column("cluster")]
    codes, names = _codes(texts, sort=True)
    of_row, of_known, of_cluster = np.split(codes, [rows, rows + known.size])
    count = len(names)
    # Rows of one file are one picture, also where another working side gave it other pixels.
    files, _ = _codes([*table["id"].tolist(), *known.column("id")])
    owners = np.concatenate([of_row, of_known])
    sure = (owners >= 0) & (files >= 0)
    first_owner = np.zeros(int(files.max(initial=-1)) + 1, np.int64)
    first_owner[files[sure][::-1]] = owners[sure][::-1]
    linked = (of_known >= 0) & (of_cluster >= 0)
    left = np.concatenate([owners[sure], of_known[linked]])
    right = np.concatenate([first_owner[files[sure]], of_cluster[linked]])
    before = np.zeros(count, bool)
    before[of_known[of_known >= 0]] = True
    old_files = np.zeros(len(first_owner), bool)
    old_files[files[rows:][files[rows:] >= 0]] = True
    again = np.flatnonzero((of_row >= 0) & (files[:rows] >= 0))
    before[of_row[again[old_files[files[again]]]]] = True
    # What a picture looks like follows from its pixels, so the first row that has them will do.
    source = np.full(count, -1, np.int64)
    given = np.flatnonzero(owners >= 0)[::-1]
    source[owners[given]] = given
    columns = [[*table[name].tolist(), *known.column(name)] for name in ("phash", "dhash", "crops", "descriptor")]
    entropy: npt.NDArray[np.float64] = np.append(
        np.concatenate([pd.to_numeric(table["entropy"], errors="coerce").to_numpy(float), np.full(known.size, np.nan)]),
        np.nan,
    )
    phash, dhash, crops, descriptor = (
        [column[place] if place >= 0 else None for place in source] for column in columns
    )
    seen = looks(phash, dhash, crops, descriptor, entropy[source])
    return _Pictures(names, of_row, before, (left, right), np.unique(of_cluster[of_cluster >= 0]), seen)


def _codes(texts: list[Any], sort: bool = False) -> tuple[Rows, list[str]]:
    """(a number for each text, equal for equal ones and -1 for what is no text; the texts by number)."""
    import pandas as pd

    kept = pd.Index([text if isinstance(text, str) else None for text in texts], dtype="str")
    codes, names = pd.factorize(kept, sort=sort)
    return np.asarray(codes, np.int64), names.tolist()


def _none() -> Likeness:
    nothing = np.zeros(0, np.int64)
    return Likeness(nothing, nothing, nothing, nothing, nothing)


def _better_first(table: "pd.DataFrame", usable: Flags, cluster: Rows, known: _History) -> Rows:
    """int64[N]: the rows, the better copy first; says nothing about rows of different clusters (int64[N], -1: none).

    Usable before others and accepted before new ones; then those that hold about as many bytes as the cluster's
    largest, for what was compressed again or made smaller holds fewer; of these, what has many more pixels in no more
    bytes last, for it was enlarged; then the most pixels, a lossless format, one with a caption, the shorter path
    (copies are called "photo (1).jpg"), the first by path.
    """
    import pandas as pd

    def numbers(name: str) -> npt.NDArray[np.float64]:
        return pd.to_numeric(table[name], errors="coerce").fillna(0).to_numpy(float)

    def extreme(values: npt.NDArray[np.float64], of: Flags, start: float, ufunc: np.ufunc) -> npt.NDArray[np.float64]:
        found = np.full(int(cluster.max(initial=-1)) + 2, start)
        ufunc.at(found, cluster[of], values[of])
        return np.asarray(found[cluster])

    captioned = np.array([isinstance(caption, str) and bool(caption.strip()) for caption in table["caption"]], bool)
    lossless = table["format"].isin(LOSSLESS).to_numpy(bool)
    pixels, size = numbers("width") * numbers("height"), numbers("bytes")
    # A lossless file counts as what the least compressed other one would take at its size.
    lossy = ~lossless & (cluster >= 0)
    size = np.where(lossless, pixels * extreme(size / np.maximum(pixels, 1), lossy, 0.0, np.maximum), size)
    fewer = size * AS_LARGE < extreme(size, cluster >= 0, 0.0, np.maximum)
    enlarged = pixels > ENLARGED * extreme(pixels, ~fewer & (cluster >= 0), np.inf, np.minimum)
    paths = [str(path) for path in table["path"].tolist()]
    by_row = _codes([str(row) for row in table["row_id"].tolist()], sort=True)[0]
    by_path = _codes(paths, sort=True)[0]
    length = np.array([len(path) for path in paths], np.int64)
    return np.lexsort(
        [by_row, by_path, length, ~captioned, ~lossless, -pixels, enlarged, fewer, ~_accepted(table, known), ~usable]
    )


def _accepted(table: "pd.DataFrame", known: _History) -> Flags:
    """Rows that were accepted before: by row where the history names rows, else by file."""
    if known.rows:
        same = zip(table["row_id"].tolist(), table["id"].tolist(), strict=True)
        return np.array([row in known.rows and file in known.ids for row, file in same], bool)
    return np.array([file in known.ids for file in table["id"].tolist()], bool)


def _first_of(order: Rows, group: Rows, count: int) -> Rows:
    """The first row in ``order`` of every group, -1 for groups without."""
    first = np.full(count, -1, np.int64)
    backwards = order[::-1]
    backwards = backwards[group[backwards] >= 0]
    first[group[backwards]] = backwards
    return first


def _components(pictures: _Pictures, near: Likeness, sound: Flags) -> Rows:
    """Which pictures are linked; one that is not sound is linked to the nearest sound one, and links nothing itself."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = sound[near.i] & sound[near.j]
    left = np.concatenate([pictures.links[0], near.i[both]])
    right = np.concatenate([pictures.links[1], near.j[both]])
    one = sound[near.i] != sound[near.j]
    outer = np.where(sound[near.i], near.j, near.i)[one]
    inner = np.where(sound[near.i], near.i, near.j)[one]
    order = np.lexsort((inner, near.distance[one]))
    nearest = np.full(pictures.count, -1, np.int64)
    nearest[outer[order][::-1]] = inner[order][::-1]
    attached = np.flatnonzero(nearest >= 0)
    left, right = np.append(left, attached), np.append(right, nearest[attached])
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(pictures.count, pictures.count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _names(pictures: _Pictures, component: Rows, known: _History) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """(the name of each picture's cluster, the history's clusters that each cluster joins)."""
    smallest = np.full(pictures.count, pictures.count, np.int64)  # pictures are in the order of their names
    np.minimum.at(smallest, component, np.arange(pictures.count))
    if known.size:
        persisted = np.full(pictures.count, pictures.count, np.int64)
        np.minimum.at(persisted, component[pictures.clusters], pictures.clusters)
        smallest = np.where(persisted < pictures.count, persisted, smallest)
    joined: dict[str, list[str]] = {}
    for cluster in pictures.clusters.tolist():
        joined.setdefault(pictures.names[smallest[component[cluster]]], []).append(pictures.names[cluster])
    named = smallest[component].tolist()
    return [pictures.names[one] for one in named], {name: tuple(clusters) for name, clusters in joined.items()}


def _take(names: Sequence[str], places: Rows) -> list[str | None]:
    return [names[place] if place >= 0 else None for place in places.tolist()]


def _keepers(
    near: Likeness,
    pictures: _Pictures,
    best: Rows,
    better: Rows,
    usable: Flags,
    table: "pd.DataFrame",
    known: _History,
) -> tuple[dict[int, int], dict[int, str]]:
    """({picture: the kept picture that it is a near copy of}, {picture: how it was changed})."""
    rank = np.empty(len(better), np.int64)
    rank[better] = np.arange(len(better))
    here = best >= 0
    here[here] = usable[best[here]]
    accepted = np.zeros(pictures.count, bool)
    accepted[here] = _accepted(table, known)[best[here]]
    edges = np.flatnonzero(here[near.i] & here[near.j])
    neighbours: dict[int, list[tuple[int, int]]] = {}
    for edge, i, j in zip(edges.tolist(), near.i[edges].tolist(), near.j[edges].tolist(), strict=True):
        neighbours.setdefault(i, []).append((j, edge))
        neighbours.setdefault(j, []).append((i, edge))
    keeper: dict[int, int] = {}
    kind: dict[int, str] = {}
    for picture in sorted(neighbours, key=lambda one: int(rank[best[one]])):
        if picture in keeper:
            continue
        for other, edge in neighbours[picture]:
            if other not in keeper and not accepted[other] and rank[best[other]] > rank[best[picture]]:
                keeper[other], kind[other] = picture, _words(near, edge)
    return keeper, kind


def _words(near: Likeness, edge: int) -> str:
    """How a near copy was changed: ``"mirrored, cropped"``."""
    turn, change = TURNS[near.turn[edge]], int(near.change[edge])
    return ", ".join(part for part in (turn, CHANGES[change] if change != SAME or not turn else "") if part)


def _refusals(
    paths: list[Any], of_row: Rows, usable: Flags, best: Rows, keeper: dict[int, int], kind: dict[int, str]
) -> tuple[Flags, list[list[str]], dict[int, list[int]]]:
    """(kept rows, reasons of the others, {kept row: it and its copies})."""
    kept = usable.copy()
    reasons: list[list[str]] = [[] for _ in paths]
    groups: dict[int, list[int]] = {}
    copied = np.zeros(len(best), bool)
    copied[list(keeper)] = True
    suspects = np.flatnonzero(usable & (of_row >= 0))
    of_suspect = of_row[suspects]
    suspects = suspects[(best[of_suspect] != suspects) | copied[of_suspect]]
    for row, picture in zip(suspects.tolist(), of_row[suspects].tolist(), strict=True):
        original = int(best[keeper.get(picture, picture)])
        kept[row] = False
        groups.setdefault(original, [original]).append(row)
        if picture in keeper:
            reasons[row].append(reason("check", "near duplicate", f"of {paths[original]}, {kind[picture]}"))
        else:
            reasons[row].append(reason("check", "duplicate", f"of {paths[original]}"))
    return kept, reasons, groups


def _flags(table: "pd.DataFrame", groups: dict[int, list[int]]) -> list[list[str]]:
    """Remarks on kept rows and their copies that do not agree."""
    flags: list[list[str]] = [[] for _ in range(len(table))]
    labels, captions = table["label"].tolist(), table["caption"].tolist()
    for rows in groups.values():
        named = sorted({str(labels[row]) for row in rows if _is_given(labels[row])})
        if len(named) > 1:
            shown = ", ".join(repr(name[:60]) for name in named[:SHOWN_LABELS])
            more = f" and {len(named) - SHOWN_LABELS} more" if len(named) > SHOWN_LABELS else ""
            for row in rows:
                flags[row].append(reason("check", "labels differ within duplicates", shown + more))
        told = {" ".join(captions[row].split()).casefold() for row in rows if _is_given(captions[row])}
        if len(told) > 1:
            for row in rows:
                flags[row].append(reason("check", "captions differ within duplicates", f"{len(told)} captions"))
    return flags


def _is_given(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _pairs(table: "pd.DataFrame", of_row: Rows, best: Rows, better: Rows, near: Likeness) -> "pd.DataFrame":
    """All pairs of copies within the table, for people to look at: equal ones with the best of their picture."""
    import pandas as pd

    rank = np.empty(len(better), np.int64)
    rank[better] = np.arange(len(better))
    twins = np.flatnonzero(of_row >= 0)
    twins = twins[best[of_row[twins]] != twins]
    ids = table["id"].tolist()
    originals = best[of_row[twins]]
    left, right = originals.tolist(), twins.tolist()
    kinds = ["same file" if ids[one] == ids[other] else "same pixels" for one, other in zip(left, right, strict=True)]
    edges = np.flatnonzero((best[near.i] >= 0) & (best[near.j] >= 0))
    one, other = best[near.i[edges]], best[near.j[edges]]
    swap = rank[one] > rank[other]
    left += np.where(swap, other, one).tolist()
    right += np.where(swap, one, other).tolist()
    kinds += [_words(near, edge) for edge in edges.tolist()]
    found = pd.DataFrame(
        {
            "left": np.array(left, np.int64),
            "right": np.array(right, np.int64),
            "kind": pd.Series(kinds, dtype="str"),
            "distance": np.concatenate([np.zeros(len(twins), np.int64), near.distance[edges]]),
        }
    )
    order = np.lexsort((rank[right], rank[left])) if right else np.zeros(0, np.int64)
    return found.iloc[order].reset_index(drop=True)
