"""A small autoencoder of the digits, whose latents a diffusion model learns on.

R. Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, section 3.1, without the
adversarial and the perceptual loss: at 16 pixels nothing is invented, everything is kept.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from .digit_clip import warm_cosine
from .digit_pictures import PIXELS, Pictures, draw
from .progress import counted

CHANNELS = 1  # 8 x 8 x 1 numbers: as many as scikit-learn's digits have pixels
BATCH, RATE, WEIGHT_DECAY = 16, 8e-3, 1e-4
KL_WEIGHT = 1e-6  # of the divergence a latent number, beside the squared error a pixel number


def build() -> AutoencoderKL:
    """An autoencoder of 16-pixel pictures with 8x8 latents, its weights drawn from torch's global generator."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        latent_channels=CHANNELS,
        norm_num_groups=1,  # fewer groups forget less of a picture's brightness
        sample_size=PIXELS,
        mid_block_add_attention=False,
    )


def train(pictures: Pictures, steps: int, seed: int) -> AutoencoderKL:
    """An autoencoder trained on varied ``pictures``; its latents have mean 0 and, scaled, a standard deviation of 1."""
    torch.manual_seed(seed)
    model = build().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    generator = torch.Generator().manual_seed(seed)
    for _ in counted("vae", steps):
        images = scanned(draw(pictures, BATCH, generator).images)
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        # Blacker than black is black once clipped: no error there, so that no effort goes into an even ground.
        rebuilt = torch.where(images == -1, rebuilt.clamp(min=-1), rebuilt)
        loss = functional.mse_loss(rebuilt, images) + KL_WEIGHT * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model = model.eval().to(memory_format=torch.contiguous_format)
    return standardise(model, pictures)


def scanned(images: Tensor) -> Tensor:
    """Pictures as a scan of 8x8 would be enlarged to 16x16; [N, 3, 16, 16] stays.

    Moved and turned pictures hold detail between the scan's pixels, which no digit has and no latent need carry.
    """
    pixels = functional.avg_pool2d(images, 2)
    large = functional.interpolate(pixels, scale_factor=2, mode="bicubic", antialias=True)  # Pillow's filter
    return large.clamp(-1, 1)


@torch.no_grad()
def standardise(model: AutoencoderKL, pictures: Pictures) -> AutoencoderKL:
    """Move the latents' mean to 0 inside the 1x1 convolutions, and set ``scaling_factor`` to 1 / their deviation.

    StableDiffusionPipeline knows no ``shift_factor``, so that the mean has to go into the weights.
    """
    mean = model.encode(pictures.images).latent_dist.mean.mean(dim=(0, 2, 3))  # [channels]
    model.post_quant_conv.bias += model.post_quant_conv.weight[:, :, 0, 0] @ mean
    model.quant_conv.bias[:CHANNELS] -= mean
    deviation = model.encode(pictures.images).latent_dist.mean.std().item()
    model.register_to_config(scaling_factor=round(1 / deviation, 6))
    return model


@torch.no_grad()
def rebuild(model: AutoencoderKL, images: Tensor) -> Tensor:
    """Pictures [N, 3, 16, 16] through the latents and back, clipped to [-1, 1]."""
    rebuilt: Tensor = model.decode(model.encode(images).latent_dist.mode()).sample
    return rebuilt.clamp(-1, 1)


def peak_signal_to_noise(model: AutoencoderKL, pictures: Pictures) -> float:
    """Decibels of the rebuilt ``pictures``, all pixels together."""
    error = functional.mse_loss(rebuild(model, pictures.images), pictures.images)
    return (10 * torch.log10(4 / error)).item()  # pixels lie in [-1, 1], so the peak is 2
