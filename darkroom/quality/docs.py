"""Great Expectations' Data Docs as pages that open offline and in which no text of the data can run.

The pages of Great Expectations load style sheets, scripts, fonts and a logo from other servers, and (1.24) write
unexpected values into the HTML as they are, so that a caption ``<script>…`` would run. Three things are done about it:

1. :func:`mask` replaces every character with a meaning in HTML, in string templates and in scripts by a noncharacter
   of Unicode before Great Expectations renders a result; :func:`rewrite` puts it back, escaped.
2. :func:`rewrite` keeps the body's structure and text, and no script, style, picture, event handler or address of
   another server. What the scripts did is done by HTML: tables, ``<details>`` and a checkbox.
3. Each page forbids scripts and other servers by a Content-Security-Policy, should something have been missed.
"""

import ast
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Finding

STYLE = Path(__file__).with_name("data_docs.css")
INDEX = "index.html"

# U+FDD0 to U+FDEF are noncharacters: for use inside a program, never in text that is exchanged.
_SPECIAL = "<>&\"'`$\\{}\n\r\t"
_MASK = {ord(character): 0xFDD0 + place for place, character in enumerate(_SPECIAL)}
_BADGE, _CODE, _END = "\ufde0", "\ufde1", "\ufde2"  # our own markup inside texts that Great Expectations renders
_UNMASK = {masked: chr(character) for character, masked in _MASK.items()}

_POLICY = "default-src 'none'; style-src 'self' file:; base-uri 'none'; form-action 'none'"
_DROPPED = {"script", "style", "nav", "footer", "button"}  # with all that is in them
_VOID = {"br", "hr", "input", "img", "link", "meta"}
_KEPT = re.compile(
    "a|b|blockquote|br|caption|code|dd|div|dl|dt|em|h[1-6]|i|li|main|ol|p|pre|small|span|strong|table|"
    "tbody|td|tfoot|th|thead|tr|u|ul"
)
_KEPT_ATTRIBUTES = {"class", "id", "colspan", "rowspan", "hidden"}
# Tooltips that only a mouse would see, the heads of pages and of what HTML replaces (buttons, tabs).
_HIDDEN = {"top", "card-text", "nav-tabs", "mb-4", "ge-index-page-site-name-title"}
_ICONS = {
    "fa-check-circle": ("passed", "met"),
    "fa-times": ("failed", "not met"),
    "fa-exclamation-triangle": ("failed", "error"),
}
_FILTER = '<p><label class="only-failed"><input type="checkbox" id="only-failed"> show only what failed</label></p>'
_TABLE = re.compile(r"columns: (\[.*\]),\n\s*data: (\[.*\]),\n\s*toolbar:", re.DOTALL)


def shorten(value: Any, longest: int = 300) -> Any:
    """The same JSON value with strings cut to ``longest`` characters, and None for numbers that JSON lacks."""
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}…"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _each(value, lambda item: shorten(item, longest))


def mask(value: Any, longest: int = 300) -> Any:
    """The same JSON value with harmless and shortened strings; :func:`rewrite` shows them as they were."""
    if isinstance(value, str):
        text: str = shorten(value, longest)
        return text.translate(_MASK)
    return _each(value, lambda item: mask(item, longest))


def description(severity: str, rule: str, kind: str, arguments: dict[str, Any]) -> str:
    """What a page says about an expectation: how severe, why, and in small letters what exactly was asked."""
    exact = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in arguments.items())
    return f"{_BADGE}{severity}{_END} {mask(rule, 1000)} {_CODE}{mask(f'{kind}({exact})', 1000)}{_END}"


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: change(item) for key, item in value.items()}
    return [change(item) for item in value] if isinstance(value, list | tuple) else value


