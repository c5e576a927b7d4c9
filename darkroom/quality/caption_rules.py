"""What is said of one caption, whatever row it stands in: its mendings, its faults, and remarks for a person."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from darkroom.recipe import Check

from . import personal
from .language import Guess, guess
from .placeholders import is_template, placeholder
from .spam import spam
from .text import LONGEST, SPACES, Cleaned, clean

# Faults that leave a row without a caption, which another source may give; every other fault refuses the row.
NO_CAPTION, PLACEHOLDER = "no caption", "placeholder caption"
ABSENT = frozenset({NO_CAPTION, PLACEHOLDER})
TOO_MANY_LOST = 0.1  # share of a text's characters that an encoding lost, from which it is refused

# Done also where check.mend has no 'text': nobody sees the difference.
INVISIBLE = frozenset({SPACES, "invisible characters removed", "characters composed"})

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


class Judge:
    """Verdicts on texts, each text judged once."""

    def __init__(self, plan: Check, language: Callable[[str], Guess] | None = guess) -> None:
        self.plan = plan
        self._language = language
        self._known: dict[str, Verdict] = {}
        self._personal: dict[str, list[str]] = {}

    def verdict(self, text: str) -> Verdict:
        """What is said of ``text``, whatever row it stands in."""
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = self._judge(text)
        return known

    def personal_data(self, label: str) -> list[str]:
        """The kinds of personal data in a label."""
        known = self._personal.get(label)
        if known is None:
            known = self._personal[label] = personal.kinds(label)
        return known

    def _judge(self, text: str) -> Verdict:
        plan = self.plan
        if len(text) > LONGEST and len(text) > plan.max_caption:
            return Verdict(_whole(text), faults=(("caption too long", self._length(text)),))
        if is_template(text):
            return Verdict(_whole(text), faults=((PLACEHOLDER, "a template that was not filled in"),))
        cleaned = clean(text)
        if not cleaned.stable:
            return Verdict(_whole(text), faults=(("unclean caption", "it cannot be cleaned"),))
        if not cleaned.text:
            return Verdict("", faults=((NO_CAPTION, _what_went(text, cleaned)),))
        faults, remarks = self._faults(cleaned.text)
        mended = cleaned.mended
        if not INVISIBLE.issuperset(mended) and "text" not in plan.mend:
            if not faults:
                faults = [("unclean caption", f"{', '.join(mended)}, were 'text' in check.mend")]
            cleaned, mended = Cleaned(_whole(text)), ()
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
        lost = len(_LOST.findall(text)) if "?" in text or "\ufffd" in text else 0
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


def _whole(text: str) -> str:
    """``text`` without halves of surrogate pairs, which no file can hold."""
    return text if text.isascii() else text.encode(errors="ignore").decode()


def _what_went(text: str, cleaned: Cleaned) -> str:
    if not text:
        return "empty"
    if _SPACED.fullmatch(text) or INVISIBLE.issuperset(cleaned.mended):
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
