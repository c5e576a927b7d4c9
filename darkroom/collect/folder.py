"""A folder of pictures with an imagefolder ``metadata.jsonl``: one JSON object a line, with ``file_name`` and ``text``.

Also read, where present: ``caption`` (instead of ``text``), ``label``, ``license`` or ``licence``. A picture without a
line has no caption; a line without a picture is a row that cannot be read. Neither ends the run.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError

from .source import Item

METADATA = "metadata.jsonl"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def items(folder: Path, licence: str) -> Iterator[Item]:
    """Yield every picture below ``folder`` and every line of its metadata, by path; ``licence`` where none is named.

    Raises :class:`RecipeError` when the folder cannot be read.
    """
    if not folder.is_dir():
        raise RecipeError(f"collect.path = {str(folder)!r}: there is no such folder")
    lines = dict(_metadata(folder))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
    for name in sorted(found | lines.keys()):
        line = lines.get(name, {})
        problem = line.get("problem") or _outside(folder, name)
        stat = None if problem else _stat(folder / name)
        yield Item(
            path=name,
            caption=line.get("text", line.get("caption")),
            label=line.get("label"),
            licence=str(line.get("license") or line.get("licence") or licence),
            # A file is unchanged only when its size, both times and its inode are.
            fingerprint=f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}" if stat else None,
            size=stat.st_size if stat else None,
            read=_refuse(problem) if problem else (folder / name).read_bytes,
        )


def _metadata(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, line) of every line; a line that is wrong goes by its number and carries its ``problem``."""
    path = folder / METADATA
    if not path.is_file():
        return
    seen: set[str] = set()
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    for number, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        place = f"{METADATA}:{number}"
        try:
            line = json.loads(content)
            name = line["file_name"]
        except (ValueError, TypeError, KeyError, RecursionError):
            yield place, {"problem": "not a JSON object with file_name"}
            continue
        if not isinstance(name, str) or not name:
            yield place, {"problem": f"file_name is {name!r}, not a path"}
        elif name in seen:
            yield place, {**line, "problem": f"a second line for {name}"}
        else:
            seen.add(name)
            yield name, line


def _outside(folder: Path, name: str) -> str | None:
    """Why this name must not be opened: it leads out of the folder, by ``..``, an absolute path or a link."""
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return "not a path"
    return None if inside else "leads out of the folder"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _refuse(problem: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise OSError(problem)

    return read
