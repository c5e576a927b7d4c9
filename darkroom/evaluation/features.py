"""Features of pictures, through clean-fid's own functions.

A distance is named after its extractor: ``fid`` is clean-fid's Inception and nothing else; any other is ``fd_`` and the
extractor's name. Parmar et al., On Aliased Resizing and Surprising Subtleties in GAN Evaluation (2022).
"""

import json
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
from darkroom.weights.locate import Weights, locate

if TYPE_CHECKING:
    import torch

    Network = Callable[[torch.Tensor], torch.Tensor]

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_DIMENSIONS = 2048


@dataclass(frozen=True)
class Extractor:
    """A network that turns pictures into features: ``network`` maps NCHW float in [0, 255] to [N, dimensions]."""

    measure: str
    sha256: str
    size: int
    network: "Network"


def identity(name: str, expected: str | None) -> tuple[str, str]:
    """(measure, sha256) of an extractor, without loading it; see :func:`load` for what is raised."""
    measure, path, digest = _find(name)
    _expect("evaluate.sha256", name, path, digest, expected)
    return measure, digest


def weights(name: str) -> Weights:
    """Where an extractor's weights lie; see :func:`load` for what is raised."""
    _, path, digest = _find(name)
    return Weights(name, path, digest)


def measure_of(name: str) -> str:
    """What the Fréchet distance by an extractor of this name is called: "fid" by Inception's, else "fd_NAME"."""
    if name == "inception" or Path(name).name == INCEPTION_FILE:
        return "fid"
    return f"fd_{re.sub(r'[^a-z0-9]+', '_', name.removeprefix('builtin:').rstrip('/').split('/')[-1].lower())}"


def kernel_of(measure: str) -> str:
    """What the kernel distance by the same extractor is called."""
    return "kid" if measure == "fid" else f"kd_{measure.removeprefix('fd_')}"


def clip_identity(name: str, expected: str | None) -> tuple[str, str]:
    """The same of the model of the CLIP score, which must be a CLIP: no other knows texts."""
    measure, path, digest = _find(name, "the CLIP score")
    _expect("evaluate.clip_sha256", name, path, digest, expected)
    if not is_clip(path):
        raise RecipeError(
            f"evaluate.clip = {name!r} is no CLIP model, and a fit of pictures to texts needs one: name a folder with "
            "a CLIP's config.json, or a CLIP of the hub such as openai/clip-vit-base-patch32"
        )
    return measure, digest


def _expect(field: str, name: str, path: Path, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise RecipeError(f"{field}: the weights of {name!r} at {path} have sha256 {digest}, not {expected}")


def load(name: str, device: str, layer: str = "projection") -> Extractor:
    """``inception``, a local Inception file, ``builtin:NAME``, or a local folder or the hub's name of a vision model.

    A vision model is CLIP, or any other that transformers loads by its configuration: DINOv2, ViT, ConvNeXt. ``layer``
    is "projection" (CLIP's joint space with texts) or "pooled" (the picture tower's output before it); other models
    have but one. Raises :class:`ServiceUnavailable` when weights have to be downloaded and cannot be, saying how to
    supply them, and :class:`RecipeError` for a folder that holds no such model.
    """
    measure, path, digest = _find(name)
    if path.is_file():
        return Extractor(measure, digest, 299, _inception(path, device))
    size, network = _clip(path, device, layer) if is_clip(path) else _vision_model(name, path, device)
    return Extractor(measure, digest, size, network)


def dimensions(name: str, layer: str = "projection") -> int:
    """How many numbers an extractor makes of a picture, without loading its weights. Raises what :func:`load` does."""
    _, path, _ = _find(name)
    if path.is_file():
        return INCEPTION_DIMENSIONS
    config = _config(name, path)
    if is_clip(path):
        return int(config.vision_config.hidden_size if layer == "pooled" else config.projection_dim)
    config = getattr(config, "vision_config", config)
    for field in ("hidden_size", "hidden_sizes", "embed_dim", "num_features"):
        if (size := getattr(config, field, None)) is not None:
            return int(size[-1] if isinstance(size, list | tuple) else size)
    raise RecipeError(f"{name!r} cannot be an extractor: its config.json does not say how many features it makes")


def is_clip(folder: Path) -> bool:
    """Whether a folder holds a CLIP model, pictures and texts in one space."""
    config = folder / "config.json"
    return config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == "clip"


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


def _find(name: str, what: str = "") -> tuple[str, Path, str]:
    """(measure, file or folder, sha256); ``what`` is missing where it cannot be found, by default the distance."""
    if name == "inception":
        path = _inception_file()
        return "fid", path, file_digest(path)
    if Path(name).expanduser().is_file():
        path = Path(name).expanduser()
        if path.name != INCEPTION_FILE:
            raise RecipeError(f"evaluate.features = {name!r}: a file must be clean-fid's {INCEPTION_FILE}")
        return "fid", path, file_digest(path)
    measure = measure_of(name)
    try:
        found = locate(name)
    except ServiceUnavailable as error:
        raise ServiceUnavailable(
            f"{what or measure} cannot be had: {error}; copy the model's folder (config.json, model.safetensors, "
            f"preprocessor_config.json) to this machine and give its path instead of {name!r}"
        ) from None
    return measure, found.path, found.sha256


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


def _inception(path: Path, device: str) -> "Network":
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(path.parent), download=False, resize_inside=False).to(device).eval()
    return lambda pixels: network(pixels.to(device))


