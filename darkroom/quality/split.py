"""The training and the validation split: without leakage, and sticky over all versions of a data set.

The history of a data set has one row for each distinct picture that was ever accepted, with the side on which it was
accepted first; that side never changes. A cluster of duplicates is on the validation side as soon as one of its
pictures ever was. A picture that was trained on and whose cluster is on the validation side is withdrawn from training,
now and in every later version: it may neither be trained on beside its copies nor judge models that saw it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from darkroom.reasons import reason

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TRAIN, VALIDATION = "train", "validation"
LOOKS = ("id", "row_id", "pixels", "phash", "dhash", "crops", "descriptor")  # what later batches are compared with
HISTORY = (*LOOKS, "cluster", "side", "seed")
WITHDRAWN = "withdrawn from training"


def side(cluster: str, seed: int, validation_share: float) -> str:
    """``"train"`` or ``"validation"`` for a cluster of duplicates that has no side yet.

    The answer depends on the cluster's name, the seed and the share alone: other pictures that come or go change no
    side, and all copies of a picture are on one side. ``validation_share`` is in [0, 1).
    """
    digest = hashlib.sha256(f"{seed}:{cluster}".encode()).digest()
    return VALIDATION if int.from_bytes(digest[:8], "big") / 2**64 < validation_share else TRAIN


@dataclass(frozen=True)
class Assignment:
    """The sides of a table's rows.

    ``side`` has one entry a row, None where the row has no cluster. ``withdrawn`` gives the reason for each row, by
    position, that must leave training. ``before`` is the side on which each row's very picture, by bytes or pixels, was
    accepted before, None for one that never was: a choice among copies should keep ``"validation"`` first, so that
    nothing that came later drives out what models were judged by. ``joined`` names the clusters of the history that a
    cluster takes in under its own name, where there are any but that of the same name; :func:`extend_history` needs it.
    """

    side: "list[str | None]"
    withdrawn: dict[int, str]
    before: "list[str | None]"
    joined: dict[str, tuple[str, ...]]


def assign(
    table: "pd.DataFrame",
    names: Sequence[str | None],
    joined: Mapping[str, Sequence[str]],
    history: "pd.DataFrame | None",
    seed: int,
    share: float,
) -> Assignment:
    """The side of every row of ``table`` (columns ``id``, ``pixels``), given each row's cluster in ``names``.

    ``joined`` says which clusters of the history a cluster joins; a row whose bytes or pixels the history has joins
    that picture's cluster whatever ``joined`` says. A cluster with a side in the history keeps it; one that joins both
    sides is on the validation side; a new one gets :func:`side`. Sides that the history has under another seed do not
    count: another seed splits everything anew.
    """
    import numpy as np
    import pandas as pd

    past = history if history is not None and len(history) else pd.DataFrame(columns=list(HISTORY))
    pairs = [(name, old) for name, olds in joined.items() for old in olds]
    # Names of clusters -> numbers: the rows', the history's, then both ends of ``joined``.
    (row, old, start, end), known = _numbered(
        list(names), past["cluster"], [name for name, _ in pairs], [old for _, old in pairs]
    )
    rank = np.where(past["side"] == VALIDATION, 2, 1) * (past["seed"] == seed).to_numpy()  # 0: does not count
    now, then, own = [start, row[row >= 0]], [end, row[row >= 0]], np.zeros(len(table), dtype=np.int64)
    for column in ("id", "pixels"):
        mine, theirs = _meetings(table[column], past[column])
        now.append(row[mine][row[mine] >= 0])
        then.append(old[theirs][row[mine] >= 0])
        np.maximum.at(own, mine, rank[theirs])
    once, best = np.zeros(len(known), dtype=np.int64), np.zeros(len(known), dtype=np.int64)
    np.maximum.at(once, old, rank)
    np.maximum.at(best, np.concatenate(now), once[np.concatenate(then)])
    present = np.unique(row[row >= 0])
    for one in present[best[present] == 0]:
        best[one] = 2 if side(known[one], seed, share) == VALIDATION else 1
    found = np.where(row >= 0, best[row], 0) if len(known) else np.zeros(len(table), dtype=np.int64)
    text = reason("check", WITHDRAWN, "it is a copy of pictures that are on the validation side")
    words = np.array([None, TRAIN, VALIDATION], dtype=object)
    return Assignment(
        list(words[found]),
        {int(one): text for one in np.flatnonzero((found == 2) & (own == 1))},
        list(words[own]),
        _by_name(np.concatenate(now), np.concatenate(then), np.unique(old), known),
    )


def extend_history(
    history: "pd.DataFrame | None", accepted: "pd.DataFrame", joined: Mapping[str, Sequence[str]], seed: int
) -> "pd.DataFrame":
    """The history after a version: one row for each distinct picture (bytes and pixels) ever accepted, by id.

    ``accepted`` has the columns of a checked table; ``joined`` is that of its :class:`Assignment`. Clusters that were
    joined bear one name from now on, also where their pictures are gone. A picture keeps the side of its first version
    under this seed.
    """
    import numpy as np
    import pandas as pd

    columns = {**dict.fromkeys(HISTORY), **{name: name for name in LOOKS}}
    columns |= {"cluster": "duplicate_cluster", "side": "split"}
    known = {name: accepted.get(column) for name, column in columns.items() if column}
    fresh = pd.DataFrame(known, index=accepted.index).assign(seed=seed)
    parts = [fresh]
    if history is not None and len(history):
        past = history.reindex(columns=list(HISTORY))
        renamed = {old: name for name, olds in sorted(joined.items()) for old in olds if old != name}
        if renamed:
            past = past.assign(cluster=[renamed.get(name, name) for name in past["cluster"]])
        parts.append(past)
    both = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    ((ids,), many), ((pixels,), few) = _numbered(both["id"]), _numbered(both["pixels"])
    picture, _ = pd.factorize(ids * (len(few) + 1) + pixels)
    assert len(many) * len(few) < 2**62, "the numbers of pairs fit"
    # A picture's row is its newest, with the side of its oldest under this seed: the last in this order.
    first = np.zeros(len(both), dtype=np.int64)
    under = np.flatnonzero((both["seed"] == seed).to_numpy())
    first[picture[under]] = under
    newest = np.flatnonzero(~pd.Series(picture).duplicated().to_numpy())
    sides = both["side"].to_numpy(dtype=object)
    same_seed = (both["seed"].to_numpy()[newest]) == seed
    out = both.iloc[newest].assign(side=np.where(same_seed, sides[first[picture[newest]]], sides[newest]))
    text = dict.fromkeys((name for name in HISTORY if name != "seed"), "str")
    return out.sort_values(["id", "pixels"], ignore_index=True).astype({**text, "seed": "int64"})


def _numbered(*columns: object) -> "tuple[list[np.ndarray], np.ndarray]":
    """Texts of several columns -> their numbers (-1 for missing) in one common count, and the text of each number."""
    import pandas as pd

    parts = [pd.Series(column, dtype="str") for column in columns]
    codes, texts = pd.factorize(pd.concat(parts, ignore_index=True))
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return [codes[start:end] for start, end in pairwise(ends)], texts.to_numpy(dtype=object)


def _meetings(rows: "pd.Series", past: "pd.Series") -> "tuple[np.ndarray, np.ndarray]":
    """Positions (in ``rows``, in ``past``) of all pairs with the same text."""
    import numpy as np

    (mine, theirs), _ = _numbered(rows, past)
    order = np.argsort(theirs, kind="stable")
    low, high = np.searchsorted(theirs[order], mine, "left"), np.searchsorted(theirs[order], mine, "right")
    count = np.where(mine >= 0, high - low, 0)
    position = np.repeat(np.arange(len(mine)), count)
    within = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
    return position, order[low[position] + within]


def _by_name(
    now: "np.ndarray", then: "np.ndarray", past: "np.ndarray", known: "np.ndarray"
) -> dict[str, tuple[str, ...]]:
    """Pairs of numbers -> name: the clusters of the history that it takes in, its own name among them if it is one."""
    import numpy as np

    clusters = set(past.tolist())
    found: dict[str, set[str]] = {}
    for one, other in np.unique(np.stack([now, then])[:, now != then], axis=1).T.tolist():
        if other in clusters:
            found.setdefault(known[one], {known[one]} if one in clusters else set()).add(known[other])
    return {name: tuple(sorted(olds)) for name, olds in sorted(found.items())}
