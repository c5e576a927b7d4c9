"""Evaluation of an autoencoder: how close its pictures come to those that it was given, all of the validation side."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from darkroom.artifacts import Shards
from darkroom.preprocess.latents import group
from darkroom.recipe import Evaluate
from darkroom.store import Store, write_json

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 8
SHOWN = 32  # pictures of the grid
NOTE = "nothing was drawn: these are the validation side's pictures, rebuilt; odd rows of the grid are the originals"


def to_network(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


@torch.inference_mode()
def rebuild(vae: Any, pixels: torch.Tensor, progress: Callable[[int], None] = lambda done: None) -> torch.Tensor:
    """uint8 N3HW -> uint8 N3HW on the CPU, through the mean of the posterior; ``progress`` is told how many are done.

    Calls are of one size, as in :func:`darkroom.preprocess.latents.encode`: a picture's reconstruction depends on it
    alone.
    """
    size, found = group(*pixels.shape[-2:]), []
    for part in pixels.split(size):
        full = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
        latents = vae.encode(to_network(full).to(vae.device, vae.dtype)).latent_dist.mode()
        drawn = vae.decode(latents).sample[: len(part)].float().cpu()
        found.append(((drawn.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        progress(sum(map(len, found)))
    return torch.cat(found).clone()


def reconstruction_errors(rebuilt: list[torch.Tensor], originals: list[torch.Tensor]) -> dict[str, float]:
    """MSE, RMSE, MAE, R² and PSNR over every value of all pictures together, in [0, 1] from black to white.

    R² is one minus the squared error over the originals' squared deviation from their mean value. PSNR is
    10 log10(1 / MSE) in decibels, the MSE being at least that of one value in a million that is off by 1/255.
    """
    squared = absolute = total = total_square = 0.0
    count = 0
    for made, wanted in zip(rebuilt, originals, strict=True):
        for some, true in zip(made.split(64), wanted.split(64), strict=True):
            values = true.double() / 255
            error = some.double() / 255 - values
            squared += float(error.square().sum())
            absolute += float(error.abs().sum())
            total += float(values.sum())
            total_square += float(values.square().sum())
            count += values.numel()
    mse = squared / count
    spread = total_square - total**2 / count
    return {
        "reconstruction_mse": mse,
        "reconstruction_rmse": mse**0.5,
        "reconstruction_mae": absolute / count,
        "reconstruction_r2": 1 - squared / max(spread, 1e-12),
        "reconstruction_psnr": float(-10 * np.log10(max(mse, 1e-6 / 255**2))),
    }


def pairs(originals: torch.Tensor, rebuilt: torch.Tensor, size: int) -> "Image.Image":
    """A sheet of uint8 N3HW: rows of originals, each above the row of its reconstructions; squares of ``size``."""
    from PIL import Image

    from darkroom.diffusion.sampling import grid

    from .evaluate import squares

    def pictures(pixels: torch.Tensor) -> list["Image.Image"]:
        return [Image.fromarray(np.ascontiguousarray(one.permute(1, 2, 0).numpy())) for one in squares(pixels, size)]

    given, made = pictures(originals), pictures(rebuilt)
    columns = min(COLUMNS, len(given))
    blank = Image.new("RGB", (size, size), (24, 24, 24))
    rows: list[Image.Image] = []
    for start in range(0, len(given), columns):
        for some in (given, made):
            part = some[start : start + columns]
            rows += part + [blank] * (columns - len(part))
    return grid(rows, columns)


def rebuilding(
    folder: Path,
    shards: Shards,
    plan: Evaluate,
    store: Store,
    work: Path,
    device: str,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Rebuild the whole validation side by the autoencoder of ``folder``; write pictures and features into ``work``.

    The Fréchet distance, named after its extractor as ever, is that of the reconstructions to their own originals;
    beside it, as a scale, stands that of real training pictures to the same originals.
    """
    from safetensors.numpy import load_file, save_file

    from darkroom.diffusion.pipeline import load_vae
    from darkroom.preprocess.shards import load_parts, read_index

    from .evaluate import reference, squares
    from .features import folder_features, identity, load
    from .frechet import frechet
    from .samples import save_pictures

    real = load_file(reference(shards, plan, store, torch.get_num_threads(), device).path / "features.safetensors")
    vae, size = load_vae(folder).to(device), int(read_index(shards)["size"])
    originals = [tensors["pixels"] for tensors, _ in load_parts(shards, "validation", ("pixels",))]
    count = sum(map(len, originals))
    store.need_room(count * 3 * size**2 * 2, "evaluation")
    made: list[torch.Tensor] = []
    for pixels in originals:
        before = sum(map(len, made))
        made.append(rebuild(vae, pixels, lambda done, before=before: progress(before + done, count)))  # type: ignore[misc]

    cut = torch.cat([squares(pixels, size) for pixels in made])
    save_pictures([np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in cut], work / "generated")
    pairs(originals[0][:SHOWN], made[0][:SHOWN], size).save(work / "grid.png")
    write_json(work / "prompts.json", [])
    write_json(work / "notes.json", [NOTE])
    name, _ = identity(plan.features, plan.sha256)
    features = folder_features(work / "generated", load(plan.features, device, plan.layer))
    save_file({"generated": features}, work / "features.safetensors")
    scale = float(np.mean([frechet(one, real["validation"]) for one in real["train"]]))
    distances = {name: frechet(features, real["validation"]), f"{name}_train": scale}
    return distances | reconstruction_errors(made, originals)


def is_autoencoder(folder: Path) -> bool:
    """Whether a checkpoint's ``pipeline/`` is an autoencoder: a model at its top, and no pipeline."""
    return (folder / "config.json").is_file() and not (folder / "model_index.json").exists()
