"""Measures beside the distances: the CLIP score and the errors of denoising."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darkroom.diffusion.families import family_of
from darkroom.diffusion.objectives import of_scheduler
from darkroom.randomness import generator
from darkroom.training.data import Data


def clip_scores(picture_features: np.ndarray, prompts: list[str], folder: Path) -> np.ndarray:
    """100 max(cos, 0) of each picture with its prompt (Hessel et al. 2021, without their factor 2.5), float64 [N].

    ``picture_features`` [N, projection] come from the CLIP model of ``folder``.
    """
    from transformers import CLIPModel, CLIPTokenizer

    model: Any = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    distinct = sorted(set(prompts))
    with torch.inference_mode():
        tokens = tokenizer(
            distinct,
            padding="max_length",
            max_length=model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        pooled = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        embedded = model.text_projection(pooled).double().numpy()
    texts = dict(zip(distinct, embedded / np.linalg.norm(embedded, axis=1, keepdims=True), strict=True))
    pictures = picture_features / np.linalg.norm(picture_features, axis=1, keepdims=True)
    cosines = (pictures * np.stack([texts[prompt] for prompt in prompts])).sum(axis=1)
    scores: np.ndarray = 100 * np.maximum(cosines, 0)
    return scores


class Errors:
    """Sums of the errors of predictions, in float64, of which the measures are made."""

    def __init__(self) -> None:
        self.squared = self.absolute = self.total = self.total_square = 0.0
        self.count = 0

    def add(self, predicted: torch.Tensor, target: torch.Tensor) -> None:
        """Count these in; both of one shape."""
        target = target.double()
        error = predicted.double() - target
        self.squared += float(error.square().sum())
        self.absolute += float(error.abs().sum())
        self.total += float(target.sum())
        self.total_square += float(target.square().sum())
        self.count += error.numel()

    def measures(self) -> dict[str, float]:
        """MSE, RMSE, MAE and R²: one minus the squared error over the target's squared deviation from its mean."""
        mse = self.squared / self.count
        return {
            "mse": mse,
            "rmse": mse**0.5,
            "mae": self.absolute / self.count,
            "r2": 1 - self.squared / (self.total_square - self.total**2 / self.count),
        }


@torch.inference_mode()
def denoising_errors(
    pipeline: Any, data: Sequence[Data], seed: int, timesteps: int
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """How far what the pipeline's denoiser predicts is off, on every row, at ``timesteps`` fixed times, fixed noise.

    What it predicts (velocity, noise or picture) follows from its scheduler. ``data`` has a part for each shape.
    Returns the measures of all times together, by name, and those of each time apart, with its ``time``.
    """
    kind, objective = family_of(pipeline), of_scheduler(pipeline.scheduler)
    denoiser = getattr(pipeline, kind.denoiser)
    every, times = Errors(), objective.fixed_times(timesteps)
    apart = [Errors() for _ in times]
    for (shape, part), (index, time) in itertools.product(enumerate(data), enumerate(times)):
        which = (seed, "denoising", index) if shape == 0 else (seed, "denoising", index, shape)
        noise = torch.randn(part.latents.shape, generator=generator(*which)).to(part.latents.device)
        for rows in torch.arange(len(noise)).split(256):
            clean = part.latents[rows]
            now = time.to(clean.device).expand(len(rows))
            noisy = objective.noisy(clean, noise[rows], now)
            predicted = kind.predict(denoiser, noisy, objective.model_times(now), part.given(part.rows[rows]))
            for errors in (every, apart[index]):
                errors.add(predicted, objective.target(clean, noise[rows], now))
    found = {f"denoising_{name}": value for name, value in every.measures().items()}
    return found, [{"time": float(time), **errors.measures()} for time, errors in zip(times, apart, strict=True)]
