"""How far drawn pictures are from the held-out ones while a model trains, so that validations can go by it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darkroom.artifacts import Shards
from darkroom.diffusion.sampling import draw
from darkroom.errors import RecipeError
from darkroom.evaluation.evaluate import real_pictures
from darkroom.evaluation.features import folder_features, kernel_of, load, measure_of
from darkroom.evaluation.frechet import Normal, distance
from darkroom.evaluation.samples import save_pictures
from darkroom.evaluation.sets import kernel_distance
from darkroom.randomness import generator, seed_of

from .job import Job

ENOUGH = 2  # pictures for each of the features' dimensions, below which a covariance says little


class Drawn:
    """The same noise and texts of the validation side every time, so that what changes is the model."""

    def __init__(self, job: Job, shards: Shards, texts: Sequence[str], device: torch.device) -> None:
        """``texts`` are those of the validation side. Raises :class:`RecipeError` for what is no extractor."""
        plan = job.train.distance
        assert plan is not None
        try:
            self._extractor = load(str(job.parts["features"]), str(device), plan.layer)
        except RecipeError as error:
            raise RecipeError(f"train.distance.features = {plan.features!r}: {error}") from None
        self._device, self._sampler, self._seed = device, job.sampler, seed_of(job.seed, "distance")
        order = torch.randperm(len(texts), generator=generator(job.seed, "distance texts")).tolist()
        self._prompts = [texts[order[place % len(order)]] for place in range(plan.count)]
        pixels, _ = real_pictures(shards, "validation")
        self._real = self._features(list(pixels.permute(0, 2, 3, 1).numpy()))
        self._normal = Normal(self._real) if min(plan.count, len(pixels)) >= ENOUGH * self._real.shape[1] else None
        measure = measure_of(plan.features)
        self.name = measure if self._normal is not None else kernel_of(measure)
        """What the distance is called everywhere: after its kind and its extractor."""

    def distance(self, pipeline: Any) -> float:
        """Of what the pipeline draws now."""
        found = self._of(pipeline, len(self._prompts))
        if self._normal is None:
            return kernel_distance(found, self._real)
        return distance(Normal(found), self._normal)

    def rehearse(self, pipeline: Any) -> None:
        """As much of it as takes as much memory as all."""
        self._of(pipeline, self._sampler.batch)

    def _of(self, pipeline: Any, count: int) -> np.ndarray:
        with torch.autocast(self._device.type, enabled=False):  # pictures are drawn and seen as they will be
            return self._features(draw(pipeline, self._prompts[:count], self._seed, self._sampler))

    def _features(self, pictures: list[Any]) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            save_pictures(pictures, Path(folder))
            with torch.autocast(self._device.type, enabled=False):
                return folder_features(Path(folder), self._extractor)
