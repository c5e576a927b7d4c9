"""The language of a caption, as far as so short a text tells.

Letters come first: hangul is Korean, kana Japanese, and no statistics are needed. Latin captions with English's small
words are English. The rest is judged by py3langid (M. Lui and T. Baldwin, langid.py: An Off-the-shelf Language
Identification Tool, 2012) among languages that captions are often in. It depends on the text alone.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from .patterns import word_list

# From here on a language is recorded. Of 844 captions of four real sets, all English, none was given another language;
# of 1,000 lists of names of things, often Latin ones, 7 were; of 27 short sentences in 13 languages 21 were, rightly.
RECORDED = 0.7
# From here on a language that is not allowed refuses a caption, if it also has so many words and letters.
CERTAIN, CERTAIN_WORDS, CERTAIN_LETTERS = 0.95, 4, 16
SHORTEST = 10  # letters; py3langid's word on less is not taken, nor on a single word of Latin letters

_LATIN = (
    "en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "is", "pl", "cs", "sk", "sl", "hr", "hu", "ro",
    "tr", "id", "vi", "tl", "ca", "eu", "gl", "et", "lv", "lt", "sq", "cy", "ga", "af", "sw", "eo", "az",
)  # fmt: skip
# Script: its letters, and the languages that are written in it; a script of one language decides.
_SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kana": (r"\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f", ("ja",)),
    "hangul": (r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af", ("ko",)),
    "han": (r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", ("zh", "ja", "ko")),
    "cyrillic": (r"\u0400-\u052f", ("ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "mn", "tg", "tt", "ba")),
    "arabic": (
        r"\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefe",
        ("ar", "fa", "ur", "ps", "ug", "ku"),
    ),
    "devanagari": (r"\u0900-\u097f", ("hi", "mr", "ne", "sa")),
    "greek": (r"\u0370-\u03ff\u1f00-\u1fff", ("el",)),
    "hebrew": (r"\u0590-\u05ff", ("he",)),
    "thai": (r"\u0e00-\u0e7f", ("th",)),
    "lao": (r"\u0e80-\u0eff", ("lo",)),
    "khmer": (r"\u1780-\u17ff", ("km",)),
    "burmese": (r"\u1000-\u109f", ("my",)),
    "tibetan": (r"\u0f00-\u0fff", ("dz",)),
    "ethiopic": (r"\u1200-\u137f", ("am",)),
    "armenian": (r"\u0530-\u058f", ("hy",)),
    "georgian": (r"\u10a0-\u10ff", ("ka",)),
    "bengali": (r"\u0980-\u09ff", ("bn", "as")),
    "gurmukhi": (r"\u0a00-\u0a7f", ("pa",)),
    "gujarati": (r"\u0a80-\u0aff", ("gu",)),
    "oriya": (r"\u0b00-\u0b7f", ("or",)),
    "tamil": (r"\u0b80-\u0bff", ("ta",)),
    "telugu": (r"\u0c00-\u0c7f", ("te",)),
    "kannada": (r"\u0c80-\u0cff", ("kn",)),
    "malayalam": (r"\u0d00-\u0d7f", ("ml",)),
    "sinhala": (r"\u0d80-\u0dff", ("si",)),
}
_LETTERS = {name: re.compile(f"[{letters}]") for name, (letters, _) in _SCRIPTS.items()}
_LATIN_LETTER = re.compile(r"[A-Za-zªºÀ-ÖØ-öø-ʯḀ-ỿ]")
_WORD = re.compile(r"[^\W\d_]+")

_QUOTES = str.maketrans("‘’“”–—…", "''\"\"--.")

_ENGLISH = word_list(
    "the and with of from this that are by at his their its while near behind holding wearing sitting standing"
)
_ENGLISH_TOO = word_list("a an in on is to for")
_FOREIGN = word_list(
    """der die das und ist mit auf ein eine im von le la les un une des et dans avec sur de du el los las con del y en
    il di che gli het een van op ett och av og af er det den som til i o e do da dos uma com na no em az egy és se je
    w z"""
)


@dataclass(frozen=True)
class Guess:
    """``language`` in two letters (three where there are none), or None; ``possible``: None is any."""

    language: str | None
    certain: bool = False
    possible: tuple[str, ...] | None = None

    def is_none_of(self, allowed: Collection[str]) -> bool:
        """Whether the text is surely in none of the ``allowed`` languages: what may refuse a caption."""
        plain = {one.lower().replace("_", "-").split("-")[0] for one in allowed}
        if self.possible is not None and not plain & set(self.possible):
            return True
        return self.certain and self.language not in plain


def guess(text: str) -> Guess:
    """The language of ``text``: None where it is too short or too mixed to tell."""
    plain = text if text.isascii() else text.translate(_QUOTES)
    if not plain.isascii():
        script = _script(plain)
        if script is not None:
            return _by_script(plain, script)
    words = [word for word in _WORD.findall(plain.lower()) if len(word) < 40]
    letters = sum(map(len, words))
    if plain.isascii():
        known = set(words)
        strong = len(known & _ENGLISH)
        if strong and strong + len(known & _ENGLISH_TOO) >= 2 and not known & _FOREIGN:
            return Guess("en", certain=len(words) >= CERTAIN_WORDS)
    if letters < SHORTEST or len(words) < 2:
        return Guess(None)
    return _by_statistics(plain, words, letters, _LATIN)


def _script(text: str) -> str | None:
    """The script that is not Latin and has at least half of the letters; None: Latin, or a mixture."""
    counts = {name: len(letters.findall(text)) for name, letters in _LETTERS.items()}
    counts["han"] *= 3  # one of these is about a word
    if counts["kana"]:
        counts["kana"] += counts.pop("han")
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] and counts[best] >= len(_LATIN_LETTER.findall(text)) else None


def _by_script(text: str, script: str) -> Guess:
    languages = _SCRIPTS[script][1]
    if script == "han":
        return Guess("zh", possible=languages)
    if len(languages) == 1:
        return Guess(languages[0], certain=True, possible=languages)
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    if letters < SHORTEST:
        return Guess(None, possible=languages)
    found = _by_statistics(text, words, letters, languages)
    return Guess(found.language, found.certain, languages)


def _by_statistics(text: str, words: list[str], letters: int, languages: tuple[str, ...]) -> Guess:
    language, probability = _identifier(languages).classify(text[:400])
    if probability < RECORDED:
        return Guess(None)
    enough = len(words) >= CERTAIN_WORDS and letters >= CERTAIN_LETTERS
    return Guess(language, certain=probability >= CERTAIN and enough)


@cache
def _identifier(languages: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([language for language in languages if language in identifier.labels])
    return identifier
