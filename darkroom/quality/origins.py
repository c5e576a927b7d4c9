"""Captions and labels that seem to belong to pictures of another origin: what a shifted or shuffled table shows.

Where a table was put together of several data sets, each has words and labels of its own. A caption that the others
would far rather have written, by naive Bayes over its words with all rows of the same caption left out, is remarked on.
"""

import re
from collections import Counter
from collections.abc import Iterable

FEWEST_ROWS = 20  # of an origin; smaller ones are left alone
MOST_ORIGINS = 8  # the largest
FEWEST_WORDS = 3
ODDS = 9.0  # natural logarithm of how much likelier another origin is: 8,000 times
SHARED_LABELS = (
    0.05  # share of an origin's rows with labels that another has, above which the two have labels in common
)

_WORD = re.compile(r"[^\W_]+")


def large_origins(origins: Iterable[str | None]) -> list[str]:
    """The origins that captions are compared between: none, unless there are two with enough rows."""
    counts = Counter(origin for origin in origins if origin is not None)
    large = sorted((origin for origin in counts if counts[origin] >= FEWEST_ROWS), key=lambda one: (-counts[one], one))
    return large[:MOST_ORIGINS] if len(large) > 1 else []


def out_of_place(captions: "Counter[tuple[str, str]]") -> dict[tuple[str, str], str]:
    """(caption, origin) -> the other origin whose captions it reads like; ``captions`` counts rows."""
    import numpy as np

    origins = sorted({origin for _, origin in captions})
    place = {origin: column for column, origin in enumerate(origins)}
    same: dict[str, np.ndarray] = {}  # caption -> rows of each origin, [origins]
    for (caption, origin), count in captions.items():
        same.setdefault(caption, np.zeros(len(origins)))[place[origin]] += count
    words = {caption: sorted(set(_WORD.findall(caption.casefold()))) for caption in same}
    index: dict[str, int] = {}
    for caption in sorted(words):
        for word in words[caption]:
            index.setdefault(word, len(index))
    having = np.zeros((len(index), len(origins)))  # rows of each origin with each word
    for caption, its in words.items():
        having[[index[word] for word in its]] += same[caption]
    rows = np.array(sum(same.values(), np.zeros(len(origins))))
    found: dict[tuple[str, str], str] = {}
    for caption, origin in captions:
        its = words[caption]
        if len(its) < FEWEST_WORDS:
            continue
        left = having[[index[word] for word in its]] - same[caption]  # [words, origins], without this caption's rows
        likelihood = (np.log(left + 0.5) - np.log(rows - same[caption] + 1)).sum(axis=0)
        own = place[origin]
        best = int(np.argmax(likelihood))
        if likelihood[best] - likelihood[own] > ODDS:
            found[caption, origin] = origins[best]
    return found


def stray_labels(labels: "Counter[tuple[str, str]]") -> dict[tuple[str, str], str]:
    """(label, origin) -> the origin that the label belongs to, where the two have hardly any labels in common."""
    of_origin: dict[str, Counter[str]] = {}
    for (label, origin), count in labels.items():
        of_origin.setdefault(origin, Counter())[label] += count
    found: dict[tuple[str, str], str] = {}
    for origin, own in sorted(of_origin.items()):
        for other, theirs in sorted(of_origin.items()):
            shared = own.keys() & theirs.keys()
            if other == origin or not shared:
                continue
            if sum(own[label] for label in shared) > SHARED_LABELS * own.total():
                continue
            for label in shared:
                # The label is at home where it has the larger share.
                if own[label] * theirs.total() < theirs[label] * own.total():
                    found.setdefault((label, origin), other)
    return found
