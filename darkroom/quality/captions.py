"""The captions of a table: mended where that is safe, refused where it is not, remarked on where a person should look.

Work is done once for each distinct text and for each distinct row, and no result depends on the order of rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from darkroom.reasons import reason
from darkroom.recipe import Check

from .caption_rules import NO_CAPTION, PLACEHOLDER, Judge, Verdict
from .labels import LABELLED, Label, at_odds, judge_labels, odd_styles, words_of
from .language import Guess, guess
from .origins import large_origins, out_of_place, stray_labels
from .placeholders import is_file_name, squeezed
from .text import LONGEST

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
Tokens = Callable[[list[str]], list[int]]
Captioner = Callable[[list[str]], dict[str, str]]

ABOVE_PICTURES = 20  # a caption's share says nothing of fewer


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

    Where the table has ``origin``, those are compared too (see :mod:`.origins`).
    ``tokens`` counts a text's tokens for the encoder (see :func:`tokens_of`). ``captions_by_model`` gives captions by
    the pictures' ids; it is asked only for rows that nothing else gives one and nothing else refused. ``language`` None
    leaves languages out. ``progress`` is told (distinct captions judged, distinct captions in all).
    """
    import pandas as pd

    judge = Judge(plan, language)
    captions = _texts(table["caption"])
    tails = _judge_all(judge, captions, progress)
    origins = _texts(table["origin"]) if "origin" in table else [None] * len(table)
    large = set(large_origins(origins))
    columns = (_texts(table[name]) for name in ("sidecar", "label", "path"))
    keys = [
        _Key(
            caption,
            sidecar,
            label,
            caption is not None and _is_named_after(caption, tails[caption], path),
            origin if origin in large else None,
        )
        for caption, origin, sidecar, label, path in zip(captions, origins, *columns, strict=True)
    ]
    labels = judge_labels(Counter(key.label for key in keys if key.label is not None))
    rows = {key: _decide(judge, key, labels) for key in dict.fromkeys(keys)}
    if captions_by_model is not None and "model" in plan.mend:
        keys = _ask_model(keys, rows, table, captions_by_model)
        rows = {key: rows.get(key) or _decide(judge, key, labels) for key in dict.fromkeys(keys)}
    rows = {key: _settled(row, plan) for key, row in rows.items()}
    counts = _count_tokens(rows.values(), tokens)
    _remark(rows, Counter(keys), counts, plan)
    said = [rows[key] for key in keys]
    frame = pd.DataFrame(
        {
            "caption": pd.Series([row.text for row in said], dtype="str"),
            "caption_source": pd.Series([row.source for row in said], dtype="str"),
            "mended": pd.Series([[*row.mended, *row.label.mended] for row in said], dtype=object),
            "label": pd.Series([row.label.label for row in said], dtype="str"),
            "caption_words": pd.Series([row.words for row in said], dtype="int64"),
            "caption_tokens": pd.Series([counts.get(row.text) if row.text else None for row in said], dtype="Int64"),
            "caption_language": pd.Series([row.language for row in said], dtype="str"),
        }
    ).set_axis(table.index)
    reasons = {key: [reason("check", kind, detail) for kind, detail in row.faults] for key, row in rows.items()}
    flags = {key: [reason("check", *one) for one in dict.fromkeys(row.remarks)] for key, row in rows.items()}
    return Captions(frame, [[*reasons[key]] for key in keys], [[*flags[key]] for key in keys])


