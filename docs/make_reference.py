"""Write ``docs/recipe.md`` and ``docs/zh-TW/recipe.md`` from the recipe's types: every section, field, type and default.

``python docs/make_reference.py`` writes them; ``--check`` says whether they are up to date, and changes nothing. The
Chinese descriptions are in ``docs/zh-TW/recipe.json``, each beside the English sentence that it translates: where that has
changed since, the page shows the new English one and this script says so.
"""

import json
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from darkroom.recipe import Recipe
from darkroom.section import Section

DOCS = Path(__file__).parent
TRANSLATIONS = DOCS / "zh-TW" / "recipe.json"
UNTOLD = ("version", "name", "register")  # what a result is called, and what is done with it afterwards
DECIDING = ("train.validate_every", "train.distance")  # see Train.digest_fields
WEIGHTS = ("train.autoencoder.perceptual",)  # whose digest is a training's input
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "× {}"}


@dataclass(frozen=True)
class Words:
    """What the page says beside the fields."""

    title: str
    opening: str
    heads: tuple[str, ...]
    needed: str
    none: str
    top: str
    marks: dict[str, str]


ENGLISH = Words(
    title="# The recipe: every field",
    opening="""This page is written from the types in [darkroom/recipe.py](../darkroom/recipe.py) and
[darkroom/recipe_training.py](../darkroom/recipe_training.py) by `make docs`; `make check` fails when it is out of date.

A recipe is one TOML file. What is left out has its default; a misspelt field is refused with the names that are allowed.
On the command line `--set train.steps=200` overrides a field for one run. *Digest* says whether a field is part of what
a result is addressed by: "yes", another value makes another result, and its stage runs anew; "no", the finished result is
reused; "content", only what it brings in counts, not how that was named or fetched. `≥`, `<` and the like are the limits of
a value; `× 8` means a multiple of 8.

A field that is a section of its own, such as `train.optimizer`, has a heading of its own below.""",
    heads=("field", "type", "default", "digest", "meaning"),
    needed="**needed**",
    none="none",
    top="At the top of the file",
    marks={"yes": "yes", "no": "no", "content": "content", "sometimes": 'with `early_stop` or `keep = "best"`'},
)
CHINESE = Words(
    title="# 配方：每個欄位",
    opening="""本頁由 `make docs` 依 [darkroom/recipe.py](../../darkroom/recipe.py) 與
[darkroom/recipe_training.py](../../darkroom/recipe_training.py) 的型別產生；內容過時時 `make check` 會失敗。

配方（recipe）是一個 TOML 檔。沒寫的欄位取預設值；拼錯的欄位會被拒絕，並列出可用的名稱。在命令列上，`--set train.steps=200`
只替這一次執行改寫欄位。「摘要」（digest）表示欄位是否參與結果的定址：「是」：換一個值就是另一個結果，該階段會重做；「否」：
沿用已完成的結果；「內容」：只看它帶進來的內容，不看名稱或取得方式。`≥`、`<` 等是值的界限，`× 8` 表示必須是 8 的倍數。

本身就是一節的欄位，例如 `train.optimizer`，在下面有自己的標題。""",
    heads=("欄位", "型別", "預設", "摘要", "意義"),
    needed="**必填**",
    none="無",
    top="檔案最上層",
    marks={"yes": "是", "no": "否", "content": "內容", "sometimes": '有 `early_stop` 或 `keep = "best"` 時'},
)


def main(check: bool) -> int:
    """Write the pages, or say which is stale; returns the exit status."""
    pages = {DOCS / "recipe.md": page(ENGLISH, None), DOCS / "zh-TW" / "recipe.md": page(CHINESE, translations())}
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
    if not check:
        for path in stale:
            path.write_text(pages[path], "utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(DOCS.parent)} is out of date: run `make docs`", file=sys.stderr)
    return bool(stale)


def translations() -> dict[str, str]:
    """Chinese by English sentence; what has none yet stays English, and is said."""
    known: dict[str, str] = json.loads(TRANSLATIONS.read_text("utf-8"))
    used = list(dict.fromkeys(text for _, model in sections() for text in texts(model)))
    if lacking := [text for text in used if text not in known]:
        name = TRANSLATIONS.relative_to(DOCS.parent)
        print(f"{name} lacks {len(lacking)} of {len(used)} sentences:", *lacking, sep="\n  ", file=sys.stderr)
    return {text: known.get(text, text) for text in used}


def texts(model: type[BaseModel]) -> Iterator[str]:
    """Every sentence of a section that a page shows."""
    yield plain(model.__doc__)
    yield from (field.description for field in model.model_fields.values() if field.description)


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """(dotted name, type) of every section, in the order in which a recipe is written; "" is the recipe itself."""
    yield "", Recipe
    yield from _below("", Recipe)


