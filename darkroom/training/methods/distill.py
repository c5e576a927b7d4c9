"""Adversarial distillation: a student learns to draw in a few steps what its teacher draws in many.

Two losses, as in Sauer et al., Adversarial Diffusion Distillation (2023). The distance from the teacher is that to the
picture which it draws from the same noise, in the form of Kang et al., Distilling Diffusion Models into Conditional
GANs (2024), section 3.1: unlike a teacher that scores what the student drew, it leaves no variety out. The opponent is
that of Sauer et al., Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation (2024): heads
on the frozen teacher's features of noised latents, so that nothing is decoded and the text is judged with the picture.
The student is trained on the very states that its sampler brings it to (Yin et al., Improved Distribution Matching
Distillation, 2024, section 4.5).
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from darkroom.artifacts import Shards
from darkroom.diffusion import adversarial
from darkroom.diffusion.ema import Ema
from darkroom.diffusion.families import Family, family_of
from darkroom.diffusion.objectives import Objective, of_scheduler
from darkroom.diffusion.pipeline import load_pipeline, save_pipeline
from darkroom.diffusion.sampling import draw, grid, initial_noise
from darkroom.errors import RecipeError
from darkroom.preprocess.texts import Texts
from darkroom.randomness import generator, seed_of

from .. import draws, optimizers
from ..data import Side
from ..job import Job
from .autoencoder import adversary
from .base import Batch, Loss, Method, Player

if TYPE_CHECKING:
    from PIL import Image

GRID = 16  # pictures of a sheet, where the recipe names no prompts
VALIDATION = 256  # pictures of a validation, at most
AT_ONCE = 64  # pictures that the teacher draws together


@dataclass(frozen=True)
class Pairs:
    """What the teacher draws from which noise."""

    noise: torch.Tensor
    """[N, c, h, w], on the CPU."""
    rows: torch.Tensor
    """[N]: whose conditions each was drawn for, among those of its side."""
    pictures: torch.Tensor
    """[N, c, h, w], latents."""


class Distill(Method):
    """A student that starts as its teacher. Tensors are NCHW latents, as the shards have them."""

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, device)
        self.plan, self.adversary_plan = job.train.distill, job.train.adversary
        self.pipeline = load_pipeline(job.parts["base"], str(device))
        self.family: Family = family_of(self.pipeline)
        self.objective: Objective = of_scheduler(self.pipeline.scheduler)
        self.sampler = self.pipeline.scheduler  # the teacher's own
        self.pipeline.scheduler = few_steps(self.sampler)
        if self.plan.guidance > 1 and self.family.asked_by == "nothing":
            raise RecipeError(
                f"train.distill.guidance = {self.plan.guidance}: the base is unconditional, and there is nothing to "
                "guide it by: set it to 1"
            )

        # The data, with what the teacher is asked by.
        shards = Shards(job.digests["shards"], job.shards)
        self.data = Side(shards, "train", self.family.asked_by)
        self.validation = Side(shards, "validation", self.family.asked_by)
        encoders = self.family.encoders(self.pipeline)
        texts = Texts.cached(lambda some: self.family.encode(self.pipeline, some), encoders, shards)
        self.data.condition(texts).to(device)
        self.validation.condition(texts).to(device)

        # The teacher, its student, which takes its place in the pipeline, and the opponent.
        self.student: Any = getattr(self.pipeline, self.family.denoiser)
        self.teacher: Any = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.student.to(memory_format=torch.channels_last).train()
        self.teacher.to(memory_format=torch.channels_last)
        parameters = dict(self.student.named_parameters())
        ema = Ema(parameters, job.train.ema_decay) if job.train.ema_decay is not None else None
        self.players = [Player("model", self.student, parameters, optimizers.build(parameters, job.train), ema)]
        self.pairs = self.drawn_by_teacher(self.data, "pairs", self.plan.pairs)
        self.held_out = self.drawn_by_teacher(
            self.validation, "validation", min(VALIDATION, len(self.validation.texts))
        )
        self.features = adversarial.Features(self.teacher, self.adversary_plan.layers)
        if self.adversary_plan.weight:
            self.players.append(self._opponent())

    def _opponent(self) -> Player:
        part = self.data.parts[0]
        with torch.no_grad(), self.features.listening() as heard:
            times = self.objective.model_times(self.objective.fixed_times(1)).to(self.device)
            self.family.predict(self.teacher, part.latents[:1], times, part.given(part.rows[:1]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.job.seed, "adversary"))
            widths = [some.shape[-1] for some in heard]
            self.discriminator = adversarial.FeatureDiscriminator(widths, self.adversary_plan.channels)
        return adversary(self.discriminator.to(self.device), self.adversary_plan, self.job.train.learning_rate)

    @property
    def pictures(self) -> int:
        """Those of the training side, which the student is held against."""
        return self.data.pictures

    @torch.no_grad()
    def drawn_by_teacher(self, side: Side, purpose: str, count: int) -> Pairs:
        """Noise, whose text it is drawn for, and what the teacher draws from it, guided and by its own sampler.

        The texts are those of a side, over and over; some training texts are left empty (``caption_dropout``).
        """
        train, seed = self.job.train, seed_of(self.job.seed, purpose)
        part = max(side.parts, key=lambda one: len(one.latents))  # the square, which the finished model draws
        shape = (int(part.latents.shape[1]), side.latent_size, side.latent_size)
        noise = torch.stack([initial_noise(seed, index, shape) for index in range(count)])
        rows = torch.cat([one.rows for one in side.parts]).cpu()
        rows = rows[torch.arange(count) % len(rows)]
        if side is self.data:
            rows[torch.rand(count, generator=generator(seed, "dropout")) < train.caption_dropout] = 0
        pictures = []
        for some in torch.arange(count).split(AT_ONCE):
            asked, unasked = (part.given(texts.to(self.device)) for texts in (rows[some], torch.zeros_like(some)))
            state = noise[some].to(self.device)
            self.sampler.set_timesteps(self.plan.teacher_steps)
            for time in self.sampler.timesteps:
                times = time.to(self.device).expand(len(some))
                predicted = self.family.predict(self.teacher, state, times, asked)
                if self.plan.guidance > 1:
                    plain = self.family.predict(self.teacher, state, times, unasked)
                    predicted = plain + self.plan.guidance * (predicted - plain)
                state = self.sampler.step(predicted, time, state, return_dict=False)[0]
            pictures.append(state.float())
        return Pairs(noise, rows.to(self.device), torch.cat(pictures))

    def batch(self, step: int) -> Batch:
        """Real latents, pairs of the teacher's, and the states that the student's own steps bring it to from their
        noise: the same step of the sampler for all rows. The noise under which the opponent judges is drawn here, too.
        """
        train, seed = self.job.train, self.job.seed
        counts = tuple(len(part.latents) for part in self.data.parts)
        bucket, rows = draws.batch(counts, train.batch, seed, step)
        part = self.data.parts[bucket]
        chosen = draws.batch_rows(len(self.pairs.noise), train.batch, seed_of(seed, "pairs"), step)
        random = generator(seed, "step", step)
        place = int(torch.randint(0, self.plan.steps, (), generator=random))
        times = self.objective.draw_times(train.batch, train.timestep_mean, train.timestep_std, random)
        noise_drawn = torch.randn((train.batch, *self.pairs.noise.shape[1:]), generator=random)
        noise_real = torch.randn((train.batch, *part.latents.shape[1:]), generator=random)
        texts = part.given(self.pairs.rows[chosen.to(self.device)])
        noise = self.pairs.noise[chosen].to(self.device, memory_format=torch.channels_last)
        tensors = {
            "state": self.steps_of_student(noise, texts, place),
            "place": torch.full((train.batch,), place),
            "wanted": self.pairs.pictures[chosen.to(self.device)],
            "real": part.latents[rows.to(self.device)],
            "times": times.to(self.device),
            "noise_drawn": noise_drawn.to(self.device),
            "noise_real": noise_real.to(self.device),
            **{f"given.{name}": value for name, value in texts.items()},
            **{f"real.{name}": value for name, value in part.given(part.rows[rows.to(self.device)]).items()},
        }
        return Batch([part.ids[row] for row in rows.tolist()], tensors)

    def loss(self, player: Player, batch: Batch, step: int) -> Loss:
        """The student's loss, or that of its opponent."""
        if player is self.players[0]:
            return self._distilling(batch, step)
        return self._judging(batch)

    def _distilling(self, batch: Batch, step: int) -> Loss:
        """teacher_weight L_distillation + weight L_adversarial (Sauer et al. 2023, equation 1).

        The distance is the mean squared error to the teacher's picture; the opponent judges the answer noised to a
        random time, by the teacher's features.
        """
        given = batch.tensors
        drawn = self.answer(given["state"], int(given["place"][0]), _named(given, "given."))
        distance = functional.mse_loss(drawn, given["wanted"])
        value, told = self.plan.teacher_weight * distance, {"teacher": distance}
        if self.adversary_plan.weight and step >= self.adversary_plan.start:
            with adversarial.frozen(self.discriminator):
                scores = self.discriminator(
                    self._features(drawn, given["noise_drawn"], given["times"], given, "given.")
                )
            value = value - self.adversary_plan.weight * scores.mean()
            told["adversarial"] = -scores.mean()
        return Loss(value, told)

    def _judging(self, batch: Batch) -> Loss:
        """The hinge loss on features of noised real latents and of what the student now answers, noised likewise."""
        given = batch.tensors
        with torch.no_grad():
            drawn = self.answer(given["state"], int(given["place"][0]), _named(given, "given."))
            of_real = self._features(given["real"], given["noise_real"], given["times"], given, "real.")
            of_drawn = self._features(drawn, given["noise_drawn"], given["times"], given, "given.")
        real, made = self.discriminator(of_real), self.discriminator(of_drawn)
        return Loss(adversarial.hinge(real, made), {"real": real.mean(), "drawn": made.mean()})

    def _features(
        self,
        clean: torch.Tensor,
        noise: torch.Tensor,
        times: torch.Tensor,
        given: dict[str, torch.Tensor],
        whose: str,
    ) -> list[torch.Tensor]:
        with self.features.listening() as heard:
            noisy = self.objective.noisy(clean, noise, times)
            self.family.predict(self.teacher, noisy, self.objective.model_times(times), _named(given, whose))
        return heard

    def answer(self, state: torch.Tensor, place: int, texts: dict[str, torch.Tensor]) -> torch.Tensor:
        """The picture that the student takes a state of the sampler's step ``place`` for."""
        predicted = self.family.predict(self.student, state, self._model_times(len(state), place), texts)
        return self.objective.clean(state, predicted.float(), self._times(len(state), place))

    def _model_times(self, count: int, place: int) -> torch.Tensor:
        """The sampler's own timestep, which the finished pipeline will pass."""
        self.pipeline.scheduler.set_timesteps(self.plan.steps)
        time: torch.Tensor = self.pipeline.scheduler.timesteps[place].to(self.device)
        return time.expand(count)

    def _times(self, count: int, place: int) -> torch.Tensor:
        """The same in the objective's measure."""
        if self.objective.kind == "flow":
            sigma: torch.Tensor = self.pipeline.scheduler.sigmas[place].float().to(self.device)
            return sigma.expand(count)
        return self._model_times(count, place).long()

    @torch.no_grad()
    def steps_of_student(
        self, noise: torch.Tensor, texts: dict[str, torch.Tensor], places: int | None = None
    ) -> torch.Tensor:
        """The state after the sampler's first ``places`` steps from noise; None: after all of them."""
        scheduler, state = self.pipeline.scheduler, noise
        scheduler.set_timesteps(self.plan.steps)
        for time in scheduler.timesteps[:places]:
            predicted = self.family.predict(self.student, state, time.to(self.device).expand(len(state)), texts)
            state = scheduler.step(predicted, time, state, return_dict=False)[0]
        return state

    def validate(self) -> dict[str, float]:
        """How far the student's pictures, drawn in all of its steps, are from the teacher's of the same noise and text.

        For texts of the validation side and noise that never changes: the mean squared error, and the energy distance,
        which asks only whether the two sets are alike.
        """
        part = self.validation.parts[0]
        made = [
            self.steps_of_student(self.held_out.noise[some].to(self.device), part.given(self.held_out.rows[some]))
            for some in torch.arange(len(self.held_out.noise)).split(AT_ONCE)
        ]
        drawn, wanted = torch.cat(made), self.held_out.pictures
        error = float((drawn - wanted).double().square().mean())
        return {"validation/loss": error, "validation/energy_distance": energy_distance(drawn, wanted)}

    def sheet(self) -> "Image.Image":
        """One picture for each of the recipe's prompts, or for some of the validation side's texts."""
        prompts = self.job.train.prompts or self.validation.prompts(GRID)
        if self.family.asked_by == "nothing":
            prompts = self.validation.prompts(GRID)
        sampler = self.job.sampler.model_copy(update={"batch": len(prompts)})  # the same few every time
        return grid(draw(self.pipeline, prompts, self.job.seed, sampler), columns=math.ceil(len(prompts) ** 0.5))

    def save(self, folder: Path) -> None:
        """An ordinary diffusers pipeline, with the student in its teacher's place."""
        save_pipeline(self.pipeline, folder, self._card())

    def _card(self) -> str:
        asked = self.family.asked_by == "caption"
        prompt = f"{next(iter(self.job.train.prompts), 'a prompt')!r}, " if asked else ""
        guidance = ", guidance_scale=1.0" if asked else ""
        tag = "text-to-image" if asked else "unconditional-image-generation"
        taken = f", guided by {self.plan.guidance:g}" if self.plan.guidance > 1 else ""
        return f"""---
library_name: diffusers
pipeline_tag: {tag}
tags: [darkroom]
---

# {self.job.name}

A `{self.family.pipeline}` that draws in {self.plan.steps} steps, without guidance. It was distilled by adversarial
diffusion distillation from `{self.job.model.base}`{taken}, on {self.pictures:,} pictures for
{self.job.train.steps:,} steps of {self.job.train.batch}.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("this folder")
picture = pipeline({prompt}num_inference_steps={self.plan.steps}{guidance}).images[0]
```

Made by darkroom; seed {self.job.seed}, data `{self.job.digests["shards"][:12]}`.
"""


