"""Picture i depends on (seed, i) and its prompt alone."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from darkroom.diffusion.sampling import draw, grid, initial_noise
from darkroom.recipe import Sampler

SAMPLER = Sampler(steps=1, guidance=1.0, batch=4)


class StableDiffusionPipeline:
    """Draws its noise, and remembers how it was called."""

    def __init__(self) -> None:
        self.unet = SimpleNamespace(
            config=SimpleNamespace(sample_size=4, in_channels=3), device=torch.device("cpu"), dtype=torch.float32
        )
        self.batches: list[int] = []

    def set_progress_bar_config(self, disable: bool) -> None:
        assert disable

    def __call__(self, prompt: list[str], latents: torch.Tensor, **options: object) -> SimpleNamespace:
        self.batches.append(len(prompt))
        assert len(prompt) == len(latents)
        pixels = (latents.clamp(-1, 1) * 127 + 128).byte().permute(0, 2, 3, 1).numpy()
        return SimpleNamespace(images=[Image.fromarray(one) for one in pixels])


def test_pictures_do_not_depend_on_how_many_are_drawn() -> None:
    few, many = (draw(StableDiffusionPipeline(), ["a"] * count, 1, SAMPLER) for count in (3, 9))
    assert (len(few), len(many)) == (3, 9)
    for one, other in zip(few, many, strict=False):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_the_model_always_sees_full_batches() -> None:
    pipeline = StableDiffusionPipeline()
    draw(pipeline, ["a"] * 9, 1, SAMPLER)
    assert pipeline.batches == [4, 4, 4]


def test_noise_follows_from_seed_and_index() -> None:
    shape = (3, 4, 4)
    assert torch.equal(initial_noise(1, 5, shape), initial_noise(1, 5, shape))
    assert not torch.equal(initial_noise(1, 5, shape), initial_noise(2, 5, shape))
    assert not torch.equal(initial_noise(1, 5, shape), initial_noise(1, 6, shape))


def test_a_grid_enlarges_small_pictures_by_whole_factors() -> None:
    pictures = [Image.new("RGB", (16, 16), (index * 20, 0, 0)) for index in range(5)]
    sheet = np.asarray(grid(pictures, columns=3))
    assert sheet.shape == (2 * 68 + 4, 3 * 68 + 4, 3)
    assert (sheet[4:68, 72:136] == (20, 0, 0)).all()
