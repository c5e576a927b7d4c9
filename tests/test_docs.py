"""The pages of docs/: both languages say the same, links lead somewhere, commands and recipes are real."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from darkroom.recipe import load, parse
from flows.cli import parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CHINESE = DOCS / "zh-TW"
ENGLISH = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md") if CHINESE not in path.parents)
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
# Section of a recipe that stands in for what a quoted part leaves out.
WHOLE = {
    "version": 1,
    "name": "quoted",
    "collect": {"source": "digits"},
    "model": {"vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder"},
    "train": {"steps": 5000},
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_absolute() else path)


def blocks(path: Path, *languages: str) -> list[str]:
    """The code blocks of a page, of these languages alone where any are named."""
    return [text for language, text in FENCE.findall(path.read_text("utf-8")) if not languages or language in languages]


def headings(path: Path) -> list[tuple[str, str]]:
    return HEADING.findall(FENCE.sub("", path.read_text("utf-8")))


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings: small letters, no punctuation, dashes for spaces."""
    found = set()
    for _, title in headings(path):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", ENGLISH, ids=named)
def test_the_chinese_page_has_the_same_shape(page: Path) -> None:
    other = CHINESE / page
    assert other.is_file(), f"docs/zh-TW/{page} is missing"
    assert [level for level, _ in headings(other)] == [level for level, _ in headings(DOCS / page)]
    assert blocks(other) == blocks(DOCS / page)
    assert re.search(r"[\u4e00-\u9fff]", other.read_text("utf-8"))


def test_no_chinese_page_is_left_over() -> None:
    assert {path.relative_to(CHINESE) for path in CHINESE.rglob("*.md")} == set(ENGLISH)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if "://" in target:
            continue
        file, _, anchor = unquote(target).partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{target} is not there"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{target}: {place.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pictures_are_small(page: Path) -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).stat().st_size < 200_000


def commands() -> Iterator[Any]:
    for page in PAGES:
        for text in blocks(page, "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words[:1] == ["darkroom"]:
                    yield pytest.param(words[1:], id=f"{named(page)}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_the_commands_are_ones_that_darkroom_takes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parser().parse_args(words)  # exits for what it does not know


def quoted() -> Iterator[Any]:
    for page in ENGLISH:
        for number, text in enumerate(blocks(DOCS / page, "toml")):
            yield pytest.param(text, id=f"{page}-{number}")


@pytest.mark.parametrize("text", list(quoted()))
def test_parts_of_recipes_are_valid(text: str) -> None:
    table = tomllib.loads(text)
    whole = {name: merged(WHOLE.get(name, {}), table.get(name, {})) for name in WHOLE | table}
    if whole["model"].get("family") == "unconditional":
        whole["model"] = table["model"]
    parse(whole, "a page")


def merged(under: Any, over: Any) -> Any:
    return under | over if isinstance(under, dict) and isinstance(over, dict) else over or under


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.toml")) + sorted(DOCS.rglob("*.toml")), ids=named)
def test_every_recipe_that_is_shipped_is_valid(path: Path) -> None:
    load(str(path))


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "docs/make_reference.py", "--check"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_reference_notices_another_description() -> None:
    page = (DOCS / "recipe.md").read_text("utf-8")
    assert "| `steps` | whole number ≥ 1 | **needed** | yes | Optimiser steps. |" in page
    assert "| `micro_batch` | whole number, none ≥ 1 | none | no |" in page
    assert '| `validate_every` | whole number ≥ 1 | `100` | with `early_stop` or `keep = "best"` |' in page
    assert "| `per_host` | whole number ≥ 1 ≤ 256 | `4` | content |" in page