def few_steps(scheduler: Any) -> Any:
    """A scheduler for the same path whose every step goes by one answer alone, the last one to the picture.

    Those of higher order carry on what earlier answers say: but a student's answers are finished pictures.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if scheduler.config.get("use_dynamic_shifting"):
        raise RecipeError(
            f"model.base: its {type(scheduler).__name__} moves its steps by each picture's size, and a student is made "
            "for the same steps always: save the base with use_dynamic_shifting = false"
        )
    if type(scheduler).__name__.startswith("FlowMatchEuler"):
        return scheduler
    if scheduler.config.get("use_flow_sigmas"):
        return DPMSolverMultistepScheduler.from_config(scheduler.config, solver_order=1)
    return DDIMScheduler.from_config(
        scheduler.config, timestep_spacing="trailing", set_alpha_to_one=False, clip_sample=False
    )


def energy_distance(drawn: torch.Tensor, wanted: torch.Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two sets [N, ...] (Székely and Rizzo 2013), unbiased: 0 for equal
    distributions, and a little below it by chance.
    """
    one, other = drawn.double().flatten(1).cpu(), wanted.double().flatten(1).cpu()

    def within(points: torch.Tensor) -> float:
        return float(torch.cdist(points, points).sum() / max(1, len(points) * (len(points) - 1)))

    return float(2 * torch.cdist(one, other).mean()) - within(one) - within(other)


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


METHOD = Distill