def rewrite(site: Path, passed: bool, findings: Sequence["Finding"]) -> None:
    """Rewrite every page below ``site`` in place; the index begins with the verdict and ``findings``."""
    shutil.rmtree(site / "static", ignore_errors=True)  # 4 MB of fonts and pictures
    shutil.copyfile(STYLE, site / STYLE.name)
    for page in sorted(site.rglob("*.html")):
        inside = page.relative_to(site)
        up = "../" * (len(inside.parts) - 1)
        title = _title(inside)
        body = _Body(up)
        body.feed(page.read_text("utf-8"))
        body.close()
        opening = _verdict(passed, findings) if inside == Path(INDEX) else ""
        temporary = page.with_name(f".{page.name}.tmp")
        temporary.write_text(_page(title, up, opening + body.html()), "utf-8")
        os.replace(temporary, page)


def _title(inside: Path) -> str:
    kind, *rest = inside.with_suffix("").parts
    return {"expectations": "Rules", "validations": "Results"}[kind] + f": {rest[0]}" if rest else "Quality of the data"


def _page(title: str, up: str, body: str) -> str:
    home = "" if title.startswith("Quality") else f'<a href="{up}{INDEX}">Quality of the data</a><span>›</span>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="stylesheet" href="{up}{STYLE.name}">
</head>
<body>
<a class="skip" href="#content">to the content</a>
<header>{home}<h1>{escape(title)}</h1></header>
<main id="content" tabindex="-1">
{body}
</main>
<footer>Data Docs of <a href="https://greatexpectations.io">Great Expectations</a>, made to open offline.</footer>
</body>
</html>
"""


def _verdict(passed: bool, findings: Sequence["Finding"]) -> str:
    word, kind = ("passed", "passed") if passed else ("refused: a critical rule is not met", "failed")
    rows = "".join(
        f'<tr><td><span class="severity {escape(line.severity)}">{escape(line.severity)}</span></td>'
        f"<td>{escape(line.suite)}</td><td>{escape(line.rule)}</td>"
        f"<td>{escape(line.observed)}</td></tr>"
        for line in findings
    )
    head = "<thead><tr><th>Severity</th><th>Suite</th><th>Rule</th><th>Observed</th></tr></thead>"
    table = f'<table class="findings">{head}<tbody>{rows}</tbody></table>'
    found = f'<h2>Not met</h2><div class="scroll">{table}</div>' if findings else ""
    return f'<p class="verdict {kind}">The data gate: <strong>{word}</strong></p>{found or "<p>Every rule is met.</p>"}'


class _Body(HTMLParser):
    """The body of a page, with nothing in it that runs, loads or styles."""

    def __init__(self, up: str) -> None:
        super().__init__(convert_charrefs=True)
        self._up = up
        self._out: list[str] = []
        self._skipping: list[str] = []  # open tags inside a dropped element
        self._script: list[str] | None = None
        self._closing: list[tuple[str, str]] = []  # of every open tag: its name and what ends it
        self._summary: list[str] | None = None
        self._inside_body = False

    def html(self) -> str:
        """What was collected."""
        return re.sub(r"\s*\n\s*", "\n", "".join(self._out))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        classes = set(named.get("class", "").split())
        if tag == "body":
            self._inside_body = True
        elif not self._inside_body:
            return
        elif self._skipping:
            if tag not in _VOID:
                self._skipping.append(tag)
        elif tag == "script":
            self._skipping, self._script = [tag], []
        elif tag in _DROPPED and named.get("id") != "navigation":
            self._skipping = [tag]
        elif "btn-group-toggle" in classes:
            self._out.append(_FILTER)
            self._skipping = [tag]
        elif classes & _HIDDEN or (tag == "li" and "list-style-type:none" in named.get("style", "")):  # a line or notes
            self._skipping = [tag]
        elif tag == "i" and (icon := classes & _ICONS.keys()):
            kind, word = _ICONS[icon.pop()]
            self._out.append(f'<span class="status {kind}">{word}</span>')
            self._skipping = [tag]
        elif named.get("data-toggle") == "collapse":
            self._summary = []
            self._closing.append((tag, ""))
        elif "collapse" in classes:
            self._open_details(tag)
        else:
            self._open(tag, named)

    def _open_details(self, tag: str) -> None:
        """A collapsed block. One whose toggle is a mere icon holds a rule's notes, which :func:`description` shows."""
        summary = "".join(self._summary or []).strip()
        self._summary = None
        if summary:
            self._out.append(f"<details><summary>{escape(_restore(summary))}</summary><div>")
            self._closing.append((tag, "</div></details>"))
        else:
            self._skipping = [tag]

    def _open(self, tag: str, named: dict[str, str]) -> None:
        if not _KEPT.fullmatch(tag):
            if tag not in _VOID:
                self._closing.append((tag, ""))
            return
        kept = {name: value for name, value in named.items() if name in _KEPT_ATTRIBUTES}
        if tag == "a" and _may_link(href := named.get("href", "")):
            kept["href"] = href
        written = "".join(f' {name}="{escape(_restore(value))}"' for name, value in kept.items())
        self._out.append(f"<{tag}{written}>")
        if "tab-pane" in kept.get("class", "").split():
            self._out.append(f"<h2>{escape(kept.get('id', '').replace('-', ' '))}</h2>")
        if tag not in _VOID:
            self._closing.append((tag, f"</{tag}>"))

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag in self._skipping:
                while self._skipping.pop() != tag:
                    pass
            if not self._skipping and self._script is not None:
                self._out.append(_static_table("".join(self._script)))
                self._script = None
        elif any(name == tag for name, _ in self._closing):
            while True:
                name, ending = self._closing.pop()
                self._out.append(ending)
                if name == tag:
                    break

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self._script.append(data)
        elif self._inside_body and not self._skipping:
            if self._summary is not None and self._closing and self._closing[-1][1] == "":
                self._summary.append(data)
            else:
                self._out.append(_marked(escape(_restore(data))))


