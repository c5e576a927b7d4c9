"""Markup in captions: HTML and XML read by a parser, Markdown, BBCode and wiki text by their marks.

What is left is the text that a reader would have seen. A word in angle brackets that is no tag stays: "a photo of
<sks> dog" is how textual inversion writes (R. Gal et al., An Image is Worth One Word, 2022).
"""

import html
import re
from html.parser import HTMLParser

from .patterns import word_list

_NAMES = word_list(
    """a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink blockquote body br
    button canvas center cite code col colgroup datalist dd del details dfn dialog dir div dl dt em embed fieldset
    figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img
    input ins kbd legend li link main map mark marquee math menu meta meter nav noframes noscript ol optgroup
    option output p param picture pre progress q rp rt ruby s samp script section select small source span strike
    strong style sub summary sup svg table tbody td template textarea tfoot th thead time tr track tt u ul var
    video wbr xml caption title label object data"""
)
# Also HTML's, but alone they are somebody's "put the label here".
_ALSO_PLACEHOLDERS = frozenset({"caption", "title", "label", "object", "data"})
_INLINE = word_list(
    """a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark q s samp small span strike strong sub sup
    time tt u var wbr"""
)
_DROPPED = word_list("script style template noscript iframe object svg math button head select")
# A tag: closing, of a known name, with attributes or a name space; or an opening cut off at the end of the text.
_TAG = re.compile(
    r"</[a-z][\w:.-]*\s*>|<(?P<name>[a-z][\w:.-]*)(?P<rest>\s[^<>]*|/)?(?P<end>>|(?=<)|\Z)|<!--"
    r"|<!\[CDATA\[|<\?\w|<![a-z]",
    re.IGNORECASE,
)
_ANY_TAG = re.compile(r"<[^<>]*>?")
MOST_UNCLOSED = 20  # the parser's time grows with their square
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL | re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};|nbsp\b)")
_CALL_TO_ACTION = re.compile(
    r"\W{0,9}(?:(?:buy|order|shop|book|subscribe|call|join|act|register)(?: it)?(?: here)?(?: now| today)|"
    r"(?:click|tap)(?: here| to enlarge| to zoom| for more)?|read more|learn more|see more|show more|view (?:all|more"
    r"|image|full size)|add to (?:cart|basket|bag)|share(?: this)?|pin it|tweet"
    r"|sign up|log ?in|continue|next|previous)\W{0,9}",
    re.IGNORECASE,
)


class _Reader(HTMLParser):
    """Collects what is to be read, in pieces between block tags, and the texts that stand for pictures."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)  # entities stay: `entities` turns them, once, for all texts
        self.pieces: list[str] = [""]
        self.alternatives: list[str] = []
        self.dropped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self.dropped.append(tag)
        if tag == "img":
            self.alternatives += [value for name, value in attrs if name in ("alt", "title") and value]
        if tag not in _INLINE or tag == "a":
            self.pieces.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in _DROPPED:
            self.dropped.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.dropped:
            del self.dropped[self.dropped.index(tag) :]
        if tag not in _INLINE or tag == "a":
            self.pieces.append("")

    def handle_data(self, data: str) -> None:
        if not self.dropped:
            self.pieces[-1] += data

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def unknown_decl(self, data: str) -> None:
        """Conditional comments of old browsers: nothing to read."""


def is_tag(found: "re.Match[str]") -> bool:
    """Whether a match of the tag pattern is markup, rather than a word in angle brackets."""
    name = (found["name"] or "").lower()
    if not name:
        return True
    rest = (found["rest"] or "").strip()
    if found["end"] != ">":
        return name in _NAMES and bool(rest)
    if name in _ALSO_PLACEHOLDERS:
        return "=" in rest or rest.endswith("/")
    if rest and "=" not in rest and not rest.endswith("/") and len(name) < 3:
        return False  # "a <b and c> d" is arithmetic
    return name in _NAMES or "=" in rest or rest.endswith("/") or ":" in name


def has_tags(text: str) -> bool:
    """Whether there is HTML or XML in ``text``."""
    return "<" in text and any(is_tag(found) for found in _TAG.finditer(text))


def without_tags(text: str) -> str:
    """The text between the tags, without scripts, styles, buttons and calls to action; else a picture's ``alt``."""
    text = _CDATA.sub(r"\1", text)  # what parsers make of it differs from version to version
    unclosed = [tag.start() for tag in _TAG.finditer(text) if tag["name"] and tag["end"] != ">" and is_tag(tag)]
    if len(unclosed) > MOST_UNCLOSED:
        return _ANY_TAG.sub(" ", text)
    if unclosed and ">" not in text[unclosed[-1] :]:
        text = text[: unclosed[-1]]  # a tag that was cut off
    reader = _Reader()
    try:
        reader.feed(_hide_words(text))
        reader.close()
    except AssertionError:  # html.parser gives up so on declarations that are none
        return _ANY_TAG.sub(" ", text)
    pieces = [piece for piece in reader.pieces if piece.strip()]
    told = [piece for piece in pieces if not _CALL_TO_ACTION.fullmatch(piece)]
    seen = " ".join(told or reader.alternatives or pieces)
    return seen.replace(_OPEN, "<")