def _clip(path: Path, device: str, layer: str) -> "tuple[int, Network]":
    """(side of the pictures that it sees, network) of CLIP's picture tower."""
    from transformers import CLIPImageProcessor, CLIPModel

    model: Any = CLIPModel.from_pretrained(path).to(device).eval()
    mean, std = _normalisation(CLIPImageProcessor.from_pretrained(path), device)

    def network(pixels: "torch.Tensor") -> "torch.Tensor":
        seen = (pixels.to(device) / 255 - mean) / std
        pooled: torch.Tensor = model.vision_model(pixel_values=seen).pooler_output
        projected: torch.Tensor = pooled if layer == "pooled" else model.visual_projection(pooled)
        return projected.float()

    return model.config.vision_config.image_size, network


def _vision_model(name: str, path: Path, device: str) -> "tuple[int, Network]":
    """The same of any vision model that transformers knows: what it pools, else the mean over its places.

    A picture is brought whole to the side that its processor crops to. Weights that its file lacks would be random
    numbers that pass for features: such a model is refused.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModel

    _config(name, path)
    try:
        whole, found = AutoModel.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        processor: Any = AutoImageProcessor.from_pretrained(path, local_files_only=True)
        mean, std = _normalisation(processor, device)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(
            f"{name!r} cannot be an extractor: transformers does not load the vision model and its image processor "
            f"(preprocessor_config.json) from {path}: {_first_line(error)}"
        ) from None
    if lacking := sorted(found["missing_keys"]):
        raise RecipeError(
            f"{name!r} cannot be an extractor: its file has no {lacking[0]}"
            + (f" and lacks {len(lacking) - 1} more of its weights" if len(lacking) > 1 else "")
            + ", which would be random numbers"
        )
    tower: Any = getattr(whole, "vision_model", whole).to(device).eval()

    def network(pixels: "torch.Tensor") -> "torch.Tensor":
        answer = tower(pixel_values=(pixels.to(device) / 255 - mean) / std)
        pooled = getattr(answer, "pooler_output", None)
        features: torch.Tensor = answer.last_hidden_state.mean(dim=1) if pooled is None else pooled
        return features.flatten(1).float()

    return _side(processor), network


def _config(name: str, path: Path) -> Any:
    """The configuration of a vision model; :class:`RecipeError` where transformers knows no such model."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"{name!r} cannot be an extractor: {path} has no config.json of a vision model that transformers knows: "
            f"{_first_line(error)}"
        ) from None


def _side(processor: Any) -> int:
    """The side of the squares that an image processor makes, in pixels."""
    cropped = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    size: Any = cropped or processor.size
    return int(next(size[key] for key in ("height", "shortest_edge") if size.get(key)))


def _normalisation(processor: Any, device: str) -> "tuple[torch.Tensor, torch.Tensor]":
    """The mean and the deviation that a model's pictures are normalised with, each [3, 1, 1]."""
    import torch

    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
    )
    return mean, std


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
