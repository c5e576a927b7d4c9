"""Prior preservation (Ruiz et al. 2022, DreamBooth, section 3.3): the base's own pictures of a class, learnt along with
the new ones, so that the class does not turn into the one thing that is taught.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darkroom.diffusion.families import Family
from darkroom.diffusion.objectives import Objective, perturbed
from darkroom.diffusion.sampling import draw
from darkroom.preprocess.latents import encode
from darkroom.randomness import generator, seed_of
from darkroom.recipe import Sampler

from .. import draws
from ..job import Job
from .base import Batch

FOLDER = "prior"


@dataclass(frozen=True)
class Prior:
    """The pictures of a class and what the denoiser is given for them."""

    job: Job
    latents: torch.Tensor  # NCHW
    conditions: dict[str, torch.Tensor]  # each [1, ...]

    @classmethod
    def drawn(cls, job: Job, family: Family, pipeline: Any, device: torch.device) -> "Prior":
        """Draw the class with the untrained base, once: what lies in the work folder is not drawn again.

        Picture i follows from (seed, i) alone.
        """
        plan, work = job.train.prior, job.work
        assert plan is not None
        assert work is not None, "the loop knows the work folder"
        (work / FOLDER).mkdir(exist_ok=True)
        sampler = Sampler(steps=plan.steps, guidance=plan.guidance, batch=plan.batch)
        files = [work / FOLDER / f"{index:05d}.png" for index in range(plan.pictures)]
        pipeline.to(device)
        for start in range(0, len(files), plan.batch):
            some = files[start : start + plan.batch]
            if all(file.is_file() for file in some):
                continue
            pictures = draw(pipeline, [plan.prompt] * len(some), seed_of(job.seed, "prior"), sampler, first=start)
            for picture, file in zip(pictures, some, strict=True):
                _save(picture, file)
            print(f"pictures of the class: {start + len(some)} of {len(files)}", flush=True)
        latents = encode(pipeline.vae, _pixels(files), family.shifts_latents).to(device)
        conditions = {name: value.to(device) for name, value in family.encode(pipeline, [plan.prompt]).items()}
        return cls(job, latents.contiguous(memory_format=torch.channels_last), conditions)

    def joined(self, batch: Batch, step: int, objective: Objective) -> Batch:
        """A step's batch, followed by as many rows of the class. They follow from (seed, step) alone, too."""
        train, seed = self.job.train, seed_of(self.job.seed, "prior")
        count, device = len(batch), self.latents.device
        rows = draws.batch_rows(len(self.latents), count, seed, step)
        random = generator(seed, "step", step)
        times = objective.draw_times(count, train.timestep_mean, train.timestep_std, random)
        noise = torch.randn((count, *self.latents.shape[1:]), generator=random)
        learnt, added = perturbed(noise, train.objective, random)
        clean = self.latents[rows.to(device)]
        more = {
            "clean": clean,
            "noise": learnt.to(device),
            "added": added.to(device),
            "times": times.to(device),
            "mask": torch.ones(count, 1, *clean.shape[-2:], device=device),
            **{f"given.{name}": value.expand(count, *value.shape[1:]) for name, value in self.conditions.items()},
        }
        tensors = {name: torch.cat([value, more[name].to(value.dtype)]) for name, value in batch.tensors.items()}
        tensors["class"] = torch.arange(2 * count, device=device) >= count
        return Batch(batch.ids + [f"class {row}" for row in rows.tolist()], tensors)

    def error(
        self,
        objective: Objective,
        predicted: torch.Tensor,
        target: torch.Tensor,
        times: torch.Tensor,
        given: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Mean error of the new pictures plus ``weight`` times that of the class, or a part's share of both.

        Over parts weighed by their rows it adds up to that of the whole, however a batch is cut.
        """
        plan = self.job.train.prior
        assert plan is not None
        total = predicted.new_zeros(())
        for which, weight in ((~given["class"], 1.0), (given["class"], plan.weight)):
            if rows := int(which.sum()):
                mask = given["mask"][which] if "mask" in given else None
                error = objective.error(predicted[which], target[which], times[which], mask)
                total = total + weight * error * 2 * rows / len(which)  # each half is half of the whole batch
        return total


def _save(picture: Any, file: Path) -> None:
    temporary = file.with_suffix(".tmp")
    picture.convert("RGB").save(temporary, "PNG")
    os.replace(temporary, file)


def _pixels(files: list[Path]) -> torch.Tensor:
    """uint8 N3HW."""
    import numpy as np
    from PIL import Image

    pictures = []
    for file in files:
        with Image.open(file) as picture:
            pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    return torch.stack(pictures)
