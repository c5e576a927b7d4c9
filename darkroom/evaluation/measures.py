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


@torch.inference_mode()
def denoising_errors(pipeline: Any, data: Sequence[Data], seed: int, timesteps: int) -> dict[str, float]:
    """MSE, RMSE, MAE and R² of what the pipeline's denoiser predicts, on every row, at ``timesteps`` fixed times and
    fixed noise. What it predicts (velocity, noise or picture) follows from its scheduler.

    ``data`` has a part for each shape. R² is one minus the ratio of the squared error to the target's squared
    deviation from its mean.
    """
    kind, objective = family_of(pipeline), of_scheduler(pipeline.scheduler)
    denoiser = getattr(pipeline, kind.denoiser)
    squared = absolute = total = total_square = 0.0
    count = 0
    cases = itertools.product(enumerate(data), enumerate(objective.fixed_times(timesteps)))
    for (shape, part), (index, time) in cases:
        which = (seed, "denoising", index) if shape == 0 else (seed, "denoising", index, shape)
        noise = torch.randn(part.latents.shape, generator=generator(*which)).to(part.latents.device)
        for rows in torch.arange(len(noise)).split(256):
            clean = part.latents[rows]
            times = time.to(clean.device).expand(len(rows))
            noisy = objective.noisy(clean, noise[rows], times)
            given = part.given(part.rows[rows])
            predicted = kind.predict(denoiser, noisy, objective.model_times(times), given)
            target = objective.target(clean, noise[rows], times).double()
            error = predicted.double() - target
            squared += float(error.square().sum())
            absolute += float(error.abs().sum())
            total += float(target.sum())
            total_square += float(target.square().sum())
            count += error.numel()
    mse = squared / count
    return {
        "denoising_mse": mse,
        "denoising_rmse": mse**0.5,
        "denoising_mae": absolute / count,
        "denoising_r2": 1 - squared / (total_square - total**2 / count),
    }
