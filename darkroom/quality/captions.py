"""The captions of a table: mended where that is safe, refused where it is not, remarked on where a person should look.

Work is done once for each distinct text, and every verdict on a text follows from that text and the recipe alone.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from darkroom.reasons import reason
from darkroom.recipe import Check

from . import personal
from .labels import LABELLED, Label, at_odds, judge_labels, words_of
from .language import Guess, guess
from .placeholders import is_file_name, is_template, placeholder, squeezed
from .spam import spam
from .text import LONGEST, Cleaned, clean

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
Tokens = Callable[[list[str]], list[int]]
Captioner = Callable[[list[str]], dict[str, str]]

# Faults that leave a row without a caption, which another source may give; every other fault refuses the row.
NO_CAPTION, PLACEHOLDER = "no caption", "placeholder caption"
ABSENT = frozenset({NO_CAPTION, PLACEHOLDER})
ABOVE_PICTURES = 20  # a caption's share says nothing of fewer
TOO_MANY_LOST = 0.1  # share of a text's characters that an encoding lost, from which it is refused

_SPACED = re.compile(r"\s*")
_LOST = re.compile(r"\ufffd|(?<=\?)\?|\?(?=\?)")
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\u3040-\u30ff\u3400-\u9fff]+(?:['’-]\w+)*"
)
_MIXED = re.compile(r"[a-z][\u0400-\u04ff\u0370-\u03ff]|[\u0400-\u04ff\u0370-\u03ff][a-z]", re.IGNORECASE)
_ANGLES = re.compile(r"<[^<>]{1,60}>")


@dataclass(frozen=True)
class Verdict:
    """What is said of one text: ``text`` would be the row's caption; each of ``faults`` (kind, detail) refuses it."""

    text: str
    mended: tuple[str, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()
    language: str | None = None
    words: int = 0

    @property
    def absent(self) -> bool:
        """Whether there is no caption at all, so that another source may give one."""
        return bool(self.faults) and self.faults[0][0] in ABSENT


@dataclass(frozen=True)
class Captions:
    """Aligned with the table that was judged: ``frame``, and for each row why it is refused and what is remarked on.

    ``frame`` has ``caption``, ``caption_source`` (source, sidecar, label, template, model or none), ``mended`` (lists),
    ``label``, ``caption_words``, ``caption_tokens`` (missing without a tokenizer) and ``caption_language``. A refused
    row keeps its cleaned text, for a person may release it; a row that may go without a caption (check.captions =
    "optional") loses what is refused, and is not refused for it.
    """

    frame: "pd.DataFrame"
    reasons: list[list[str]]
    flags: list[list[str]]


def judge_captions(
    table: "pd.DataFrame",
    plan: Check,
    tokens: Tokens | None = None,
    captions_by_model: Captioner | None = None,
    language: Callable[[str], Guess] | None = guess,
    progress: Progress = lambda done, total: None,
) -> Captions:
    """Judge and mend the captions and labels of a manifest's table: its id, path, caption, label, sidecar, reasons.

    ``tokens`` counts a text's tokens for the encoder (see :func:`tokens_of`). ``captions_by_model`` gives captions by
    the pictures' ids; it is asked only for rows that nothing else gives one and nothing else refused. ``language`` None
    leaves languages out. ``progress`` is told (distinct captions judged, distinct captions in all).
    """
    import pandas as pd

    written = _texts(table["caption"])
    labels, label_reasons = _labels(_texts(table["label"]))
    paths = [path if isinstance(path, str) else "" for path in table["path"]]
    sidecars = _texts(table["sidecar"]) if "sidecar" in table else [None] * len(table)
    judge = Judge(plan, language)
    distinct = dict.fromkeys(text for text in written if text is not None)
    for done, text in enumerate(distinct, start=1):
        judge.verdict(text)
        if done % 1000 == 0 or done == len(distinct):
            progress(done, len(distinct))
    rows = [
        _first(judge, caption, sidecar, label.label, path)
        for caption, sidecar, label, path in zip(written, sidecars, labels, paths, strict=True)
    ]
    if captions_by_model is not None and "model" in plan.mend:
        _ask_model(rows, table, judge, captions_by_model)
    result = [_settled(row, plan) for row in rows]
    counts = _count_tokens([row.text for row in result if row.text is not None], tokens)
    _remark_on_rows(result, labels, counts, plan)
    mended = [[*row.mended, *label.mended] for row, label in zip(result, labels, strict=True)]
    frame = pd.DataFrame(
        {
            "caption": pd.Series([row.text for row in result], dtype="str"),
            "caption_source": pd.Series([row.source for row in result], dtype="str"),
            "mended": pd.Series(mended, dtype=object),
            "label": pd.Series([label.label for label in labels], dtype="str"),
            "caption_words": pd.Series([row.words for row in result], dtype="int64"),
            "caption_tokens": pd.Series([counts.get(row.text) if row.text else None for row in result], dtype="Int64"),
            "caption_language": pd.Series([row.language for row in result], dtype="str"),
        }
    ).set_axis(table.index)  # fmt: skip
    reasons = [
        [*(reason("check", kind, detail) for kind, detail in row.faults), *more]
        for row, more in zip(result, label_reasons, strict=True)
    ]
    flags = [list(dict.fromkeys(reason("check", kind, detail) for kind, detail in row.remarks)) for row in result]
    return Captions(frame, reasons, flags)


def tokens_of(tokenizer_folder: Path) -> Tokens:
    """Counts tokens as the text encoder will see them, the marks of start and end included and nothing cut off.

    ``tokenizer_folder`` holds a CLIP tokenizer, at its top or in ``tokenizer/``.
    """
    from transformers import CLIPTokenizer

    inner = tokenizer_folder / "tokenizer"
    reader: Any = CLIPTokenizer.from_pretrained(inner if inner.is_dir() else tokenizer_folder)
    backend = reader.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def count(texts: list[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(texts), 10_000):
            found += [len(one.ids) for one in backend.encode_batch_fast(texts[start : start + 10_000])]
        return found

    return count


class Judge:
    """Verdicts on texts, each text judged once."""

    def __init__(self, plan: Check, language: Callable[[str], Guess] | None = guess) -> None:
        self.plan = plan
        self._language = language
        self._known: dict[str, Verdict] = {}

    def verdict(self, text: str) -> Verdict:
        """What is said of ``text``, whatever row it stands in."""
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = self._judge(text)
        return known

    def _judge(self, text: str) -> Verdict:
        plan = self.plan
        if len(text) > LONGEST and len(text) > plan.max_caption:
            return Verdict(text, faults=(("caption too long", self._length(text)),))
        if is_template(text):
            return Verdict(text, faults=((PLACEHOLDER, "a template that was not filled in"),))
        cleaned = clean(text)
        if not cleaned.stable:
            return Verdict(text, faults=(("unclean caption", "it cannot be cleaned"),))
        if not cleaned.text:
            return Verdict("", faults=((NO_CAPTION, _what_went(text, cleaned)),))
        faults, remarks = self._faults(cleaned.text)
        mended = cleaned.mended
        if mended and "text" not in plan.mend:
            if not faults:
                faults = [("unclean caption", f"{', '.join(mended)}, were 'text' in check.mend")]
            cleaned, mended = Cleaned(text), ()
        found = Guess(None) if self._language is None or faults else self._language(cleaned.text)
        if plan.languages and found.is_none_of(plan.languages):
            name = found.language or "its letters are none of theirs"
            faults = [("language not allowed", f"{name}; check.languages = {', '.join(plan.languages)}")]
        if "handle removed" in mended:
            remarks.append(("personal data removed", "a person's name on a social network"))
        return Verdict(
            cleaned.text, mended, tuple(faults), tuple(remarks), found.language, len(_WORD.findall(cleaned.text))
        )

    def _faults(self, text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """(why a cleaned text is refused; what is to be remarked on)."""
        if kinds := personal.kinds(text):  # before all else, so that no other detail repeats it
            return [("personal data in caption", ", ".join(kinds))], []
        if (why := placeholder(text)) is not None:
            return [(PLACEHOLDER, why)], []
        if _is_data(text):
            return [("caption is data", "JSON, a table's line or a program's value, not a sentence")], []
        lost = len(_LOST.findall(text))
        if lost > TOO_MANY_LOST * len(text):
            return [("garbled caption", f"{lost} of {len(text)} characters were lost to a wrong encoding")], []
        refused, suspicions = spam(text)
        if refused is not None:
            return [("spam in caption", refused)], []
        if len(text) > self.plan.max_caption:
            return [("caption too long", self._length(text))], []
        if "\ufffd" in text:
            suspicions.append("characters lost to a wrong encoding")
        if not text.isascii() and _MIXED.search(text):
            suspicions.append("letters of two alphabets in one word")
        if "<" in text and _ANGLES.search(text):
            suspicions.append("a word in angle brackets")
        if not any(character.isalnum() for character in text):
            suspicions.append("no letters, only symbols")
        return [], [("suspicious caption", one) for one in suspicions]

    def _length(self, text: str) -> str:
        return f"{len(text):,} characters, check.max_caption = {self.plan.max_caption:,}"


@dataclass
class _Row:
    """A row on its way: the best verdict yet, where from, and what was said of captions that were not used."""

    text: str | None
    source: str
    mended: tuple[str, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    remarks: list[tuple[str, str]] = field(default_factory=list)
    language: str | None = None
    words: int = 0
    absent: bool = False
    pending: bool = False  # the model is to be asked


def _texts(column: Iterable[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


def _what_went(text: str, cleaned: Cleaned) -> str:
    if not text:
        return "empty"
    if _SPACED.fullmatch(text) or set(cleaned.mended) <= {"spaces collapsed", "invisible characters removed"}:
        return "only white space"
    return f"nothing is left: {', '.join(cleaned.mended)}"


def _is_data(text: str) -> bool:
    """A serialised object, and not words in brackets."""
    ends = text[:1] + text[-1:]
    if ends in ("{}", "[]") and re.search(r"[\"']\s*[:,]|:\s*[\"'\[{]", text):
        return True
    return (
        ends in ("b'", 'b"')
        or (text[:2] in ("b'", 'b"') and text[-1] == text[1])
        or text.startswith(("{\\rtf", "%PDF-"))
    )


def _first(judge: Judge, caption: str | None, sidecar: str | None, label: str | None, path: str) -> _Row:
    """The caption of a row: its own, or the first that check.mend gives."""
    own = judge.verdict(caption) if caption is not None else Verdict("", faults=((NO_CAPTION, ""),))
    named_by_file = False
    if not own.faults and own.text and path and squeezed_tail(own.text) in path.casefold():
        stem = PurePosixPath(path.replace("\\", "/")).stem
        if squeezed(own.text) == squeezed(stem):
            named_by_file = True
            if is_file_name(own.text):
                own = Verdict(own.text, own.mended, ((PLACEHOLDER, "its own file's name"),))
    if not own.absent:
        row = _row(own, "source")
        if named_by_file:
            row.remarks.append(("suspicious caption", "it is its own file's name"))
        if sidecar is not None and sidecar.strip() and caption is not None and not own.faults:
            _compare(judge, row, sidecar)
        return row
    tried: list[str] = []
    for source, text in _candidates(judge.plan, sidecar, label):
        verdict = judge.verdict(text)
        if not verdict.faults:
            row = _row(verdict, source)
            row.mended = (*verdict.mended, f"from the {source}")
            return row
        tried.append(f"{source}: {verdict.faults[0][0]}")
    row = _row(own, "source" if own.text else "none")
    if tried:
        kind, detail = own.faults[0]
        row.faults = ((kind, "; ".join([*([detail] if detail else []), *tried])),)
    row.pending = "model" in judge.plan.mend
    return row


def squeezed_tail(text: str) -> str:
    """The last letters or digits of a text in lower case: where they are not in a path, the text is not its name."""
    tail = text[-12:].casefold()
    end = len(tail)
    while end and not tail[end - 1].isalnum():
        end -= 1
    return tail[max(0, end - 1) : end]


def _row(verdict: Verdict, source: str) -> _Row:
    return _Row(
        verdict.text, source, verdict.mended, verdict.faults, list(verdict.remarks), verdict.language, verdict.words,
        verdict.absent,
    )  # fmt: skip


def _compare(judge: Judge, row: _Row, sidecar: str) -> None:
    other = judge.verdict(sidecar)
    if not other.faults and other.text != row.text:
        row.remarks.append(("caption and sidecar differ", "the caption is used"))


def _candidates(plan: Check, sidecar: str | None, label: str | None) -> Iterable[tuple[str, str]]:
    """(source, text) of what may stand in for a missing caption, in the order of check.mend up to the model."""
    for way in plan.mend:
        if way == "sidecar" and sidecar is not None:
            yield "sidecar", sidecar
        elif way == "label" and label is not None:
            yield "label", words_of(label)
        elif way == "template" and label is not None:
            yield "template", plan.template.replace("{label}", words_of(label))


def _ask_model(rows: list[_Row], table: "pd.DataFrame", judge: Judge, captioner: Captioner) -> None:
    """Have the captioning model write what is missing, for pictures that are not refused already."""
    refused = [bool(len(before)) for before in table["reasons"]] if "reasons" in table else [False] * len(rows)
    ids = [picture if isinstance(picture, str) else None for picture in table["id"]]
    wanted = [place for place, row in enumerate(rows) if row.pending and not refused[place] and ids[place] is not None]
    if not wanted:
        return
    found = captioner(sorted({str(ids[place]) for place in wanted}))
    for place in wanted:
        text = found.get(str(ids[place]))
        if text is None:
            continue
        verdict = judge.verdict(text)
        if not verdict.faults:
            row = rows[place] = _row(verdict, "model")
            row.mended = (*verdict.mended, "from the captioning model")


def _settled(row: _Row, plan: Check) -> _Row:
    """Where captions are optional, a row goes without rather than being refused."""
    if not row.faults:
        return row
    if plan.captions == "required":
        row.text = row.text or None
        row.source = row.source if row.text else "none"
        return row
    return _Row(None, "none", remarks=list(row.faults))


def _labels(written: Sequence[str | None]) -> tuple[list[Label], list[list[str]]]:
    """Each row's label, and why a label refuses its row."""
    judged = judge_labels(Counter(label for label in written if label is not None))
    unnamed = Label(None)
    personal_ones = {label: kinds for label in judged if (kinds := personal.kinds(label))}
    labels = [unnamed if label is None else judged[label] for label in written]
    reasons = [
        [reason("check", "personal data in label", ", ".join(personal_ones[label]))] if label in personal_ones else []
        for label in written
    ]
    return labels, reasons


def _count_tokens(texts: list[str], tokens: Tokens | None) -> dict[str | None, int]:
    if tokens is None:
        return {}
    distinct = list(dict.fromkeys(text for text in texts if len(text) <= LONGEST))
    return dict(zip(distinct, tokens(distinct), strict=True))


def _remark_on_rows(rows: list[_Row], labels: list[Label], counts: dict[str | None, int], plan: Check) -> None:
    """Remarks that need more than one row, and those on lengths and labels."""
    usable = Counter(row.text for row in rows if row.text is not None and not row.faults)
    total = usable.total()
    pairs = Counter(
        (row.text, label.label)
        for row, label in zip(rows, labels, strict=True)
        if row.text is not None and label.label is not None and not row.faults and row.source in ("source", "sidecar")
    )
    odd = at_odds(pairs)
    repeated = {
        text: count / total
        for text, count in usable.items()
        if total > ABOVE_PICTURES and count > plan.max_repeats * total
    }
    labelled = sum(label.label is not None for label in labels)
    expected = labelled and labelled >= LABELLED * len(labels)
    for row, label in zip(rows, labels, strict=True):
        if row.text in repeated and not row.faults:
            share = f"{repeated[row.text]:.0%} of {total:,} pictures have it, check.max_repeats = {plan.max_repeats:g}"
            row.remarks.append(("caption repeated", share))
        if row.text is not None and counts.get(row.text, 0) > plan.max_tokens:
            detail = f"{counts[row.text]} tokens, check.max_tokens = {plan.max_tokens}"
            row.remarks.append(("caption cut by the encoder", detail))
        if label.label is None:
            if expected:
                row.remarks.append(("label missing", "most pictures have one"))
            continue
        if label.perhaps is not None:
            row.remarks.append(("label looks misspelt", f"{label.label}; perhaps {label.perhaps}"))
        if (row.text, label.label) in odd:
            row.remarks.append(("caption without its label", f"it does not name {label.label}, as others do"))
