"""Pixels to latents. A picture's latents depend on the picture alone, not on which others are encoded with it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.devices import prepare
from darkroom.weights.locate import Weights

if TYPE_CHECKING:
    import torch

# Raised when the rows that preprocess makes of the same inputs change: those cached by another version are not used.
ROWS = 1


@dataclass(frozen=True)
class Latents:
    """How pixels become what a denoiser sees: by an autoencoder, or as they are."""

    vae: Weights | None
    shift: bool = False
    """Whether the autoencoder's ``shift_factor`` is subtracted."""
    masks: bool = False
    """Whether shards have each picture's alpha channel beside its latents."""

    @property
    def digest(self) -> str:
        """What decides the latents, besides the pixels."""
        name = "pixels" if self.vae is None else self.vae.sha256
        return name + ("-shifted" if self.shift else "") + ("-masks" if self.masks else "")


class Encoder:
    """Pixels to latents; the autoencoder is loaded when the first picture asks."""

    def __init__(self, latents: Latents, threads: int, device: str) -> None:
        self._weights, self._threads, self._device, self._shift = latents.vae, threads, device, latents.shift
        self._model: Any = None

    def __call__(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """uint8 N3HW -> float32 NChw; see :func:`encode`."""
        if self._weights is not None and self._model is None:
            from darkroom.diffusion.pipeline import load_vae

            prepare(self._threads, self._device)
            self._model = load_vae(self._weights.path).to(self._device)
        return encode(self._model, pixels, self._shift)


def encode(vae: Any, pixels: "torch.Tensor", shift: bool = False) -> "torch.Tensor":
    """uint8 N3HW -> float32 NChw on the CPU: the mean of an ``AutoencoderKL``'s posterior times its scaling factor.

    Without an autoencoder (None) the pixels themselves, in [-1, 1].

    The autoencoder is always called with :func:`group` pictures, the last call filled up and the surplus thrown away:
    kernels are chosen by the shape of a call, so that in calls of other sizes the last bits differ (seen: 4e-6), and a
    picture's latents would depend on how many others were new. Within calls of one shape they do not.

    ``shift``: subtract the autoencoder's ``shift_factor`` first, for pipelines that add it again
    (:attr:`Family.shifts_latents`); ``StableDiffusionPipeline`` does not.
    """
    import torch

    if vae is None:
        return pixels.float() / 127.5 - 1
    offset = float(getattr(vae.config, "shift_factor", None) or 0.0) if shift else 0.0
    size = group(*pixels.shape[-2:])
    parts = []
    with torch.inference_mode():
        for part in pixels.split(size):
            full = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
            mean = vae.encode(full.to(vae.device).float() / 127.5 - 1).latent_dist.mean
            parts.append((mean[: len(part)].float().cpu() - offset) * vae.config.scaling_factor)
        latents: torch.Tensor = torch.cat(parts)
    return latents.clone()


def group(height: int, width: int) -> int:
    """How many pictures of this size are encoded in one call: more than one only where calls are too small to pay."""
    area = height * width
    return 16 if area <= 32 * 32 else 4 if area <= 128 * 128 else 1
