"""A version's own pictures as a folder again, from the bytes that the store kept: what its source may have lost."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.artifacts import CheckedManifest
from darkroom.collect.manifest import picture_path
from darkroom.errors import RecipeError
from darkroom.store import Store, file_digest

from .compare import records

SUFFIX = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}


@dataclass(frozen=True)
class Restored:
    """How many pictures were written, and the paths (inside the source) of those whose bytes are lost or changed."""

    written: int
    lost: list[str]


def restore(checked: CheckedManifest, target: Path, store: Store) -> Restored:
    """Write the accepted pictures to a new or empty folder, as they were collected, with a ``metadata.jsonl``.

    Files are named by their id, as paths of a source may lead anywhere; ``path`` in the metadata is the old one.
    """
    import pandas as pd

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RecipeError(f"{target} is not empty: name a new folder")
    target.mkdir(parents=True, exist_ok=True)
    rows = pd.read_parquet(checked.path / "checked.parquet")
    lost: list[str] = []
    with (target / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
        for row in records(rows):
            name = f"{row['id']}.{_suffix(row.get('format'))}"
            source = picture_path(store, row["id"])
            if not source.is_file() or file_digest(source) != row["id"]:
                lost.append(row["path"])
                continue
            (target / name).write_bytes(source.read_bytes())
            metadata.write(json.dumps(_line(name, row)) + "\n")
    return Restored(len(rows) - len(lost), lost)


def _line(name: str, row: dict[str, Any]) -> dict[str, Any]:
    keys = {"caption": "text", "label": "label", "licence": "license", "path": "path", "origin": "source"}
    return {"file_name": name, **{new: row[old] for old, new in keys.items() if row.get(old) is not None}}


def _suffix(format_: object) -> str:
    """``"JPEG"`` -> ``jpg``; a format's name without anything but letters and digits."""
    text = "".join(letter for letter in str(format_ or "bin") if letter.isascii() and letter.isalnum())
    return SUFFIX.get(text, text.lower()) or "bin"