def _restore(text: str) -> str:
    """Undo :func:`mask`; the caller escapes."""
    # Where Great Expectations shows a list by its repr, the noncharacters came out as escapes; a backslash of the data
    # would be masked, so these are ours.
    text = re.sub(r"\\u(fdd[0-9a-f])", lambda match: chr(int(match[1], 16)), text)
    return text.translate(_UNMASK)


def _marked(text: str) -> str:
    """Turn the marks of :func:`description`, in escaped text, into elements."""
    text = re.sub(f"{_BADGE}(critical|warning|info){_END}", r'<span class="severity \1">\1</span>', text)
    return re.sub(f"{_CODE}([^{_END}]*){_END}", r"<br><code>\1</code>", text)


def _may_link(href: str) -> bool:
    """Inside the page or the site, or a plain web address to read."""
    return re.match(r"(https?://|#|(\.{0,2}/)*[\w%.-]+(/[\w%.:-]+)*$)", href) is not None


def _static_table(script: str) -> str:
    """The table that a page of the index would have made by script, from the Python literals inside it."""
    found = _TABLE.search(script)
    if found is None:
        return ""
    columns, rows = ast.literal_eval(found[1]), ast.literal_eval(found[2])
    head = "".join(f"<th>{escape(str(column['title']))}</th>" for column in columns)
    lines = [
        "<tr>" + "".join(f"<td>{_cell(row, str(column['field']), place)}</td>" for place, column in enumerate(columns))
        for row in rows
    ]
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{'</tr>'.join(lines)}</tr></tbody></table></div>"
    )


def _cell(row: dict[str, object], field: str, place: int) -> str:
    inner = _Body("")
    inner.feed(f"<body>{row.get(field, '')}")
    inner.close()
    content, link = inner.html().strip(), str(row.get("_table_row_link_path", ""))
    # Scripts made the whole row clickable; a link in its first cell can be reached by keyboard too.
    return f'<a href="{escape(link)}">{content}</a>' if place == 0 and _may_link(link) else content
