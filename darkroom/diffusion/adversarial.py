"""Discriminators, their losses, and what balances them: where a generator is trained against an opponent.

Goodfellow et al., Generative Adversarial Networks (2014). Here an opponent sharpens an autoencoder (Esser et al. 2021)
or a student that draws in few steps (Sauer et al. 2023). Each is a network of its own with an optimiser of its own;
what it says is always of patches or positions, never of a whole picture.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from darkroom.errors import RecipeError

SLOPE = 0.2  # of the leaky rectifiers, as in all that is cited here
GREATEST_WEIGHT = 1e4  # of :func:`adaptive_weight`
EPSILON = 1e-6


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, section 3.2.2): a score for each overlapping patch of a picture, whose sides must
    be 3 * 2**layers or more.

    ``layers`` strided 4x4 convolutions, each but the first with twice the channels of the one before (at most eight
    times the first's), then two of stride 1. Group norm takes the place of batch norm: what is said of a picture then
    depends on that picture alone.
    """

    def __init__(self, inputs: int, channels: int, layers: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(inputs, channels, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        width = channels
        for number in range(1, layers + 1):
            before, width = width, channels * min(2**number, 8)
            stages += [
                nn.Conv2d(before, width, 4, stride=2 if number < layers else 1, padding=1, bias=False),
                nn.GroupNorm(math.gcd(8, width), width),
                nn.LeakyReLU(SLOPE),
            ]
        self.stages = nn.Sequential(*stages, nn.Conv2d(width, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """NCHW -> N1hw: above zero for what it takes to be real."""
        scores: torch.Tensor = self.stages(pictures)
        return scores


class FeatureDiscriminator(nn.Module):
    """Heads on the features of a frozen network (Sauer et al. 2021; 2023, section 3.2): a score for each position.

    Each head sees the features of one block, normalised at each position so that no block is louder than another.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width, elementwise_affine=False),
                nn.Linear(width, channels),
                nn.LeakyReLU(SLOPE),
                nn.Linear(channels, channels),
                nn.LeakyReLU(SLOPE),
                nn.Linear(channels, 1),
            )
            for width in widths
        )

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """[N, positions, width] of each block -> [N, all positions]."""
        dtype = next(self.parameters()).dtype  # the frozen network's may be another
        scores = [head(some.to(dtype)).flatten(1) for head, some in zip(self.heads, features, strict=True)]
        return torch.cat(scores, dim=1)


class Features:
    """What some blocks of a denoiser answer while it is asked; gradients flow through."""

    def __init__(self, denoiser: Any, count: int) -> None:
        """``count`` blocks, evenly from the first to the last; the last alone where one is wanted."""
        blocks = _blocks(denoiser)
        if count > len(blocks):
            raise RecipeError(
                f"train.adversary.layers = {count}: the base's {type(denoiser).__name__} has {len(blocks)} blocks to "
                "judge by; set that many or fewer"
            )
        places = [round(place * (len(blocks) - 1) / max(1, count - 1)) for place in range(count)]
        self.blocks = [blocks[place] for place in (places if count > 1 else [len(blocks) - 1])]

    @contextmanager
    def listening(self) -> Iterator[list[torch.Tensor]]:
        """Within it the list fills with [N, positions, width] of each block that is asked, in their order."""
        heard: list[torch.Tensor] = []

        def hear(_module: nn.Module, _inputs: Any, answer: Any) -> None:
            # Blocks on the way down answer (features, all skips), joint blocks of transformers (text, picture).
            every = answer if isinstance(answer, tuple) else (answer,)
            found = [one for one in every if isinstance(one, torch.Tensor)][-1]
            heard.append(found.flatten(2).transpose(1, 2) if found.ndim == 4 else found)

        handles = [block.register_forward_hook(hear) for block in self.blocks]
        try:
            yield heard
        finally:
            for handle in handles:
                handle.remove()


def _blocks(denoiser: Any) -> list[nn.Module]:
    if hasattr(denoiser, "down_blocks"):
        return [*denoiser.down_blocks, denoiser.mid_block, *denoiser.up_blocks]
    return [
        block for name in ("transformer_blocks", "single_transformer_blocks") for block in getattr(denoiser, name, ())
    ]


def hinge(real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """The discriminator's loss (Lim and Ye 2017): half of mean max(0, 1 - real) + mean max(0, 1 + drawn)."""
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + drawn).mean())


def adaptive_weight(kept: torch.Tensor, sharp: torch.Tensor, layer: torch.Tensor) -> torch.Tensor:
    """|d kept / d layer| / (|d sharp / d layer| + epsilon), a number without gradient (Esser et al. 2021, equation 7).

    With it the adversarial loss ``sharp`` moves the decoder's last ``layer`` as much as the reconstruction loss
    ``kept`` does, however large the opponent's scores are. At most :data:`GREATEST_WEIGHT`, as in the authors' code.
    """
    (towards_kept,) = torch.autograd.grad(kept, layer, retain_graph=True)
    (towards_sharp,) = torch.autograd.grad(sharp, layer, retain_graph=True)
    balance: torch.Tensor = towards_kept.norm() / (towards_sharp.norm() + EPSILON)
    return balance.clamp(max=GREATEST_WEIGHT).detach()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it what is computed leaves no gradient in a module's parameters, though gradients flow through it."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


class Perceptual:
    """The distance of pictures in the features of a CLIP vision tower.

    After each transformer layer, every patch's features are scaled to unit length; the distance is the mean over layers
    and patches of the squared Euclidean distance between the two pictures' features, from 0 to 4. That is LPIPS (Zhang
    et al. 2018, equation 1) with CLIP in the place of VGG and without its learnt weights. Pictures of another size are
    first resized, stretched where they are not square.
    """

    def __init__(self, tower: nn.Module, size: int, mean: torch.Tensor, std: torch.Tensor) -> None:
        """``tower`` answers pixel values with hidden states; ``mean`` and ``std`` [3, 1, 1] are of pixels in [0, 1]."""
        self.tower, self.size, self.mean, self.std = tower.eval().requires_grad_(False), size, mean, std

    def __call__(self, pictures: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """The mean distance of two batches N3HW in [-1, 1]."""
        pairs = zip(self.features(pictures), self.features(others), strict=True)
        return torch.stack([(one - other).square().sum(dim=-1).mean() for one, other in pairs]).mean()

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Unit vectors [N, patches, width] after each layer."""
        seen = (resized(pictures, self.size) / 2 + 0.5 - self.mean) / self.std
        states = self.tower(pixel_values=seen, output_hidden_states=True).hidden_states
        return [functional.normalize(state[:, 1:], dim=-1) for state in states[1:]]


def resized(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """NCHW -> NC and size x size, bilinear with antialiasing.

    As two products of matrices: torch's own has no deterministic gradient on a GPU.
    """
    height, width = pictures.shape[-2:]
    if (height, width) == (size, size):
        return pictures
    rows, columns = (_resizing(side, size).to(pictures) for side in (height, width))
    return rows @ pictures @ columns.T


def _resizing(side: int, size: int) -> torch.Tensor:
    """The matrix [size, side] that resizes a column."""
    columns = torch.eye(side)[None, None]
    return functional.interpolate(columns, (size, side), mode="bilinear", antialias=True)[0, 0]


def load_perceptual(folder: Any, device: torch.device) -> Perceptual:
    """The distance by the CLIP model of a folder."""
    from transformers import CLIPImageProcessor, CLIPModel

    model: Any = CLIPModel.from_pretrained(folder, use_safetensors=True)
    processor: Any = CLIPImageProcessor.from_pretrained(folder)
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
    )
    return Perceptual(model.vision_model.to(device), model.config.vision_config.image_size, mean, std)
