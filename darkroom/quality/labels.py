"""Labels: the same label written in two ways is made one; what looks misspelt, missing or at odds is remarked on.

Only case, spaces, hyphens and underscores are mended, always towards the commonest way of writing; letters never are,
since "shirts" and "shorts" are one letter apart.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .patterns import word_list
from .text import clean_name

# How values that are missing are spelled by programs; "other" and "background" are classes.
_NOTHING = word_list("nan n/a na none null nil nat undefined unlabeled unlabelled #n/a <na> missing - -- ? . todo tbd")
_SEPARATORS = re.compile(r"[\s_-]+")
_WORD = re.compile(r"[^\W_]+")
FREQUENT = 5  # pictures, and
TIMES = 10  # times as many as the rare label has: only then is the rare one taken for a slip
LONGEST_NAME = 6  # words of a label that is looked for in captions
AGREEING = 0.9  # share of a label's captions that name it, from which one that does not is remarked on
LABELLED = 0.5  # share of the rows with labels, from which a row without one is remarked on
CONFORMING = 0.95  # share of an origin's rows whose labels are written one way, from which
RARE = 0.5  # a label written another way is remarked on that has fewer than so many times the mean label's rows
CONVENTION = (20, 5)  # rows and labels, in which such a way can be seen at all


@dataclass(frozen=True)
class Label:
    """What became of one label as it was written; ``label`` None: it says nothing."""

    label: str | None
    mended: tuple[str, ...] = ()
    perhaps: str | None = None


def judge_labels(counts: "Counter[str]") -> dict[str, Label]:
    """Labels as written, each with how many rows have it -> what each is to be.

    Depends on the counts alone, not on any order.
    """
    plain = {written: clean_name(written) for written in counts}
    spellings: dict[str, Counter[str]] = {}
    for written, cleaned in plain.items():
        if cleaned.text and cleaned.text.casefold() not in _NOTHING and cleaned.stable:
            spellings.setdefault(_key(cleaned.text), Counter())[cleaned.text] += counts[written]
    # Of equally common ways to write it the first in the alphabet.
    chosen = {key: min(ways, key=lambda way: (-ways[way], way)) for key, ways in spellings.items()}
    totals = Counter({chosen[key]: sum(ways.values()) for key, ways in spellings.items()})
    slips = misspellings(totals)
    found: dict[str, Label] = {}
    for written, cleaned in plain.items():
        key = _key(cleaned.text)
        if key not in chosen or cleaned.text.casefold() in _NOTHING or not cleaned.stable:
            found[written] = Label(None, ("label removed",) if written else ())
            continue
        label = chosen[key]
        mended = ("label cleaned",) if cleaned.text != written else ()
        if label != cleaned.text:
            mended = (*mended, "label's spelling unified")
        found[written] = Label(label, mended, slips.get(label))
    return found


def _key(label: str) -> str:
    return _SEPARATORS.sub(" ", label.casefold()).strip() or label


def words_of(label: str) -> str:
    """A label as words: "Arla-Ecological-Milk" and "red_car" have spaces, "t-shirt" keeps its hyphen."""
    text = label.replace("_", " ")
    parts = text.split("-")
    if (
        len(parts) > 1
        and all(part[:1].isupper() or part[:1].isdigit() for part in parts)
        and any(map(str.istitle, parts))
    ):
        text = " ".join(parts)
    return " ".join(text.split())


def misspellings(totals: "Counter[str]") -> dict[str, str]:
    """Rare label -> the frequent one that it may be meant for: one edit away, two from eight letters on.

    An edit is a letter added, left out, changed, or swapped with its neighbour (F. Damerau, 1964). Candidates are found
    by deletions (W. Garbe's SymSpell), so that no pairs are tried. Digits must agree: "class 1" is not "class 2".
    """
    least = min(totals.values(), default=0)
    frequent = {label: count for label, count in totals.items() if count >= max(FREQUENT, TIMES * least)}
    near: dict[str, list[str]] = {}
    for label in frequent:
        for cut in _deletions(label.casefold(), _allowed(label)):
            near.setdefault(cut, []).append(label)
    found: dict[str, str] = {}
    for label, count in totals.items() if frequent else ():
        plain = label.casefold()
        options = {
            other
            for cut in _deletions(plain, _allowed(label))
            for other in near.get(cut, ())
            if frequent[other] >= TIMES * count and _digits(other) == _digits(label)
            and distance(plain, other.casefold()) <= min(_allowed(label), _allowed(other))
        }  # fmt: skip
        options.discard(label)
        if options:
            found[label] = min(options, key=lambda other: (distance(plain, other.casefold()), -frequent[other], other))
    return found


def _allowed(label: str) -> int:
    return 0 if len(label) < 4 or len(label) > 40 else 1 if len(label) < 8 else 2


def _digits(label: str) -> str:
    return "".join(character for character in label if character.isdecimal())


def _deletions(text: str, most: int) -> Iterator[str]:
    yield text
    if most:
        cuts = {text[:place] + text[place + 1 :] for place in range(len(text))}
        yield from cuts
        if most > 1:
            yield from {cut[:place] + cut[place + 1 :] for cut in cuts for place in range(len(cut))}


def distance(one: str, other: str) -> int:
    """Edits between two short texts, neighbours swapped counting as one (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        this = [row]
        for column, against in enumerate(other, start=1):
            cost = min(last[column] + 1, this[column - 1] + 1, last[column - 1] + (letter != against))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == against:
                cost = min(cost, before[column - 2] + 1)
            this.append(cost)
        before, last = last, this
    return last[-1]


def at_odds(pairs: "Counter[tuple[str, str]]") -> set[tuple[str, str]]:
    """Those (caption, label) pairs that do not seem to belong together, by the other pairs; ``pairs`` counts rows.

    The caption does not name its label (a label is named when all its words are in the caption, plural or not), and
    nearly all captions of that label do; or it names another label of two words or more.
    """
    named = {pair: _names(*pair) for pair in pairs}
    others = {words for _, label in pairs if 2 <= len(words := tuple(_words(words_of(label)))) <= LONGEST_NAME}
    starts = {words[0] for words in others}
    of_label: Counter[str] = Counter()
    naming: Counter[str] = Counter()
    for (caption, label), count in pairs.items():
        of_label[label] += count
        naming[label] += count * named[caption, label]
    return {
        pair
        for pair, is_named in named.items()
        if not is_named
        and (
            (of_label[pair[1]] >= FREQUENT and naming[pair[1]] >= AGREEING * of_label[pair[1]])
            or (others and _has_any(pair[0], others, starts))
        )
    }


def odd_styles(labels: "Counter[tuple[str, str | None]]") -> dict[tuple[str, str | None], str]:
    """(label, origin) -> how it is written and how nearly all others of the origin are; ``labels`` counts rows.

    Whoever names classes keeps to one way of writing. A rare label in capitals among many in lower case, or a number
    among words, has come from another list or by a slip of a program. Names of their own ("Shiba Inu" among breeds) are
    written so, too, which is why a label with its share of the rows is left alone, and why this is a remark.
    """
    ways: dict[str | None, dict[str, Counter[str]]] = {}
    for (label, origin), count in labels.items():
        ways.setdefault(origin, {}).setdefault(_style(label), Counter())[label] += count
    found: dict[tuple[str, str | None], str] = {}
    for origin, styles in ways.items():
        rows, names = sum(one.total() for one in styles.values()), sum(map(len, styles.values()))
        usual = max(sorted(styles), key=lambda style: styles[style].total())
        share = styles[usual].total() / rows
        if rows < CONVENTION[0] or len(styles[usual]) < CONVENTION[1] or share < CONFORMING:
            continue
        for style, counts in styles.items():
            for label, count in counts.items():
                if style != usual and count < RARE * rows / names:
                    found[label, origin] = f"{style}, where {share:.0%} of the labels are {usual}"
    return found


def _style(label: str) -> str:
    if not any(map(str.isalpha, label)):
        return "without letters"
    if not any(letter.isupper() or letter.islower() for letter in label):
        return "in a script without capitals"
    return "in lower case" if label.islower() else "in capitals" if label.isupper() else "with capitals"


def _has_any(caption: str, names: set[tuple[str, ...]], starts: set[str]) -> bool:
    words = _words(caption)
    return any(
        tuple(words[at : at + span]) in names
        for at, word in enumerate(words)
        if word in starts
        for span in range(2, LONGEST_NAME + 1)
    )


def _names(caption: str, label: str) -> bool:
    plain = caption.casefold()
    return all(word.rstrip("s") in plain for word in _words(label))


def _words(label: str) -> Sequence[str]:
    return _WORD.findall(label.casefold())
