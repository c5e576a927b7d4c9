"""Features of pictures, through clean-fid's own functions.

A distance is named after its extractor: ``fid`` is clean-fid's Inception and nothing else; any other is ``fd_`` and the
extractor's name. Parmar et al., On Aliased Resizing and Surprising Subtleties in GAN Evaluation (2022).
"""

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.store import file_digest
from darkroom.weights.locate import locate

if TYPE_CHECKING:
    import torch

INCEPTION_FILE = "inception-2015-12-05.pt"


@dataclass(frozen=True)
class Extractor:
    """A network that turns pictures into features: ``network`` maps NCHW float in [0, 255] to [N, dimensions]."""

    measure: str
    sha256: str
    size: int
    network: "Callable[[torch.Tensor], torch.Tensor]"


def identity(name: str, expected: str | None, field: str = "evaluate.sha256") -> tuple[str, str]:
    """(measure, sha256) of an extractor, without loading it; see :func:`load` for what is raised.

    ``field`` is the one of the recipe that says which sha256 is ``expected``.
    """
    measure, path, digest = _find(name)
    if expected is not None and digest != expected:
        raise RecipeError(f"{field}: the weights of {name!r} at {path} have sha256 {digest}, not {expected}")
    return measure, digest


def load(name: str, device: str, layer: str = "projection") -> Extractor:
    """``inception``, ``builtin:NAME``, a local CLIP folder, a local Inception file, or a CLIP model's name on the hub.

    ``layer`` is "projection" (CLIP's joint space with texts) or "pooled" (the picture tower's output before it).

    Raises :class:`ServiceUnavailable` when weights have to be downloaded and cannot be, saying how to supply them.
    """
    measure, path, digest = _find(name)
    if path.is_file():
        return Extractor(measure, digest, 299, _inception(path, device))
    from transformers import CLIPModel

    model: Any = CLIPModel.from_pretrained(path).to(device).eval()
    mean, std = _normalisation(path, device)

    def network(pixels: "torch.Tensor") -> "torch.Tensor":
        seen = (pixels.to(device) / 255 - mean) / std
        pooled: torch.Tensor = model.vision_model(pixel_values=seen).pooler_output
        projected: torch.Tensor = pooled if layer == "pooled" else model.visual_projection(pooled)
        return projected.float()

    return Extractor(measure, digest, model.config.vision_config.image_size, network)


def folder_features(folder: Path, extractor: Extractor, batch: int = 128) -> np.ndarray:
    """Features [N, dimensions] float64 of the pictures of a folder, in the order of their names."""
    import torch
    from cleanfid import fid
    from cleanfid.resize import make_resizer

    with tempfile.TemporaryDirectory(prefix="darkroom-") as plain:
        # clean-fid takes any path with ".zip" in it for an archive.
        link = Path(plain) / "pictures"
        link.symlink_to(folder.absolute())
        with torch.inference_mode():
            found = fid.get_folder_features(
                str(link),
                model=extractor.network,
                num_workers=0,
                batch_size=batch,
                device=torch.device("cpu"),
                mode="clean",
                custom_fn_resize=make_resizer("PIL", False, "bicubic", (extractor.size, extractor.size)),
                verbose=False,
            )
    return np.asarray(found, dtype=np.float64)


def _find(name: str) -> tuple[str, Path, str]:
    """(measure, file or folder, sha256)."""
    if name == "inception":
        path = _inception_file()
        return "fid", path, file_digest(path)
    if Path(name).expanduser().is_file():
        path = Path(name).expanduser()
        if path.name != INCEPTION_FILE:
            raise RecipeError(f"evaluate.features = {name!r}: a file must be clean-fid's {INCEPTION_FILE}")
        return "fid", path, file_digest(path)
    weights = locate(name)
    slug = re.sub(r"[^a-z0-9]+", "_", weights.name.removeprefix("builtin:").rstrip("/").split("/")[-1].lower())
    return f"fd_{slug}", weights.path, weights.sha256


def _inception_file() -> Path:
    """clean-fid's weights, downloaded once beside the other models; a download that is cut short leaves nothing."""
    from cleanfid.downloads_helper import check_download_inception

    cache = Path("~/.cache/darkroom").expanduser()
    path = cache / INCEPTION_FILE
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            try:
                check_download_inception(fpath=folder)
                shutil.move(Path(folder) / INCEPTION_FILE, path)
            except Exception as error:  # urllib's and the helper's own errors have no common class
                raise ServiceUnavailable(
                    f"FID needs clean-fid's Inception weights, and they could not be downloaded ({error}): "
                    f"put {INCEPTION_FILE} at {path}, or give its path as evaluate.features"
                ) from None
    return path


def _inception(path: Path, device: str) -> "Callable[[torch.Tensor], torch.Tensor]":
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(path.parent), download=False, resize_inside=False).to(device).eval()
    return lambda pixels: network(pixels.to(device))


def _normalisation(path: Path, device: str) -> "tuple[torch.Tensor, torch.Tensor]":
    """The mean and the deviation that the model's pictures are normalised with, each [3, 1, 1]."""
    import torch
    from transformers import CLIPImageProcessor

    processor: Any = CLIPImageProcessor.from_pretrained(path)
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
    )
    return mean, std
