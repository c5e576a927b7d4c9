"""The Data Docs: they open offline, and no text of the data can run in them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from darkroom.quality import checkpoint, docs, drift

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"><svg onload='alert(3)'>",
    "</td></table><iframe src=//evil.example></iframe>",
    "$column ${severity} {{section_id}} {% raw %} `x` \\ufdd0 &lt;b&gt;",
    "two\nlines",
)
# Darkroom's own rules, each such that its page shows values of the data.
OWN: tuple[tuple[str, dict[str, object]], ...] = (
    ("one_value_per_group", {"column": "caption", "group": "label"}),
    ("class_balance", {"column": "label", "min_ratio": 1}),
    ("groups_of_at_least", {"column": "licence", "min_rows": 2}),
    ("share_of_flag_at_most", {"column": "flags", "max_share": 0}),
    ("share_of_value_between", {"column": "licence", "value": HOSTILE[0], "max_share": 0}),
    ("commonest_share_at_most", {"column": "label", "max_share": 0, "min_rows": 0}),
    ("shares_to_be_shown", {"column": "licence"}),
    ("shares_to_be_shown", {"column": "converted"}),
    ("quantiles_between", {"column": "number", "quantiles": {"0.5": [99, None]}}),
    ("aspect_ratio_at_most", {"column_A": "number", "column_B": "height", "max_ratio": 1}),
    ("licences_to_be_open", {"column": "licence"}),
)
RUNS = {"script", "img", "svg", "iframe", "object", "embed", "style", "form", "base"}


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Data Docs of a table full of markup, with rules that fail, raise and pass on it."""
    out = tmp_path_factory.mktemp("hostile")
    table = pd.DataFrame(
        {
            "path": [f"{caption}.png" for caption in HOSTILE],
            "caption": HOSTILE,
            "number": range(len(HOSTILE)),
            "label": [HOSTILE[0]] * 2 + [HOSTILE[1]] + list(HOSTILE[3:]),
            "licence": [f"{text} CC BY-NC" for text in HOSTILE],
            "height": 1,
            "flags": [[f"check: {text.replace(': ', ' ')}: of it"] for text in HOSTILE],
            "converted": [[text] for text in HOSTILE],
        }
    )
    shown = {"kind": "category", "level": "much"}
    drifted = pd.DataFrame([{**shown, "measure": text, "sentence": f"label: {text} had 1 %."} for text in HOSTILE])
    assert {"measure", "kind", "level", "sentence"} <= set(drift.compare(table, None).table().columns)
    expectations = [
        {"type": f"expect_column_{kind}", "kwargs": {"column": "caption", **more}, "severity": severity, "notes": notes}
        for kind, more, severity, notes in (
            (
                "values_to_match_regex",
                {"regex": "^(?<!x)[a-z]$"},
                "critical",
                "Captions are <b>one</b> letter $column.",
            ),
            ("values_to_be_in_set", {"value_set": ["<i>a</i>"]}, "warning", "Captions are one of a few."),
            ("distinct_values_to_be_in_set", {"value_set": ["a"]}, "info", "Captions are a."),
            ("most_common_value_to_be_in_set", {"value_set": ["q"]}, "info", "The most common caption is q."),
            ("values_to_be_between", {"min_value": 0}, "info", "This raises."),
            ("values_to_not_be_null", {}, "info", "Captions are there."),
        )
    ]
    expectations += [
        {"type": f"expect_{kind}", "kwargs": kwargs, "severity": "info", "notes": f"Own: {kind}."}
        for kind, kwargs in OWN
    ]
    (out / "mine.json").write_text(json.dumps({"expectations": expectations}), "utf-8")
    rule = {"type": "expect_drift_at_most", "kwargs": {}, "severity": "warning", "notes": "Nothing changed."}
    (out / "drift.json").write_text(json.dumps({"expectations": [rule]}), "utf-8")
    tables, files = {"mine": table, "drift": drifted}, {name: out / f"{name}.json" for name in ("mine", "drift")}
    outcome = checkpoint.run(tables, files, out, run_name="../odd name <b>")
    return (out / outcome.docs).parent


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {"/".join(path.relative_to(site).with_suffix("").parts[:2]): Page(path) for path in site.rglob("*.html")}
    kinds = {f"{kind}/{name}" for kind in ("expectations", "validations") for name in ("mine", "drift")}
    assert found.keys() == {"index", *kinds}
    return found


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    for page in pages.values():
        for tag, attributes in page.elements:
            assert "src" not in attributes
            assert "style" not in attributes
            if tag != "a" and "href" in attributes:
                assert tag == "link"
                assert (attributes["href"] or "").endswith(docs.STYLE.name)
                assert "//" not in (attributes["href"] or "")
    style = (site / docs.STYLE.name).read_text("utf-8")
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_no_page_holds_what_runs(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert not RUNS & {tag for tag, _ in page.elements}
        names = {name for _, attributes in page.elements for name in attributes}
        assert not {name for name in names if name.startswith("on")}
        policies = [attributes for tag, attributes in page.elements if attributes.get("http-equiv")]
        assert [(policy["content"] or "").split(";")[0] for policy in policies] == ["default-src 'none'"]


def test_hostile_text_is_shown_as_it_is(pages: dict[str, Page]) -> None:
    shown = " ".join(pages["validations/mine"].text.split())
    drifted = " ".join(pages["validations/drift"].text.split())
    for caption in HOSTILE:
        plain = " ".join(caption.split())
        assert plain in shown
        assert f"{plain}.png" in shown
        assert f"{plain} CC BY-NC" in shown
        assert plain in drifted
    assert "Captions are <b>one</b> letter $column." in shown
    for page in pages.values():
        assert not re.search("[\ufdd0-\ufdef]", page.text)


def test_links_lead_to_pages_of_the_site(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        ids = {attributes.get("id") for _, attributes in page.elements}
        for tag, attributes in page.elements:
            target = attributes.get("href") or ""
            if tag == "a" and target.startswith("#"):
                assert target[1:] in ids
            elif tag == "a" and not target.startswith("http"):
                assert (path.parent / target).resolve().is_file(), target
                assert (path.parent / target).resolve().is_relative_to(site.resolve())


def test_the_pages_say_how_severe_and_why(pages: dict[str, Page]) -> None:
    assert "refused" in pages["index"].text
    assert "could not be evaluated" in pages["index"].text
    for name in ("expectations/mine", "validations/mine"):
        assert "Captions are one of a few." in pages[name].text
        assert "expect_column_values_to_be_in_set" in pages[name].text
    severities = [
        attributes["class"] or ""
        for _, attributes in pages["validations/mine"].elements
        if "severity" in (attributes.get("class") or "")
    ]
    assert sorted(severities) == ["severity critical", *["severity info"] * (4 + len(OWN)), "severity warning"]


def test_the_site_is_small(site: Path) -> None:
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 200_000


def test_masking_is_undone_by_rewriting(tmp_path: Path) -> None:
    text = "".join(map(chr, range(9, 0x300))) + "手写"
    page = tmp_path / docs.INDEX
    page.write_text(f"<html><body><p>{docs.mask(text, 10_000)}</p><script>1</script></body></html>", "utf-8")
    docs.rewrite(tmp_path, True, ())
    assert " ".join(text.split()) in " ".join(Page(page).text.split())
