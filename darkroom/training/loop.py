"""The training loop, to be read from top to bottom. To resume, run it again in the same work folder.

Each step's pictures, noise, times and dropped captions follow from (seed, step) alone: a training that was killed and
resumed ends, on a CPU with the same number of threads, in the same bytes as one that never was.
"""

import math
import os
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.nn import functional

from darkroom.artifacts import Shards
from darkroom.devices import prepare
from darkroom.diffusion import flow
from darkroom.diffusion.ema import Ema
from darkroom.diffusion.pipeline import assemble, load_text, load_vae, new_unet, save_pipeline
from darkroom.diffusion.sampling import draw, grid
from darkroom.errors import Diverged, Interrupted
from darkroom.randomness import generator, seed_of
from darkroom.recipe import Train
from darkroom.store import need_room, write_json

from . import checkpoints
from .card import model_card
from .data import Data
from .events import Events
from .job import Job

DONE = "trained.json"
VALIDATION_BATCH = 256


def train(job: Job, work: Path) -> None:
    """Train to the end, leaving ``pipeline/``, ``grids/`` and ``events.jsonl`` in ``work``.

    Raises :class:`Diverged` when the loss is no longer finite and :class:`Interrupted` on SIGTERM, after saving.
    """
    if (work / DONE).exists():
        return
    stop = Stop()
    prepare(job.train.threads, job.device)
    recipe, device = job.train, torch.device(job.device)

    # The data: small enough to hold, as latents. N C h w float32, and one embedding [tokens, width] a distinct caption.
    tokenizer, text_encoder = load_text(job.text_encoder)
    shards = Shards(job.digests["shards"], job.shards)
    data = Data(shards, "train", tokenizer, text_encoder).to(device)
    validation = Data(shards, "validation", tokenizer, text_encoder).to(device)

    # The model, its averaged weights and its optimiser.
    _, channels, size, _ = data.latents.shape
    unet = new_unet(job.model, channels, size, data.embeddings.shape[-1], seed_of(job.seed, "weights"))
    unet = unet.to(device, memory_format=torch.channels_last).train()
    parameters = dict(unet.named_parameters())
    ema = Ema(parameters, recipe.ema_decay)
    groups = [
        {"params": [value for value in parameters.values() if value.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [value for value in parameters.values() if value.ndim <= 1], "weight_decay": 0.0},  # biases, norms
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)

    # Weights, averages and two moments, in the checkpoints that are kept and one being written; then the pipeline.
    weights = sum(value.numel() * value.element_size() for value in parameters.values())
    need_room(work, weights * (4 * (checkpoints.KEEP + 1) + 1) + job.reserve, "training")

    # Where the last attempt stopped.
    start = 0
    if (resumed := checkpoints.newest(work)) is not None:
        start, saved = resumed
        unet.load_state_dict(saved["model"])
        for name, average in saved["ema"].items():
            ema.average[name].copy_(average)
        checkpoints.restore_optimizer(optimizer, saved["optimizer"])
    events = Events(work, start)
    pipeline = assemble(unet, load_vae(job.vae).to(device), tokenizer, text_encoder.to(device))

    def save(step: int) -> None:
        moments = checkpoints.optimizer_tensors(optimizer)
        checkpoints.save(work, step, {"model": unet.state_dict(), "ema": ema.average, "optimizer": moments})

    def sample(step: int) -> None:
        prompts = recipe.prompts or tuple(sorted(set(validation.captions)))[:16]
        sampler = job.sampler.model_copy(update={"batch": len(prompts)})  # the same few every time: no call to fill up
        (work / "grids").mkdir(exist_ok=True)
        name = f"grids/{step:08d}.png"
        with Averaged(unet, ema):
            sheet = grid(draw(pipeline, prompts, job.seed, sampler), columns=math.ceil(len(prompts) ** 0.5))
        sheet.save(work / name)
        events.say(step, grid=name)

    def look(step: int, validate: bool = True, draw_grid: bool = True) -> None:
        """The validation loss and the grid, where they are due; the model is afterwards as it was before."""
        if validate and (step % recipe.validate_every == 0 or step == recipe.steps):
            with Averaged(unet, ema):
                value = validation_loss(unet, validation, job.seed)
            events.say(step, metrics={"validation/loss": value})
        if draw_grid and step % recipe.grid_every == 0 and step < recipe.steps:
            sample(step)

    # The loop. A stop between two steps saves the last one; all else that is cut short is done again.
    clock, seen = time.monotonic(), start
    if start:
        look(start, events.lacks("validation/loss"), events.lacks("grid"))
    for step in range(start, recipe.steps):
        stop.hold()
        rate = learning_rate(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(unet, data, job.seed, step, recipe)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.clip_gradient_norm or math.inf)
        if not torch.isfinite(norm):
            raise Diverged(
                f"training diverged at step {step}: the loss is {loss.item()}; "
                f"lower train.learning_rate ({recipe.learning_rate}) or train more warm-up steps"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(parameters, step)

        done, last = step + 1, step + 1 == recipe.steps
        if done % recipe.log_every == 0 or last:
            passed = time.monotonic() - clock
            speed = (done - seen) * recipe.batch / max(passed, 1e-9)
            events.say(
                done,
                metrics={
                    "train/loss": loss.item(),
                    "train/gradient_norm": norm.item(),
                    "train/learning_rate": rate,
                    "train/pictures_per_second": round(speed, 1),
                },
            )
            clock, seen = time.monotonic(), done
        if done % recipe.checkpoint_every == 0 or last or stop.asked:
            save(done)
        stop.release(f"training stopped at step {done} of {recipe.steps}; the same command goes on from there")
        look(done)

    # The finished model: the averaged weights, as an ordinary diffusers pipeline.
    if start < recipe.steps or events.lacks("grid"):
        sample(recipe.steps)
    with Averaged(unet, ema):
        target, temporary = work / "pipeline", work / ".pipeline.tmp"
        for folder in (target, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        save_pipeline(pipeline, temporary, model_card(job, len(data.latents)))
        os.replace(temporary, target)
    events.close()
    write_json(work / DONE, {"steps": recipe.steps})
    shutil.rmtree(work / "checkpoints", ignore_errors=True)


def batch_rows(count: int, batch: int, seed: int, step: int) -> torch.Tensor:
    """The rows of a step: every row once an epoch, in an order that follows from (seed, epoch)."""
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    order = torch.cat([torch.randperm(count, generator=generator(seed, "epoch", epoch)) for epoch in epochs])
    offset = first - epochs[0] * count
    return order[offset : offset + batch]


def learning_rate(recipe: Train, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _loss(unet: Any, data: Data, seed: int, step: int, recipe: Train) -> torch.Tensor:
    """The mean squared error of the predicted velocity on the step's batch."""
    device = data.latents.device
    rows = batch_rows(len(data.latents), recipe.batch, seed, step).to(device)
    random = generator(seed, "step", step)
    times = flow.draw_times(recipe.batch, recipe.timestep_mean, recipe.timestep_std, random).to(device)
    clean = data.latents[rows]
    noise = torch.randn(clean.shape, generator=random).to(device, memory_format=torch.channels_last)
    captions = data.rows[rows]
    captions = torch.where(torch.rand(recipe.batch, generator=random).to(device) < recipe.caption_dropout, 0, captions)
    predicted = unet(
        flow.interpolate(clean, noise, times), times * flow.TIME_SCALE, encoder_hidden_states=data.embeddings[captions]
    ).sample
    return functional.mse_loss(predicted.float(), flow.velocity(clean, noise))


@torch.inference_mode()
def validation_loss(unet: Any, data: Data, seed: int) -> float:
    """The same error on the validation side, at times and noise that never change."""
    noise = torch.randn(data.latents.shape, generator=generator(seed, "validation")).to(data.latents.device)
    times = flow.fixed_times(len(noise))[torch.randperm(len(noise), generator=generator(seed, "validation times"))]
    total = torch.zeros((), dtype=torch.float64)
    for part in torch.arange(len(noise)).split(VALIDATION_BATCH):
        clean, when = data.latents[part], times[part].to(noise.device)
        predicted = unet(
            flow.interpolate(clean, noise[part], when),
            when * flow.TIME_SCALE,
            encoder_hidden_states=data.embeddings[data.rows[part]],
        ).sample
        total += (predicted - flow.velocity(clean, noise[part])).double().square().sum().cpu()
    return float(total / noise.numel())


class Averaged:
    """Within it the model has the averaged weights, and is set to evaluate."""

    def __init__(self, unet: Any, ema: Ema) -> None:
        self.unet, self.ema = unet, ema

    def __enter__(self) -> None:
        self._own = {name: value.detach().clone() for name, value in self.unet.named_parameters()}
        self._set(self.ema.average)
        self.unet.eval()

    def __exit__(self, *_: object) -> None:
        self._set(self._own)
        self.unet.train()

    @torch.no_grad()
    def _set(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.unet.named_parameters():
            parameter.copy_(values[name])


class Stop:
    """SIGTERM ends what runs at once, but a step and its saving are waited for: they are never half done."""

    def __init__(self) -> None:
        self.asked, self._held = False, False
        self._words = "training stopped; the same command goes on from its last checkpoint"
        signal.signal(signal.SIGTERM, self._hear)

    def hold(self) -> None:
        """A step begins."""
        self._held = True

    def release(self, words: str) -> None:
        """The step is over, and saved if that was due; raises :class:`Interrupted` when a stop was asked for."""
        self._held = False
        if self.asked:
            raise Interrupted(words)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if not self._held:
            raise Interrupted(self._words)
