"""Training an autoencoder, whose latents denoisers learn on: to give back each picture, sharp, from few numbers.

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models (2022), appendix G; the opponent and its
weight after Esser et al., Taming Transformers for High-Resolution Image Synthesis (2021), section 3.2.
"""

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from darkroom.artifacts import Shards
from darkroom.diffusion import adversarial
from darkroom.diffusion.ema import Ema
from darkroom.diffusion.pipeline import forget_place, load_vae
from darkroom.evaluation.reconstruction import pairs, rebuild, to_network
from darkroom.preprocess.shards import load_parts, read_index
from darkroom.randomness import generator, seed_of
from darkroom.recipe_training import Autoencoder as Shape

from .. import draws, optimizers
from ..job import Job
from .base import Batch, Loss, Method, Player

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 16  # pictures of a sheet
AT_ONCE = 4_000_000  # pixels that are encoded together where no gradient is wanted
BETAS = (0.5, 0.9)  # of the opponent's Adam, as in VQGAN


class Autoencoder(Method):
    """An ``AutoencoderKL`` against a PatchGAN. Pictures are N3HW in [-1, 1]."""

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, device)
        shards = Shards(job.digests["shards"], job.shards)
        index = read_index(shards)
        self.size, self._pictures = int(index["size"]), int(index["sides"]["train"])
        self.data = [(tensors["pixels"], [row["id"] for row in rows]) for tensors, rows in _pixels(shards, "train")]
        self.validation = [tensors["pixels"] for tensors, _ in _pixels(shards, "validation")]

        self.plan, self.adversary_plan = job.train.autoencoder, job.train.adversary
        self.vae = (
            load_vae(job.parts["vae"])
            if "vae" in job.parts
            else new(self.plan, self.size, seed_of(job.seed, "weights"))
        )
        self.vae.to(device, memory_format=torch.channels_last).train()
        self.perceptual = (
            adversarial.load_perceptual(job.parts["perceptual"], device) if "perceptual" in job.parts else None
        )
        parameters = dict(self.vae.named_parameters())
        ema = Ema(parameters, job.train.ema_decay) if job.train.ema_decay is not None else None
        self.players = [Player("model", self.vae, parameters, optimizers.build(parameters, job.train), ema)]
        if self.adversary_plan.weight:
            self.players.append(self._opponent())

    def _opponent(self) -> Player:
        plan, train = self.adversary_plan, self.job.train
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.job.seed, "adversary"))
            self.discriminator = adversarial.PatchDiscriminator(3, plan.channels, plan.layers)
        self.discriminator.to(self.device).to(memory_format=torch.channels_last)
        return adversary(self.discriminator, plan, train.learning_rate)

    @property
    def pictures(self) -> int:
        """Those of the training side."""
        return self._pictures

    def batch(self, step: int) -> Batch:
        """The pictures of a step, all of one shape, and the noise of their posteriors."""
        size, seed = self.job.train.batch, self.job.seed
        bucket, rows = draws.batch(tuple(len(ids) for _, ids in self.data), size, seed, step)
        pixels, ids = self.data[bucket]
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        latent = (self.vae.config.latent_channels, pixels.shape[2] // factor, pixels.shape[3] // factor)
        noise = torch.randn((size, *latent), generator=generator(seed, "step", step))
        tensors = {"pictures": to_network(pixels[rows]), "noise": noise}
        return Batch(
            [ids[row] for row in rows.tolist()],
            {name: value.to(self.device, memory_format=torch.channels_last) for name, value in tensors.items()},
        )

    def loss(self, player: Player, batch: Batch, step: int) -> Loss:
        """The autoencoder's loss, or that of its opponent."""
        if player is self.players[0]:
            return self._rebuilding(batch, step)
        return self._judging(batch)

    def _rebuilding(self, batch: Batch, step: int) -> Loss:
        """reconstruction + kl_weight KL + weight lambda L_adversarial, lambda as in Esser et al. 2021, equation 7."""
        pictures = batch.tensors["pictures"]
        posterior, rebuilt = self._rebuilt(batch)
        kept, parts = self.distance(rebuilt, pictures)
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).sum() / pictures.numel()
        value = kept + self.plan.kl_weight * divergence
        told = {**parts, "kl": divergence}
        if self.adversary_plan.weight and step >= self.adversary_plan.start:
            with adversarial.frozen(self.discriminator):
                sharp = -self.discriminator(rebuilt).mean()
            balance = adversarial.adaptive_weight(kept, sharp, self.vae.decoder.conv_out.weight)
            value = value + self.adversary_plan.weight * balance * sharp
            told |= {"adversarial": sharp, "adaptive_weight": balance}
        return Loss(value, told)

    def _judging(self, batch: Batch) -> Loss:
        """The hinge loss, on the pictures and on what the autoencoder now makes of them."""
        with torch.no_grad():
            rebuilt = self._rebuilt(batch)[1]
        real, drawn = self.discriminator(batch.tensors["pictures"]), self.discriminator(rebuilt)
        return Loss(adversarial.hinge(real, drawn), {"real": real.mean(), "rebuilt": drawn.mean()})

    def _rebuilt(self, batch: Batch) -> tuple[Any, torch.Tensor]:
        posterior = self.vae.encode(batch.tensors["pictures"]).latent_dist
        return posterior, self.vae.decode(posterior.mean + posterior.std * batch.tensors["noise"]).sample

    def distance(self, rebuilt: torch.Tensor, pictures: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(the reconstruction loss, its parts): the mean absolute error and the perceptual loss, where there is one."""
        absolute = functional.l1_loss(rebuilt, pictures)
        if self.perceptual is None:
            return absolute, {"l1": absolute}
        seen = self.perceptual(rebuilt, pictures)
        return absolute + self.plan.perceptual_weight * seen, {"l1": absolute, "perceptual": seen}

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """The reconstruction loss and the decibels of the whole validation side, from the posteriors' means."""
        loss = squared = 0.0
        count = values = 0
        for pixels in self.validation:
            for part in pixels.split(_together(pixels)):
                pictures = to_network(part).to(self.device)
                rebuilt = self.vae.decode(self.vae.encode(pictures).latent_dist.mode()).sample
                loss += float(self.distance(rebuilt, pictures)[0]) * len(part)
                squared += float((rebuilt.clamp(-1, 1) - pictures).double().square().sum())
                count, values = count + len(part), values + pictures.numel()
        # The peak is 2: from -1 to 1.
        return {"validation/loss": loss / count, "validation/psnr": 10 * math.log10(4 * values / max(squared, 1e-12))}

    def sheet(self) -> "Image.Image":
        """Validation pictures, each above its reconstruction."""
        shown = self.validation[0][:SHOWN]
        return pairs(shown, rebuild(self.vae, shown), self.size)

    def save(self, folder: Path) -> None:
        """The autoencoder as ``AutoencoderKL.from_pretrained`` opens it, its latents scaled to a deviation of 1."""
        finished = copy.deepcopy(self.vae).eval().to(memory_format=torch.contiguous_format)
        deviation = self.latent_deviation(finished)
        finished.register_to_config(scaling_factor=round(1 / deviation, 6))
        forget_place(finished)
        finished.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").write_text(self._card(deviation), "utf-8")

    @torch.inference_mode()
    def latent_deviation(self, vae: Any) -> float:
        """The standard deviation of the posteriors' means over the whole training side, about their common mean."""
        total = squares = torch.zeros((), dtype=torch.float64)
        count = 0
        for pixels, _ in self.data:
            for part in pixels.split(_together(pixels)):
                mean = vae.encode(to_network(part).to(self.device)).latent_dist.mean.double().cpu()
                total, squares, count = total + mean.sum(), squares + mean.square().sum(), count + mean.numel()
        deviation = float((squares / count - (total / count).square()).sqrt())
        return deviation or 1.0  # constant latents have no scale

    def _card(self, deviation: float) -> str:
        train, plan = self.job.train, self.plan
        losses = ["the mean absolute error"]
        if self.perceptual is not None:
            losses.append(f"{plan.perceptual_weight:g} × a perceptual distance (features of `{plan.perceptual}`)")
        losses.append(f"{plan.kl_weight:g} × the divergence of the latents from a standard normal")
        if self.adversary_plan.weight:
            losses.append(f"an adversarial loss (PatchGAN, from step {self.adversary_plan.start:,} on)")
        start = f"from `{self.job.model.vae}`" if "vae" in self.job.parts else "from scratch"
        return f"""---
library_name: diffusers
tags: [darkroom, autoencoder]
---

# {self.job.name}

An `AutoencoderKL`, trained {start} on {self.pictures:,} pictures for {train.steps:,} steps of {train.batch} by
{"; ".join(losses)}.
`scaling_factor` is 1 / {deviation:.6g}: the standard deviation of its latents over the training pictures.

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("this folder")
```

In a recipe of darkroom, name this folder as `model.vae`.

Made by darkroom; seed {self.job.seed}, data `{self.job.digests["shards"][:12]}`.
"""


def new(plan: Shape, size: int, seed: int) -> Any:
    """An ``AutoencoderKL`` with fresh weights that follow from ``seed`` alone."""
    from diffusers import AutoencoderKL

    levels = len(plan.block_out_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=plan.block_out_channels,
            layers_per_block=plan.layers_per_block,
            latent_channels=plan.latent_channels,
            norm_num_groups=plan.norm_num_groups,
            sample_size=size,
        )


def adversary(module: torch.nn.Module, plan: Any, rate: float) -> Player:
    """The second player, with an Adam of its own."""
    parameters = dict(module.named_parameters())
    own = plan.learning_rate or rate
    optimizer = torch.optim.AdamW(list(parameters.values()), own, BETAS, weight_decay=0.0, fused=True)
    return Player("adversary", module, parameters, optimizer, rate=own / rate, start=plan.start)


def _pixels(shards: Shards, side: str) -> Any:
    return load_parts(shards, side, ("pixels",))


def _together(pixels: torch.Tensor) -> int:
    return max(1, AT_ONCE // (pixels.shape[2] * pixels.shape[3]))


METHOD = Autoencoder
