"""Errors of denoising."""

from types import SimpleNamespace

import pytest
import torch

from darkroom.diffusion.objectives import make
from darkroom.evaluation.measures import denoising_errors
from darkroom.recipe_training import Objective
from darkroom.training.data import Data

KINDS = ("flow", "epsilon", "v", "x0")


class StableDiffusionPipeline:
    """A pipeline whose denoiser knows the answer up to a factor and a shift."""

    def __init__(self, clean: torch.Tensor, kind: str, factor: float, shift: float) -> None:
        objective = make(Objective(kind=kind), kind)
        self.scheduler = objective.scheduler()

        def unet(noisy: torch.Tensor, times: torch.Tensor, encoder_hidden_states: torch.Tensor) -> SimpleNamespace:
            times = times / 1000 if kind == "flow" else times
            # The noise, from the two points of the path that are known.
            some = torch.zeros_like(clean)
            whole = objective.noisy(some, torch.ones_like(clean), times)
            noise = (noisy - objective.noisy(clean, some, times)) / whole
            return SimpleNamespace(sample=factor * objective.target(clean, noise, times) + shift)

        self.unet = unet


def data(count: int = 40) -> Data:
    latents = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    held = Data({"latents": latents}, ["id"] * count, [""] * count)
    held.conditions = {"encoder_hidden_states": torch.zeros(1, 2, 3)}
    return held


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_model_makes_no_error(kind: str) -> None:
    held = data()
    found, apart = denoising_errors(StableDiffusionPipeline(held.latents, kind, 1, 0), [held], 0, 4)
    assert found["denoising_mse"] == pytest.approx(0, abs=1e-9)
    assert found["denoising_r2"] == pytest.approx(1)
    assert len({one["time"] for one in apart}) == 4
    assert [one["mse"] for one in apart] == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_known_errors_are_measured(kind: str) -> None:
    held = data()
    shifted, apart = denoising_errors(StableDiffusionPipeline(held.latents, kind, 1, 0.5), [held], 0, 4)
    assert shifted["denoising_mse"] == pytest.approx(0.25, rel=1e-4)
    assert shifted["denoising_rmse"] == pytest.approx(0.5, rel=1e-4)
    assert shifted["denoising_mae"] == pytest.approx(0.5, rel=1e-4)
    assert [one["mse"] for one in apart] == pytest.approx([0.25] * 4, rel=1e-4)
    # Predicting nothing leaves about all of the variance: R² near zero.
    blank, _ = denoising_errors(StableDiffusionPipeline(held.latents, kind, 0, 0), [held], 0, 4)
    assert blank["denoising_r2"] == pytest.approx(0, abs=0.02)
