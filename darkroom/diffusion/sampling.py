"""Pictures from noise vectors: picture i depends on (seed, i) and its prompt alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from darkroom.randomness import generator
from darkroom.recipe import Sampler

from .families import family_of

if TYPE_CHECKING:
    from PIL import Image


def initial_noise(seed: int, index: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """The noise vector that picture ``index`` starts from, CHW."""
    return torch.randn(shape, generator=generator(seed, index))


def draw(
    pipeline: Any,
    prompts: Sequence[str],
    seed: int,
    sampler: Sampler,
    progress: Callable[[int], None] = lambda done: None,
    first: int = 0,
) -> "list[Image.Image]":
    """One picture a prompt; ``progress`` is told how many are done, ``first`` is the number of the first.

    The model is always called with ``sampler.batch`` pictures, the last call filled up and the surplus thrown away:
    with another shape the last bits could differ, and picture i would depend on how many were asked for.
    """
    kind = family_of(pipeline)
    shape = kind.latent_shape(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), sampler.batch):
        part = list(prompts[start : start + sampler.batch])
        noise = [initial_noise(seed, first + start + offset, shape) for offset in range(len(part))]
        missing = sampler.batch - len(part)
        latents = torch.stack(noise + noise[-1:] * missing)
        drawn = kind.draw(pipeline, part + part[-1:] * missing, latents, sampler.steps, sampler.guidance)
        pictures += drawn[: len(part)]
        progress(len(pictures))
    return pictures


def grid(pictures: "Sequence[Image.Image]", columns: int, shown_side: int = 64) -> "Image.Image":
    """Pictures in rows; small ones enlarged by a whole factor, so that every pixel stays visible."""
    from PIL import Image

    side = max(pictures[0].size)
    factor = max(1, shown_side // side)
    cell = side * factor + 4
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell + 4, rows * cell + 4), (24, 24, 24))
    for index, picture in enumerate(pictures):
        large = picture.convert("RGB").resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
        sheet.paste(large, (4 + index % columns * cell, 4 + index // columns * cell))
    return sheet
