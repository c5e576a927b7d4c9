"""What is mended in a text without changing what it says, and the name of each mending.

Cleaning repeats until nothing changes, so that a cleaned text is clean: an escaped tag is a tag after the first round.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from . import markup
from .personal import HANDLE

ROUNDS = 6  # more than any honest text needs
LONGEST = 10_000  # characters; a longer text is never cleaned or used, its maker may mean to cost time
SPACES = "spaces collapsed"

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9,'\"!?()\- ]++|\.(?=[ )\"']|\Z))*+")
_SPACES = re.compile(r"[\s\x1c-\x1f\x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u2800\u3000\u3164\uffa0]+")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\u206a-\u206f\ufff9-\ufffb"
    r"\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff]"
)
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u2060-\u2064\ufeff\U0001d173-\U0001d17a]"
)
_MARKS_OF_DIRECTION = re.compile(r"[\u061c\u200e\u200f]")
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc]")
# A joiner joins letters of scripts that have it, or pictographs; a selector follows what it selects a form of.
_JOINERS = re.compile(
    r"(?<![^\x00-\u058f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u058f])|(?<=[\u200c\u200d])[\u200c\u200d]"
)
_SELECTORS = re.compile(
    r"(?<![0-9#*\u00a9\u00ae\u1000-\u10ff\u1800-\u18af\u2000-\u33ff\u3400-\ufaff\U0001f000-\U0003ffff])[\ufe00-\ufe0f]"
    r"|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]|(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
)
_TAGS = re.compile(r"(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")  # but for the flags made of them
_STACKED = re.compile(r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4,}")
_STYLED = re.compile(r"[\U0001d400-\U0001d7ff]")

_ENDINGS = r"(?:com|net|org|info|biz|shop|store|online|site|example|xyz|ru|ly|gl)"
_ADDRESS = re.compile(
    r"(?:[\s,;:|–—-]*\b(?:photo|image|picture|source|link|credit|see|via|from|at|by|visit|read more(?: at)?"
    r"|more(?: at| on)?|available at|download(?:ed)?(?: from)?|here)\b\s*:?\s*)?"
    r"[<(\[]?(?:(?:\b|(?<=_))(?:https?|ftps?|file|s3|gs|data|javascript):(?://|(?=[\w/]+[;,(]))[^\s<>\[\]]*[^\s<>\[\].,;:!?)'\"]"
    r"|\bhttps?:/{0,2}(?!\S)"
    r"|\bwww\.[^\s<>]+\.[^\s<>]*[^\s<>.,;:!?)'\"]"
    r"|(?<![\w@.])(?:[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?\.){1,3}"
    + _ENDINGS
    + r"(?:/[^\s<>]*)?(?![\w@-]|\.\w))[>)\]]?",
    re.IGNORECASE,
)
_MAYBE_ADDRESS = re.compile(rf"://|https?:|www\.|[\w-]\.{_ENDINGS}|(?:data|file|s3|gs|javascript):", re.IGNORECASE)
_NETWORKS = re.compile(r"ig|inst|chat|tok|gram|twit|kik|skype", re.IGNORECASE)
_EMPTY = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}|<\s*>|(?:[\s,;:|–—-]+\Z)|(?:\A[\s,;:|–—]+)")
_LOOSE = re.compile(r" ([.,;:!?](?:\s|\Z))")
_HASHTAG = re.compile(r"#[\w\u200d]+")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_BACKSLASHED = re.compile(r"\\u[0-9a-fA-F]{4}|\\U000[0-9a-fA-F]{5}|\\x[0-9a-fA-F]{2}|\\[nrt\"'/](?!\w*[\\:])")
_TEXT_KEYS = ("caption", "text", "description", "alt", "alt_text", "prompt", "title", "en", "content", "value")


@dataclass(frozen=True)
class Cleaned:
    """A text and what was done to it; ``stable``: False when it did not come to rest and must not be used."""

    text: str
    mended: tuple[str, ...] = ()
    stable: bool = True


def clean(text: str) -> Cleaned:
    """Mend what can be mended safely, each kind named once, in the order in which it was found."""
    return Cleaned(text) if _is_plain(text) else _cleaned(text, _STEPS)


def clean_name(text: str) -> Cleaned:
    """The same for a label, which may be an address or have marks of its own."""
    return Cleaned(text) if _is_plain(text) else _cleaned(text, _STEPS_OF_NAMES)


def _is_plain(text: str) -> bool:
    """Whether no step can change the text: most captions are done with here."""
    return text[-1:] != " " and "  " not in text and _PLAIN.fullmatch(text) is not None


def _cleaned(text: str, steps: Sequence[tuple[str, Callable[[str], str]]]) -> Cleaned:
    if len(text) > LONGEST:
        return Cleaned(text, stable=False)
    original, mended = text, dict[str, None]()
    for _ in range(ROUNDS):
        before = text
        for name, step in steps:
            after = step(text)
            if after != text:
                mended[name] = None
                text = after
        if text == before:
            if _without_spaces(original) == original:
                mended.pop(SPACES, None)  # they are what another mending left
            return Cleaned(text, tuple(mended))
    return Cleaned(text, tuple(mended), stable=False)


def _without_mojibake(text: str) -> str:
    if text.isascii():
        return text
    import ftfy

    return ftfy.fix_encoding(text, _ftfy_config())


def _ftfy_config() -> Any:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", text) if "\x1b" in text else text)


def _without_invisible(text: str) -> str:
    if text.isascii():
        return text
    for pattern in (_INVISIBLE, _JOINERS, _SELECTORS, _TAGS):
        text = pattern.sub("", text)
    return text if _RIGHT_TO_LEFT.search(text) else _MARKS_OF_DIRECTION.sub("", text)


def _unstacked(text: str) -> str:
    return text if text.isascii() else _STACKED.sub("", text)


def _unstyled(text: str) -> str:
    if text.isascii():
        return text
    return _STYLED.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _without_spaces(text: str) -> str:
    return _SPACES.sub(" ", text).strip(" ")


def _without_tags(text: str) -> str:
    return markup.without_tags(text) if markup.has_tags(text) else text


def _without_escapes(text: str) -> str:
    """``a%20red%20car`` and ``caf\\u00e9`` as the characters that they stand for."""
    if "%" in text and " " not in text and _PERCENT.search(text) and "://" not in text:
        text = unquote(text, errors="replace")
    if "\\" in text and ":\\" not in text and not text.startswith(("\\", "..\\", ".\\")) and " " in text:
        text = _BACKSLASHED.sub(_unescape, text)
    return text


def _unescape(found: "re.Match[str]") -> str:
    code = found.group()
    if code[1] in "uUx":
        character = chr(int(code[2:], 16)) if int(code[2:], 16) < 0x110000 else "\ufffd"
        return "\ufffd" if "\ud800" <= character <= "\udfff" else character
    return {"n": " ", "r": " ", "t": " "}.get(code[1], code[1])


def _out_of_data(text: str) -> str:
    """The text of ``{"caption": "a cat"}``, ``["a cat"]`` and ``"a cat"``, where there is exactly one to take."""
    if not (text[:1] + text[-1:] in ("{}", "[]", '""') and len(text) > 2):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):
        found = [value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str)]
        value = found[0] if found else None
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = value[0] if len(value) == 1 else ", ".join(value) if all(len(one) < 40 for one in value) else None
    return value if isinstance(value, str) else text


def _without_addresses(text: str) -> str:
    if not _MAYBE_ADDRESS.search(text):
        return text
    return _tidied(text, _ADDRESS.sub(" ", text))


def _without_handles(text: str) -> str:
    if "@" not in text and not ((":" in text or "=" in text) and _NETWORKS.search(text)):
        return text
    return _tidied(text, HANDLE.sub(" ", text))


def _without_hashtags(text: str) -> str:
    """A wall of three hashtags or more at the end, where something stands before it."""
    if "#" not in text:
        return text
    words = text.split()
    kept = len(words)
    while kept and _HASHTAG.fullmatch(words[kept - 1]):
        kept -= 1
    return " ".join(words[:kept]) if kept and len(words) - kept >= 3 else text


def _tidied(before: str, after: str) -> str:
    """``after`` without the empty brackets and loose marks that a removal leaves behind."""
    if after == before:
        return before
    tidy = _EMPTY.sub("", _EMPTY.sub("", _without_spaces(after)))
    return _without_spaces(_LOOSE.sub(r"\1", tidy))


# Broken encodings come first: what repairs them reads the control characters that come next.
_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("mojibake repaired", _without_mojibake),
    ("control characters removed", _without_controls),
    ("invisible characters removed", _without_invisible),
    ("styled letters made plain", _unstyled),
    ("stacked marks removed", _unstacked),
    ("characters composed", _composed),
    ("taken out of JSON", _out_of_data),
    ("escapes decoded", _without_escapes),
    ("markup removed", _without_tags),
    ("entities decoded", markup.entities),
    ("marks of formatting removed", markup.without_marks),
    ("address removed", _without_addresses),
    ("handle removed", _without_handles),
    ("hashtags removed", _without_hashtags),
    (SPACES, _without_spaces),
)
_STEPS_OF_NAMES = tuple(
    (name, step)
    for name, step in _STEPS
    if step not in (_out_of_data, _without_escapes, markup.without_marks, _without_addresses, _without_handles)
)
