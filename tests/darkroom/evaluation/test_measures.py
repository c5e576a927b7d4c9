"""Errors of denoising and nearness to the training pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darkroom.evaluation.measures import denoising_errors, nearest_distances


class Model:
    """A model that knows the answer up to a factor and a shift."""

    def __init__(self, clean: torch.Tensor, factor: float, shift: float) -> None:
        self.clean, self.factor, self.shift = clean, factor, shift

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, encoder_hidden_states: torch.Tensor):
        # x_t = (1 - t) x + t e, so e - x = (x_t - x) / t.
        true = (noisy - self.clean) / (times / 1000).view(-1, 1, 1, 1)
        return SimpleNamespace(sample=self.factor * true + self.shift)


def data(count: int = 40) -> SimpleNamespace:
    latents = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(latents=latents, rows=torch.zeros(count, dtype=torch.long), embeddings=torch.zeros(1, 2, 3))


def test_a_perfect_model_makes_no_error() -> None:
    held = data()
    found = denoising_errors(Model(held.latents, 1, 0), held, 0, 4)
    assert found["denoising_mse"] == pytest.approx(0, abs=1e-9)
    assert found["denoising_r2"] == pytest.approx(1)


def test_known_errors_are_measured() -> None:
    held = data()
    shifted = denoising_errors(Model(held.latents, 1, 0.5), held, 0, 4)
    assert shifted["denoising_mse"] == pytest.approx(0.25, rel=1e-4)
    assert shifted["denoising_rmse"] == pytest.approx(0.5, rel=1e-4)
    assert shifted["denoising_mae"] == pytest.approx(0.5, rel=1e-4)
    # Predicting nothing leaves about all of the variance: R² near zero.
    assert denoising_errors(Model(held.latents, 0, 0), held, 0, 4)["denoising_r2"] == pytest.approx(0, abs=0.02)


def test_the_nearest_training_picture() -> None:
    random = np.random.default_rng(0)
    training = random.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    pictures = np.concatenate([training[7:8], random.integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)])
    found = nearest_distances(pictures, training, block=4)
    differences = pictures[:, None].astype(float) - training[None].astype(float)
    np.testing.assert_allclose(found, np.sqrt((differences**2).sum((2, 3, 4))).min(1), atol=1e-4)
    assert found[0] == 0