_OPEN = "\ue0ff"  # private, and taken out of texts before they come here


def _hide_words(text: str) -> str:
    """``<`` that opens no tag, covered so that the parser does not take it for one."""
    starts = {found.start() for found in _TAG.finditer(text) if is_tag(found)}
    if text.count("<") == len(starts):
        return text
    return "".join(
        _OPEN if character == "<" and place not in starts else character for place, character in enumerate(text)
    )


def entities(text: str) -> str:
    """``&amp;`` and its kind as the characters they stand for; "AT&T" and "a&b" stay."""
    return _ENTITY.sub(lambda found: html.unescape(found.group()), text) if "&" in text else text


_MARKS = re.compile(r"[*_`\[\]#~>]|'''|^[-+] ", re.MULTILINE)
_LIGHT: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!\[([^\[\]]*)\]\([^()\s]*(?:\s+\"[^\"]*\")?\)"), r"\1"),  # ![alt](address "title")
    (re.compile(r"\[([^\[\]]+)\]\((?:[^()\s]*)(?:\s+\"[^\"]*\")?\)"), r"\1"),  # [text](address)
    (re.compile(r"\[\[(?:file|image|datei|fichier):[^\[\]|]*(?:\|[^\[\]|]*)*?\|?([^\[\]|]*)\]\]", re.I), r"\1"),
    (re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]+)\]\]"), r"\1"),  # [[page|text]]
    (re.compile(r"\[(img|video|audio)(?:=[^\[\]]*)?\].*?\[/\1\]", re.I | re.S), " "),
    (
        re.compile(
            r"\[(b|i|u|s|url|color|size|quote|code|center|left|right|font|list)(?:=[^\[\]]*)?\](.*?)\[/\1\]",
            re.I | re.S,
        ),
        r"\2",
    ),
    (re.compile(r"(?<![\w*])\*\*(?=[^\s*])([^*]+)(?<=[^\s*])\*\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])__(?=[^\s_])([^_]+)(?<=[^\s_])__(?![\w_])"), r"\1"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+)(?<=[^\s*])\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])_(?=[^\s_])([^_\n]+)(?<=[^\s_])_(?![\w_])"), r"\1"),
    (re.compile(r"~~(?=\S)([^~]+)(?<=\S)~~"), r"\1"),
    (re.compile(r"```+\w*|(?<!`)`([^`\n]+)`(?!`)"), r"\1"),
    (re.compile(r"'''(?=\S)([^']+)'''"), r"\1"),
    (re.compile(r"^ {0,3}#{1,6} +(?=\S)", re.M), ""),
    (re.compile(r"^ {0,3}> ?(?=\S)", re.M), ""),
    (re.compile(r"^ {0,3}[-+*] +(?=[^\W\d_])", re.M), ""),
)
_SYNTAX = re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>]*>", re.I)  # prompts of other programs


def without_marks(text: str) -> str:
    """Markdown, BBCode, wiki text and the ``<lora:…>`` of other programs' prompts, as the text that they mark."""
    if "<" in text:
        text = _SYNTAX.sub(" ", text)
    if _MARKS.search(text):
        for pattern, instead in _LIGHT:
            text = pattern.sub(instead, text)
    return text
