"""How people name a version of a model: ``digits@champion``, ``digits/3``, ``models:/digits/3``, or just ``digits``."""

import re
from pathlib import Path

from .recipe import recipe_files

REFERENCE = re.compile(r"models:/.+|[a-z0-9][a-z0-9_-]*(@[^/@]+|/\d+)")


def is_reference(text: str) -> bool:
    """Whether what `darkroom run` was given names a version; a recipe or a file of this name comes first."""
    if REFERENCE.fullmatch(text) is None:
        return False
    return text.startswith("models:/") or not (Path(text).exists() or any(map(Path.is_file, recipe_files(text))))


def full(reference: str) -> str:
    """A reference to one version; a model's bare name means its champion."""
    name = reference.removeprefix("models:/")
    return name if "@" in name or "/" in name else f"{name}@champion"


def model_of(reference: str) -> str:
    """The model that a reference names."""
    return re.split("[@/]", reference.removeprefix("models:/"))[0]
