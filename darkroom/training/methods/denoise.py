"""Training a denoiser: on each picture's latents, with noise, against what its objective says."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from darkroom.artifacts import Shards
from darkroom.diffusion.ema import Ema
from darkroom.diffusion.families import Shape, family
from darkroom.diffusion.objectives import perturbed
from darkroom.diffusion.pipeline import save_pipeline
from darkroom.diffusion.sampling import draw, grid
from darkroom.errors import RecipeError
from darkroom.preprocess.texts import Texts, cut_words
from darkroom.randomness import generator

from .. import draws, optimizers
from ..card import model_card
from ..data import Data, Side
from ..job import Job
from ..start import start
from .base import Batch, Loss, Method, Player
from .prior import Prior

if TYPE_CHECKING:
    from PIL import Image

    from ..drawn import Drawn

VALIDATION_BATCH = 256
GRID = 16  # pictures of a sample sheet, where the recipe names no prompts


class Denoise(Method):
    """All weights of the denoiser are trained."""

    halves = True

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, device)
        self.family = family(job.model.family)
        shards = Shards(job.digests["shards"], job.shards)
        self.data = Side(shards, "train", self.family.asked_by, masks=job.train.objective.masked)
        self.validation = Side(shards, "validation", self.family.asked_by)
        labels = tuple(sorted({text for text in self.data.texts if text})) if self.family.asked_by == "label" else ()
        shape = Shape(self.data.parts[0].latents.shape[1], self.data.latent_size, labels)

        # The pipeline: frozen parts, and the denoiser between them.
        self.pipeline, self.objective = start(job, self.family, shape)
        self.pipeline.set_progress_bar_config(disable=True)
        if unknown := self.family.unknown(self.pipeline, self.data.texts):
            raise RecipeError(f"{job.model.base} has no class for the labels {', '.join(map(repr, unknown))}")
        self.prior = Prior.drawn(job, self.family, self.pipeline, device) if job.train.prior is not None else None
        self.condition(shards)
        self.pipeline.to(device)

        self.denoiser: Any = getattr(self.pipeline, self.family.denoiser)
        self.denoiser.to(memory_format=torch.channels_last).train()
        self.players = [self.player()]
        self._shards = shards

    @functools.cached_property
    def drawn(self) -> "Drawn | None":
        """What measures distances, where the recipe asks for them: only in processes that validate."""
        if self.job.train.distance is None:
            return None
        from ..drawn import Drawn  # the extractors and what they need are not for every training

        return Drawn(self.job, self._shards, self.validation.texts, self.device)

    def condition(self, shards: Shards) -> None:
        """Give every row what its text is encoded to, once for the whole training."""
        encoders = self.family.encoders(self.pipeline)
        texts = Texts.cached(lambda some: self.family.encode(self.pipeline, some), encoders, shards)
        self.data.condition(texts).to(self.device)
        self.validation.condition(texts).to(self.device)

    def player(self) -> Player:
        """What is trained: here all of the denoiser."""
        return self.playing(self.denoiser, dict(self.denoiser.named_parameters()))

    def playing(self, module: Any, parameters: dict[str, torch.nn.Parameter]) -> Player:
        """The player of some parameters of a module, with the recipe's optimiser and average."""
        train = self.job.train
        ema = Ema(parameters, train.ema_decay) if train.ema_decay is not None else None
        return Player("model", module, parameters, optimizers.build(parameters, train), ema)

    @property
    def pictures(self) -> int:
        """Those of the training side."""
        return self.data.pictures

    def batch(self, step: int) -> Batch:
        """Latents, noise, times and conditions of a step, whose pictures are of one shape."""
        train, seed = self.job.train, self.job.seed
        bucket, rows = draws.batch(tuple(len(part.latents) for part in self.data.parts), train.batch, seed, step)
        return self._composed(self.data.parts[bucket], rows, step)

    def largest(self) -> Batch:
        """A batch of the shape with the most pixels."""
        part = _largest(self.data)
        return self._composed(part, torch.arange(self.job.train.batch) % len(part.latents), 0)

    def _composed(self, part: Data, rows: torch.Tensor, step: int) -> Batch:
        """These rows with what is random in this step."""
        train, seed = self.job.train, self.job.seed
        random = generator(seed, "step", step)
        times = self.objective.draw_times(train.batch, train.timestep_mean, train.timestep_std, random)
        noise = torch.randn((train.batch, *part.latents.shape[1:]), generator=random)
        drop = torch.rand(train.batch, generator=random) < train.caption_dropout
        learnt, added = perturbed(noise, train.objective, random)
        ids = [part.ids[row] for row in rows.tolist()]
        rows = rows.to(self.device)
        texts = torch.where(drop.to(self.device), 0, part.rows[rows])
        noise = self._as_pictures(learnt)
        tensors = {
            "clean": part.latents[rows],
            "noise": noise,
            "added": noise if added is learnt else self._as_pictures(added),
            "times": times.to(self.device),
            **{f"given.{name}": value for name, value in part.given(texts).items()},
        }
        if part.masks is not None:
            tensors["mask"] = part.masks[rows.cpu()].to(self.device).float() / 255
        return self.prior.joined(Batch(ids, tensors), step, self.objective) if self.prior else Batch(ids, tensors)

    def _as_pictures(self, noise: torch.Tensor) -> torch.Tensor:
        return noise.to(self.device, memory_format=torch.channels_last)

    def loss(self, player: Player, batch: Batch, step: int) -> Loss:
        """The error of what is predicted, weighed as the objective says."""
        given = batch.tensors
        clean, noise, times = given["clean"], given["noise"], given["times"]
        noisy = self.objective.noisy(clean, given["added"], times)
        predicted = self.predict(noisy, times, _conditions(given))
        target = self.objective.target(clean, noise, times)
        if self.prior is None:
            return Loss(self.objective.error(predicted.float(), target, times, given.get("mask")))
        return Loss(self.prior.error(self.objective, predicted.float(), target, times, given))

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        """Ask the denoiser, in the recipe's precision."""
        return self.family.predict(self.denoiser, noisy, self.objective.model_times(times), given)

    def validate(self) -> dict[str, float]:
        """The mean squared error on the whole validation side, at times and noise that never change.

        Before it the distance of drawn pictures, where the recipe asks for one.
        """
        found = {} if self.drawn is None else {f"validation/{self.drawn.name}": self.drawn.distance(self.pipeline)}
        return {**found, "validation/loss": self.validation_loss(self.validation)}

    @torch.inference_mode()
    def validation_loss(self, side: Side) -> float:
        """The mean squared error on a side."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        for bucket, data in enumerate(side.parts):
            total += self._squared_error(data, (self.job.seed,) if bucket == 0 else (self.job.seed, bucket))
            count += data.latents.numel()
        return float(total / count)

    def rehearse(self) -> None:
        """The first batch of the largest shape."""
        with torch.inference_mode():
            self._squared_error(_largest(self.validation), ("rehearsal",), self._at_once())
        if self.drawn is not None:
            self.drawn.rehearse(self.pipeline)

    def _at_once(self) -> int:
        """Pictures of a validation batch: without gradients, more fit than in training."""
        return min(VALIDATION_BATCH, 4 * (self.job.train.micro_batch or self.job.train.batch))

    def _squared_error(self, data: Data, which: tuple[object, ...], most: int | None = None) -> torch.Tensor:
        noise = torch.randn(data.latents.shape, generator=generator(*which, "validation")).to(self.device)
        order = torch.randperm(len(noise), generator=generator(*which, "validation times"))
        fixed = self.objective.fixed_times(len(noise))[order]
        total = torch.zeros((), dtype=torch.float64)
        for rows in torch.arange(len(noise))[:most].split(self._at_once()):
            clean, times = data.latents[rows], fixed[rows].to(self.device)
            noisy = self.objective.noisy(clean, noise[rows], times)
            predicted = self.predict(noisy, times, data.given(data.rows[rows]))
            error = predicted - self.objective.target(clean, noise[rows], times)
            total += error.double().square().sum().cpu()
        return total

    def sheet(self) -> "Image.Image":
        """One picture for each of the recipe's prompts, or for some of the validation side's texts."""
        prompts = self.job.train.prompts or self.validation.prompts(GRID)
        if self.family.asked_by == "nothing":
            prompts = self.validation.prompts(GRID)
        sampler = self.job.sampler.model_copy(update={"batch": len(prompts)})  # the same few every time
        return grid(draw(self.pipeline, prompts, self.job.seed, sampler), columns=math.ceil(len(prompts) ** 0.5))

    def remarks(self) -> list[str]:
        """Words of the sheets' prompts that the text encoders do not read."""
        tokenizers = [getattr(self.pipeline, name) for name in self.family.encoder_parts() if "tokenizer" in name]
        found = (cut_words(tokenizers, prompt) for prompt in self.job.train.prompts)
        return [
            f"the end of a prompt in train.prompts is longer than the text encoder reads and is left out: {words!r}"
            for words in found
            if words
        ]

    def save(self, folder: Path) -> None:
        """An ordinary diffusers pipeline."""
        known = self.data.prompts(1)[0] if self.family.asked_by == "label" else None
        card = model_card(self.job, self.family, self.objective.kind, self.pictures, self.data.size, known)
        save_pipeline(self.pipeline, folder, card)


def _largest(side: Side) -> Data:
    """The rows of the shape with the most pixels."""
    return max(side.parts, key=lambda part: part.latents.shape[2] * part.latents.shape[3])


def _conditions(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("given."): value for name, value in tensors.items() if name.startswith("given.")}


METHOD = Denoise