def tokens_of(tokenizer_folder: Path) -> Tokens:
    """Counts tokens as the text encoder will see them, the marks of start and end included and nothing cut off.

    ``tokenizer_folder`` holds the tokenizer, at its top or in ``tokenizer/``.
    """
    from tokenizers import Tokenizer

    inner = tokenizer_folder / "tokenizer"
    folder = inner if inner.is_dir() else tokenizer_folder
    backend: Any
    if (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:  # vocabulary and merges alone, as older repositories have them; transformers takes seconds to import
        from transformers import AutoTokenizer

        whole: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        backend = getattr(whole, "backend_tokenizer", None)
        if backend is None:  # one that is written in Python, or SentencePiece's
            return lambda texts: list(map(len, whole(texts, truncation=False, padding=False)["input_ids"]))
    backend.no_truncation()
    backend.no_padding()

    def count(texts: list[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(texts), 10_000):
            found += [len(one.ids) for one in backend.encode_batch_fast(texts[start : start + 10_000])]
        return found

    return count


class _Key(NamedTuple):
    """All that the verdict on a row depends on: rows that are equal in it are judged once."""

    caption: str | None
    sidecar: str | None
    label: str | None
    named_after: bool  # the caption has the letters of the file's name
    origin: str | None  # where it is one of the large ones
    by_model: str | None = None


@dataclass
class _Row:
    """What is said of a row; ``pending``: the captioning model is to be asked."""

    text: str | None
    source: str
    label: Label
    mended: tuple[str, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    remarks: list[tuple[str, str]] = field(default_factory=list)
    language: str | None = None
    words: int = 0
    pending: bool = False


def _texts(column: Iterable[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


def _judge_all(judge: Judge, captions: Sequence[str | None], progress: Progress) -> dict[str, str]:
    """Judge each distinct caption; for each its last letter in small, None where it cannot be a file's name."""
    distinct = dict.fromkeys(text for text in captions if text is not None)
    tails: dict[str, str] = {}
    for done, text in enumerate(distinct, start=1):
        verdict = judge.verdict(text)
        tails[text] = "" if verdict.faults else squeezed(verdict.text[-40:])[-3:]
        if done % 1000 == 0 or done == len(distinct):
            progress(done, len(distinct))
    return tails


def _is_named_after(caption: str, tail: str, path: str | None) -> bool:
    """Whether the caption is the file's name but for separators and case; ``tail``: its last letters, to be quick."""
    if not tail or path is None or (tail[-1] not in path and tail[-1] not in path.casefold()):
        return False
    stem = PurePosixPath(path.replace("\\", "/")).stem
    return squeezed(stem).endswith(tail) and squeezed(caption) == squeezed(stem)


def _decide(judge: Judge, key: _Key, labels: dict[str, Label]) -> _Row:
    """The caption of a row: its own, or the first that check.mend gives."""
    label = labels[key.label] if key.label is not None else Label(None)
    own = judge.verdict(key.caption) if key.caption is not None else Verdict("", faults=((NO_CAPTION, ""),))
    if key.named_after and is_file_name(own.text):
        own = Verdict(own.text, own.mended, ((PLACEHOLDER, "its own file's name"),))
    if not own.absent:
        row = _row(own, "source", label)
        if not own.faults:
            row.remarks += _doubts(judge, key, own)
        return _with_faults_of_label(row, key, judge)
    tried: list[str] = []
    for source, text in _candidates(judge.plan, key, label):
        verdict = judge.verdict(text)
        if not verdict.faults:
            row = _row(verdict, source, label)
            row.mended = (*verdict.mended, f"from the {_NAMES.get(source, source)}")
            return _with_faults_of_label(row, key, judge)
        tried.append(f"{source}: {verdict.faults[0][0]}")
    row = _row(own, "source" if own.text else "none", label)
    if tried:
        kind, detail = own.faults[0]
        row.faults = ((kind, "; ".join([*([detail] if detail else []), *tried])),)
    row.pending = "model" in judge.plan.mend and key.by_model is None
    return _with_faults_of_label(row, key, judge)


_NAMES = {"model": "captioning model"}


def _doubts(judge: Judge, key: _Key, own: Verdict) -> Iterator[tuple[str, str]]:
    if key.named_after:
        yield "suspicious caption", "it is its own file's name"
    if key.sidecar is not None and key.sidecar != key.caption:
        other = judge.verdict(key.sidecar)
        if not other.faults and other.text != own.text:
            yield "caption and sidecar differ", "the caption is used"


def _with_faults_of_label(row: _Row, key: _Key, judge: Judge) -> _Row:
    if key.label is not None and (kinds := judge.personal_data(key.label)):
        row.faults = (*row.faults, ("personal data in label", ", ".join(kinds)))
    return row


def _row(verdict: Verdict, source: str, label: Label) -> _Row:
    return _Row(
        verdict.text, source, label, verdict.mended, verdict.faults, [*verdict.remarks], verdict.language, verdict.words
    )


def _candidates(plan: Check, key: _Key, label: Label) -> Iterator[tuple[str, str]]:
    """(source, text) of what may stand in for a missing caption, in the order of check.mend."""
    for way in plan.mend:
        if way == "sidecar" and key.sidecar is not None:
            yield "sidecar", key.sidecar
        elif way == "label" and label.label is not None:
            yield "label", words_of(label.label)
        elif way == "template" and label.label is not None:
            yield "template", plan.template.replace("{label}", words_of(label.label))
        elif way == "model" and key.by_model is not None:
            yield "model", key.by_model


def _ask_model(keys: list[_Key], rows: dict[_Key, _Row], table: "pd.DataFrame", captioner: Captioner) -> list[_Key]:
    """The keys with what the captioning model wrote; it is not asked for pictures that are refused already."""
    refused = [len(before) > 0 for before in table["reasons"]]
    ids = _texts(table["id"])
    wanted = {
        place: picture
        for place, (key, picture) in enumerate(zip(keys, ids, strict=True))
        if rows[key].pending and picture is not None and not refused[place]
    }
    found = captioner(sorted(set(wanted.values()))) if wanted else {}
    return [
        key._replace(by_model=found[wanted[place]]) if wanted.get(place) in found else key
        for place, key in enumerate(keys)
    ]


def _settled(row: _Row, plan: Check) -> _Row:
    """Where captions are optional, a row goes without rather than being refused for its own."""
    of_label = tuple(one for one in row.faults if one[0] == "personal data in label")
    if len(row.faults) == len(of_label):
        return row
    if plan.captions == "required":
        row.text = row.text or None
        row.source = row.source if row.text else "none"
        return row
    remarks = [one for one in row.faults if one not in of_label]
    return _Row(None, "none", row.label, faults=of_label, remarks=remarks)


def _count_tokens(rows: Iterable[_Row], tokens: Tokens | None) -> dict[str | None, int]:
    if tokens is None:
        return {}
    distinct = list(dict.fromkeys(row.text for row in rows if row.text is not None and len(row.text) <= LONGEST))
    return dict(zip(distinct, tokens(distinct), strict=True)) if distinct else {}


def _remark(rows: dict[_Key, _Row], times: "Counter[_Key]", counts: dict[str | None, int], plan: Check) -> None:
    """Add the remarks that need more than one row, and those on lengths and labels; ``times``: rows of each key."""
    usable: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    labelled = 0
    for key, row in rows.items():
        labelled += times[key] * (row.label.label is not None)
        if row.text is not None and not row.faults:
            usable[row.text] += times[key]
            if row.label.label is not None and row.source in ("source", "sidecar"):
                pairs[row.text, row.label.label] += times[key]
    total = usable.total()
    most = plan.max_repeats * total if total > ABOVE_PICTURES else total
    odd = at_odds(pairs)
    foreign, stray, unlike = _by_origin(rows, times)
    expected = labelled and labelled >= LABELLED * times.total()
    for key, row in rows.items():
        if row.text is not None and key.origin is not None and (other := foreign.get((row.text, key.origin))):
            row.remarks.append(("caption out of place", f"it reads like those of {other}, not of {key.origin}"))
        if (
            row.label.label is not None
            and key.origin is not None
            and (other := stray.get((row.label.label, key.origin)))
        ):
            row.remarks.append(("label out of place", f"{row.label.label} is a label of {other}, not of {key.origin}"))
        if row.label.label is not None and (how := unlike.get((row.label.label, key.origin))):
            row.remarks.append(("label unlike the others", f"{row.label.label} is {how}"))
        if row.text is not None and not row.faults and usable[row.text] > most:
            share = f"{usable[row.text] / total:.0%} of {total:,} pictures have it"
            row.remarks.append(("caption repeated", f"{share}, check.max_repeats = {plan.max_repeats:g}"))
        if row.text is not None and counts.get(row.text, 0) > plan.max_tokens:
            detail = f"{counts[row.text]} tokens, check.max_tokens = {plan.max_tokens}"
            row.remarks.append(("caption cut by the encoder", detail))
        if row.label.label is None:
            if expected:
                row.remarks.append(("label missing", "most pictures have one"))
        elif row.label.perhaps is not None:
            row.remarks.append(("label looks misspelt", f"{row.label.label}; perhaps {row.label.perhaps}"))
        if row.text is not None and row.label.label is not None and (row.text, row.label.label) in odd:
            row.remarks.append(("caption without its label", f"it does not name {row.label.label}, as others do"))


def _by_origin(
    rows: dict[_Key, _Row], times: "Counter[_Key]"
) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str], dict[tuple[str, str | None], str]]:
    """Captions and labels that another origin is likelier to have, and labels unlike the others of their own."""
    captions: Counter[tuple[str, str]] = Counter()
    labels: Counter[tuple[str, str]] = Counter()
    styled: Counter[tuple[str, str | None]] = Counter()
    for key, row in rows.items():
        if key.origin is not None and row.text is not None and not row.faults and row.source in ("source", "sidecar"):
            captions[row.text, key.origin] += times[key]
        if key.origin is not None and row.label.label is not None:
            labels[row.label.label, key.origin] += times[key]
        if row.label.label is not None:
            styled[row.label.label, key.origin] += times[key]
    foreign, stray = (out_of_place(captions), stray_labels(labels)) if captions else ({}, {})
    return foreign, stray, odd_styles(styled)
