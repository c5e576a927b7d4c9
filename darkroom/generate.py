"""Pictures from a registered model, as files."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .registry import Registry

GRID_COLUMNS = 8
FOLDER = "generated"
"""Of a home folder: the `generate` flow draws into a folder of this one, named by its run's id."""


def generate(
    registry: Registry,
    reference: str,
    prompt: str,
    *,
    count: int,
    seed: int,
    out: Path,
    steps: int = 0,
    guidance: float = -1.0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write ``out/0000.png`` … and ``out/grid.png``, and nothing else; returns their paths, the grid last.

    Picture i depends on (seed, i), the prompt and the model alone. ``steps`` 0 and ``guidance`` -1: the model's own.
    Raises :class:`RecipeError` for an unknown model, a label that it
    does not know, and a folder that holds other files.
    """
    import pandas as pd
    from PIL import Image

    from .diffusion.sampling import grid

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"--out {out}: there is something already; name a new or an empty folder")
    version = registry.resolve(reference)
    folder = registry.pipeline_folder(version)
    if not (folder / "model_index.json").is_file():
        raise RecipeError(
            f"{version.uri} is an autoencoder, which rebuilds pictures and draws none: name its folder, {folder}, as "
            "model.vae of a recipe"
        )
    if words := unread(folder, prompt):
        say(f"the end of the prompt is longer than the text encoder reads and is left out: {words!r}")
    say(f"drawing {count} pictures from {version.uri}")
    model: Any = registry.load(version)
    try:
        answer = model.predict(
            pd.DataFrame({"prompt": [prompt] * count}), params={"seed": seed, "steps": steps, "guidance": guidance}
        )
    except ValueError as error:  # what it was asked for: a label that it does not know
        raise RecipeError(f"{version.uri}: {error}") from error
    contents = [base64.b64decode(text) for text in answer["image"]]
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for index, content in enumerate(contents):
        files.append(out / f"{index:04d}.png")
        files[-1].write_bytes(content)
    pictures = [Image.open(io.BytesIO(content)) for content in contents]
    grid(pictures, columns=min(GRID_COLUMNS, count)).save(out / "grid.png")
    return [*files, out / "grid.png"]


def unread(folder: Path, prompt: str) -> str:
    """The end of a prompt that no text encoder of a pipeline's folder has room for; empty where one reads it all."""
    places = [path for path in sorted(folder.glob("tokenizer*")) if path.is_dir()]
    if not places:
        return ""
    from transformers import AutoTokenizer

    from .preprocess.texts import cut_words

    return cut_words([AutoTokenizer.from_pretrained(place) for place in places], prompt)
