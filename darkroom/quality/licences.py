"""Licences as sources write them, in one spelling, and whether a recipe allows them.

The spelling follows SPDX (https://spdx.org/licenses): ``CC-BY-4.0``, ``CC0-1.0``, ``MIT``, ``Apache-2.0``. Its
expressions are used where a text names several: ``MIT OR Apache-2.0`` leaves the choice, ``MIT AND
all-rights-reserved`` binds to both.
This reads texts, and is no legal advice.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from darkroom.errors import RecipeError
from darkroom.reasons import reason

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"
PUBLIC_DOMAIN = "public-domain"
RESERVED = "all-rights-reserved"
KIND = "licence not allowed"
LONGEST = 100  # characters of a licence that nobody knows
READ = 1000  # characters of a text that are read at all

_NOTHING = {"", "-", "?", "n/a", "na", "nan", "nil", "none", "null", "tbd", "unspecified", "unknown licence", "other"}
_NOTHING |= {UNKNOWN, "unknown license", "not specified", "no licence", "no license", "not provided", "undefined"}

# What Creative Commons calls the conditions of its licences, in the order of the names.
_CONDITIONS = {"nc": r"nc|non-?commercial", "nd": r"nd|no-?deriv\w*", "sa": r"sa|share-?alike"}
_ANY_CONDITION = "|".join(f"(?:{words})" for words in _CONDITIONS.values())
_CC_SHORT = re.compile(rf"\bcc-?(?:by)((?:-?(?:{_ANY_CONDITION}))*)(?:-?v?(\d(?:\.\d)?))?(?![a-z\d])")
_CC_LONG = re.compile(
    rf"\b(?:creative-commons-)?attribution((?:-?(?:{_ANY_CONDITION}))*)(?:-v?(\d(?:\.\d)?))?(?![a-z\d])"
)
_CC_ADDRESS = re.compile(r"creativecommons\.org/licen[cs]es/by((?:-(?:nc|nd|sa))*)/(\d\.\d)")

# Others: the spelling, and how a text with every space, underscore and comma made a hyphen is known to say it.
_KNOWN = tuple(
    (name, re.compile(rf"(?<![a-z\d])(?:{pattern})(?![a-z\d])"))
    for name, pattern in (
        ("CC0-1.0", r"cc-?0(?:-?v?1(?:\.0)?)?(?:-universal)?|cc-zero|creative-commons-zero|publicdomain/zero/1\.0"),
        (
            PUBLIC_DOMAIN,
            r"public-?domain(?!/zero)(?:/mark/1\.0)?|(?:cc-?)?pdm(?:-1\.0)?|cc-?pd|no-known-copyright(?:-restrictions)?",
        ),
        ("Apache-2.0", r"apache(?:-licen[cs]e)?(?:-version)?(?:-?v?2(?:\.0)?)?|apache\.org/licenses/license-2\.0"),
        ("MIT-0", r"mit-0"),
        ("MIT", r"(?:the-)?mit(?!-0)(?:-licen[cs]e)?|opensource\.org/licenses?/mit"),
        ("BSD-2-Clause", r"bsd-2(?:-clause)?|simplified-bsd"),
        ("BSD-3-Clause", r"bsd(?!-2)(?:-3)?(?:-clause)?(?:-licen[cs]e)?|new-bsd"),
        ("ODbL-1.0", r"odbl(?:-1\.0)?|open-database-licen[cs]e"),
        ("ODC-By-1.0", r"odc-by(?:-1\.0)?"),
        ("PDDL-1.0", r"pddl(?:-1\.0)?"),
        ("OGL-UK-3.0", r"ogl-uk-3\.0|open-government-licen[cs]e(?:-v?3(?:\.0)?)?"),
        ("GPL-3.0", r"gpl-?v?3(?:\.0)?(?:-only|-or-later)?"),
        ("GPL-2.0", r"gpl-?v?2(?:\.0)?(?:-only|-or-later)?"),
        ("Unsplash", r"unsplash(?:-licen[cs]e)?"),
        ("Pexels", r"pexels(?:-licen[cs]e)?"),
        ("Pixabay", r"pixabay(?:-licen[cs]e)?"),
    )
)
_RESERVED = re.compile(r"(?<!no-)(?<!not-)all-rights-reserved|proprietary|rights-managed")
_OWNED = re.compile(r"©|^\(c\)|(?<![a-z-])copyrighted|^copyright")  # stands beside open licences too
_DENIED = re.compile(r"(?:^|-)(?:not|non|no|never|except|without)(?:-(?:under|in|a|the|licensed|released))*-$")
_NO_COMMERCE = re.compile(r"(?<![a-z])non-?commercial|no-commercial|(?:research|personal)-(?:use-)?only|editorial-use")
_NO_CHANGES = re.compile(r"(?<![a-z])no-?deriv")


def normalise(text: str) -> str:
    """One spelling for every way to write a licence: ``cc by 4.0`` and its address -> ``CC-BY-4.0``.

    What a text adds after a semicolon or in brackets ("MIT (Microsoft)") is read for restrictions alone. A ported
    licence counts as its version ("by/3.0/de" -> ``CC-BY-3.0``). A text in which nothing is known comes back in lower
    case with hyphens, cut to 100 characters; an empty one, "n/a" and their like are ``unknown``.
    """
    return _normalised(text[:READ])


@lru_cache(maxsize=4096)
def _normalised(text: str) -> str:
    whole = _hyphened(text)
    if whole.replace("-", " ") in _NOTHING or whole in _NOTHING:
        return UNKNOWN
    head = _hyphened(re.split(r"[;(\[]", text, maxsplit=1)[0])
    found = _names(head) or _names(whole)
    # A restriction anywhere counts, unless the name of the licence has it already.
    extra = [RESERVED] if _RESERVED.search(whole) or (not found and _OWNED.search(whole)) else []
    if _NO_COMMERCE.search(whole) and not any("-NC" in name for name in found):
        extra.append("no-commercial-use")
    if _NO_CHANGES.search(whole) and not any("-ND" in name for name in found):
        extra.append("no-derivatives")
    if not found and not extra:
        return whole[:LONGEST]
    joined = " OR ".join(found) if re.search(r"-or-|/", _without_addresses(head)) else " AND ".join(found)
    if extra and " OR " in joined:
        joined = f"({joined})"
    return " AND ".join([*([joined] if joined else []), *extra])


def restrictions(licence: str) -> tuple[str, ...]:
    """What a licence, in any spelling, is known to forbid: of "commercial use", "changes" and "any use"."""
    choices = [_forbidden(choice) for choice in _choices(normalise(licence))]
    return min(choices, key=len, default=())  # among alternatives the freest counts


def judge(licences: "pd.Series | Sequence[object]", allowed: tuple[str, ...]) -> list[str | None]:
    """The reason to refuse each row, or None; no ``allowed`` licence allows all.

    ``allowed`` may be spelt in any way. A name without a version allows every version (``CC-BY``), and ``*`` stands for
    anything (``CC-BY*`` is CC-BY and CC-BY-SA of every version), except that NC and ND must be named to be allowed
    (``CC-BY-NC*``). Of alternatives (OR) one must be allowed, of joined licences (AND) every one. Costs one decision
    for each different licence: a million rows take tenths of a second. Raises :class:`RecipeError` for an empty name.
    """
    values = list(licences)
    if not allowed:
        return [None] * len(values)
    patterns = [_pattern(one) for one in allowed]
    decided: dict[object, str | None] = {}
    for value in dict.fromkeys(value if isinstance(value, str) else None for value in values):
        decided[value] = _refusal(value if isinstance(value, str) else "", patterns)
    return [decided[value if isinstance(value, str) else None] for value in values]


def remarks(licences: Iterable[object]) -> list[str | None]:
    """For each row a flag that names what its licence forbids, or None."""
    known: dict[object, str | None] = {}
    found = []
    for value in licences:
        value = value if isinstance(value, str) else None
        if value not in known:
            forbidden = restrictions(value) if value else ()
            detail = f"{normalise(value)} forbids {' and '.join(forbidden)}" if value and forbidden else ""
            known[value] = reason("check", "restrictive licence", detail) if detail else None
        found.append(known[value])
    return found


def _hyphened(text: str) -> str:
    plain = re.sub(r"[\s_,:–—-]+", "-", text.strip().casefold())
    return plain.strip("-.")


def _without_addresses(text: str) -> str:
    return re.sub(r"https?-?//\S+|\S+\.(?:org|com|net)/\S*", "", text)


def _names(text: str) -> list[str]:
    """The licences that a text names, in its order, each once."""
    found: list[tuple[int, int, str]] = []
    for pattern in (_CC_ADDRESS, _CC_SHORT, _CC_LONG):
        for match in pattern.finditer(text):
            parts = [name.upper() for name, words in _CONDITIONS.items() if re.search(rf"(?:{words})", match[1])]
            version = match[2] and (match[2] if "." in match[2] else f"{match[2]}.0")
            found.append((match.start(), match.end(), "-".join(["CC-BY", *parts, *([version] if version else [])])))
    for name, pattern in _KNOWN:
        found += [(match.start(), match.end(), name) for match in pattern.finditer(text)]
    found.sort(key=lambda one: (one[0], -one[1]))
    names: list[str] = []
    reached = 0
    for start, end, name in found:
        if start >= reached and not _DENIED.search(text[:start]):
            names.append(name)
            reached = end
    names = list(dict.fromkeys(names))
    # "Attribution 4.0 International (CC BY 4.0)" says one thing twice, and "CC BY (CC BY 4.0)" too.
    return [name for name in names if not any(other != name and other.startswith(f"{name}-") for other in names)]


def _choices(name: str) -> list[str]:
    """The alternatives of an expression of :func:`normalise`, each with all that it binds to."""
    match = re.fullmatch(r"\((.*)\) AND (.*)", name)
    if match:
        return [f"{choice} AND {match[2]}" for choice in match[1].split(" OR ")]
    return name.split(" OR ")


def _forbidden(name: str) -> tuple[str, ...]:
    parts = name.split(" AND ")
    found = []
    if RESERVED in parts:
        found.append("any use")
    if "no-commercial-use" in parts or any(re.match(r"CC-BY(-\w+)*-NC\b", part) for part in parts):
        found.append("commercial use")
    if "no-derivatives" in parts or any(re.match(r"CC-BY(-\w+)*-ND\b", part) for part in parts):
        found.append("changes")
    return tuple(found)


def _pattern(text: str) -> tuple[str, bool]:
    """(what a licence's name must be like, whether it names what is forbidden)."""
    if not text.strip():
        raise RecipeError("check.licences: a licence has no name; write it as 'CC-BY-4.0' or 'CC-BY*'")
    if "*" in text or "?" in text:
        pattern = _hyphened(text)
        return pattern, any(word in pattern for word in ("nc", "nd", "reserved", "no-"))
    name = normalise(text)
    return name.casefold(), bool(_forbidden(name))


def _refusal(text: str, patterns: list[tuple[str, bool]]) -> str | None:
    name = normalise(text)
    if any(all(_allowed(part, patterns) for part in choice.split(" AND ")) for choice in _choices(name)):
        return None
    if (name.casefold(), True) in patterns or (name.casefold(), False) in patterns:  # named as a whole
        return None
    written = f" (written {text.strip()[:LONGEST]!r})" if name not in (UNKNOWN, text.strip()) else ""
    return reason("check", KIND, name + written)


def _allowed(name: str, patterns: list[tuple[str, bool]]) -> bool:
    plain, restricted = name.casefold(), bool(_forbidden(name))
    bare = re.sub(r"-\d+(\.\d+)*$", "", plain)
    for pattern, means_it in patterns:
        if pattern in (plain, bare):
            return True
        if ("*" in pattern or "?" in pattern) and fnmatchcase(plain, pattern) and (means_it or not restricted):
            return True
    return False