def _below(name: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for key, field in model.model_fields.items():
        inner, many = section_of(field.annotation)
        if inner is None or inner.__name__ == "Collect" and many:  # evaluate.also has the fields of collect
            continue
        dotted = f"{name}.{field.alias or key}".lstrip(".") + (".NAME" if many else "")
        yield dotted, inner
        yield from _below(dotted, inner)


def section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """(the section that a field is, or None; whether it is many of them by name)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    many = typing.get_origin(annotation) is dict
    for part in typing.get_args(annotation)[many:]:
        if (found := section_of(part)[0]) is not None:
            return found, many
    return None, False


def page(words: Words, translated: dict[str, str] | None) -> str:
    """The whole page."""
    lines = [words.title, "", words.opening]
    for name, model in sections():
        say = (lambda text: translated[text]) if translated is not None else (lambda text: text)
        title = f"`[{name}]`" if name else words.top
        lines += ["", f"## {title}", "", say(plain(model.__doc__)), ""]
        lines += [row(words.heads), row(["---"] * len(words.heads))]
        for key, field in model.model_fields.items():
            mark = words.marks[counted(name, field.alias or key)]
            lines.append(row(cells(field.alias or key, field, words, say, mark)))
    return "\n".join(lines) + "\n"


def counted(section: str, key: str) -> str:
    """Whether a field enters digests: by its own mark in the types, or by that of a section that it is in."""
    dotted = f"{section}.{key}".lstrip(".")
    if dotted in WEIGHTS:
        return "content"
    if dotted.startswith(DECIDING):
        return "sometimes"
    path, model = dotted.split("."), Recipe
    if path[0] in UNTOLD:
        return "no"
    if path[0] == "collect" or path[:2] == ["evaluate", "also"]:
        return "content"
    for name in path:
        if name == "NAME":
            continue
        fields = {field.alias or known: field for known, field in model.model_fields.items()}
        extra = fields[name].json_schema_extra
        if isinstance(extra, dict) and extra.get("no_effect"):
            return "no"
        model = section_of(fields[name].annotation)[0] or model
    return "yes"


def cells(key: str, field: FieldInfo, words: Words, say: Any, mark: str) -> list[str]:
    """The cells of one field's row."""
    if field.default is PydanticUndefined and field.default_factory is None:
        default = words.needed
    elif isinstance(field.default, Section):
        default = ""
    else:
        default = value(field.default, words)
    meaning = say(field.description) if field.description else ""
    return [f"`{key}`", kind(field, words), default, mark, meaning]


def kind(field: FieldInfo, words: Words) -> str:
    """A field's type with its limits, as a person writes it."""
    limits = [
        form.format(f"{bound:,}" if isinstance(bound, int) else f"{bound:g}")
        for mark in field.metadata
        for name, form in BOUNDS.items()
        if (bound := getattr(mark, name, None)) is not None
    ]
    return " ".join([spelt(field.annotation, words), *limits])


def spelt(annotation: Any, words: Words) -> str:
    """``tuple[str, ...] | None`` -> "list of text, or none"."""
    english = words is ENGLISH
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(one)}`" for one in inside)
    if origin in (types.UnionType, typing.Union):
        named = [spelt(one, words) for one in inside if one is not type(None)]
        return ", ".join(named) + (f", {words.none}" if type(None) in inside else "")
    if origin is typing.Annotated:
        return spelt(inside[0], words)
    if origin is tuple:
        return ("list of " if english else "列表：") + spelt(inside[0], words)
    if origin is dict:
        return ("table: NAME = " if english else "表格：NAME = ") + spelt(inside[1], words)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section" if english else "一節"
    names = {
        str: ("text", "文字"),
        int: ("whole number", "整數"),
        float: ("number", "數字"),
        bool: ("`true`, `false`",) * 2,
    }
    return names[annotation][not english]


def value(default: Any, words: Words) -> str:
    """A default as TOML."""
    if default is None:
        return words.none
    if isinstance(default, tuple):
        return f"`{json.dumps(list(default))}`"
    if isinstance(default, dict):
        return "`{" + ", ".join(f"{key} = {json.dumps(one)}" for key, one in default.items()) + "}`"
    if isinstance(default, float) and 0 < default < 1e-3:
        return f"`{default:.0e}`".replace("e-0", "e-")
    return f"`{json.dumps(default)}`"


def plain(doc: str | None) -> str:
    """A docstring's first paragraph as Markdown on one line."""
    return " ".join((doc or "").split("\n\n")[0].split()).replace("``", "`")


def row(found: Any) -> str:
    """A row of a table; a bar inside would end its cell."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in found) + " |"


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
