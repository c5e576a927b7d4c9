"""From accepted pictures to shards: split, resize, latents, and fixed-shape tensors that training reads as they are.

A shard holds the pictures of one side whose id starts with the same hex digits, so that one added, changed or removed
picture rewrites one shard. The others are taken from the cache by hard links.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.devices import prepare
from darkroom.errors import RecipeError
from darkroom.quality.picture import working_path
from darkroom.recipe import Preprocess
from darkroom.stages import STAGES, stage_digest
from darkroom.store import Store, digest_of, write_json
from darkroom.weights.locate import Weights

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

Progress = Callable[[int, int], None]
MIN_SIDE = 2  # a spread, which every distance needs, takes two pictures


def preprocess(
    checked: CheckedManifest,
    plan: Preprocess,
    vae: Weights,
    threads: int,
    store: Store,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
    fresh: bool = False,
) -> Shards:
    """Write the accepted rows as shards of pictures and of their latents under ``vae``.

    ``progress`` is told (shards done, shards in all). Raises :class:`RecipeError` when a side of the split is empty and
    :class:`DiskFull` when the shards would not fit.
    """
    fields = {**plan.digest_fields(), "threads": threads}
    inputs = {"checked": checked.digest, "vae": vae.sha256}

    def build(work: Path) -> dict[str, Any]:
        rows = both_sides(read_checked(checked))
        store.need_room(len(rows) * plan.size**2 * 8, "preprocessing")
        groups = list(rows.groupby(["split", rows["id"].str[: plan.shard_prefix]], sort=True))
        (work / "shards").mkdir()
        encoder = Encoder(vae, threads, device)
        index = []
        for done, ((which, prefix), group) in enumerate(groups, start=1):
            name = f"{which}-{prefix}"
            made = _shard(group, plan, vae, threads, store, encoder)
            for suffix in ("safetensors", "json"):
                _link(made.with_suffix(f".{suffix}"), work / "shards" / f"{name}.{suffix}")
            index.append({"name": name, "side": which, "rows": len(group)})
            progress(done, len(groups))
        rows.to_parquet(work / "rows.parquet", index=False)
        write_json(
            work / "index.json",
            {
                "shards": index,
                "size": plan.size,
                "normalisation": "pixels: uint8 RGB, NCHW; the model sees pixels / 127.5 - 1",
                "latents": "mean of the autoencoder's posterior, times its scaling_factor",
                "vae": {"name": vae.name, "sha256": vae.sha256},
                "sides": {which: int((rows["split"] == which).sum()) for which in ("train", "validation")},
            },
        )
        return {"device": device}

    return store.get_or_build(
        Shards, stage_digest("shards", fields, inputs), build, inputs=inputs, fields=fields, fresh=fresh
    )


def read_checked(checked: CheckedManifest) -> "pd.DataFrame":
    """The accepted rows."""
    import pandas as pd

    return pd.read_parquet(checked.path / "checked.parquet")


def read_index(shards: Shards) -> dict[str, Any]:
    """What the shards hold."""
    content: dict[str, Any] = json.loads((shards.path / "index.json").read_text("utf-8"))
    return content


def load_side(shards: Shards, which: str) -> tuple[dict[str, "torch.Tensor"], list[dict[str, Any]]]:
    """All rows of ``"train"`` or ``"validation"``, in the order of their ids.

    Returns ``{"pixels": uint8 N3HW, "latents": float32 NChw}`` and the rows' ids, captions and labels.
    """
    import torch
    from safetensors.torch import load_file

    names = [shard["name"] for shard in read_index(shards)["shards"] if shard["side"] == which]
    files = [load_file(shards.path / "shards" / f"{name}.safetensors") for name in names]
    rows = [row for name in names for row in json.loads((shards.path / "shards" / f"{name}.json").read_text("utf-8"))]
    return {key: torch.cat([tensors[key] for tensors in files]) for key in ("pixels", "latents")}, rows


def both_sides(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows in the order of the shards; raises :class:`RecipeError` when a side of the split is empty."""
    for which in ("train", "validation"):
        count = int((rows["split"] == which).sum())
        if count < MIN_SIDE:
            raise RecipeError(
                f"preprocess: {count} of the {len(rows)} accepted pictures fell on the {which} side of the split, and "
                f"{MIN_SIDE} are needed; add pictures or change split.validation_share"
            )
    return rows.sort_values(["split", "id", "row_id"], ignore_index=True)


class Encoder:
    """Pixels to latents; the autoencoder is loaded when the first shard asks."""

    def __init__(self, vae: Weights, threads: int, device: str) -> None:
        self._weights, self._threads, self._device = vae, threads, device
        self._model: Any = None

    def __call__(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """uint8 N3HW -> float32 NChw; see :func:`encode`."""
        if self._model is None:
            from darkroom.diffusion.pipeline import load_vae

            prepare(self._threads, self._device)
            self._model = load_vae(self._weights.path).to(self._device)
        return encode(self._model, pixels)


def encode(vae: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    """uint8 N3HW -> float32 NChw on the CPU: the mean of an ``AutoencoderKL``'s posterior times its scaling factor."""
    import torch

    with torch.inference_mode():
        parts = [vae.encode(part.to(vae.device).float() / 127.5 - 1).latent_dist.mean for part in pixels.split(64)]
        latents: torch.Tensor = torch.cat(parts).float().cpu() * vae.config.scaling_factor
    return latents.clone()


def resized(working_copy: Path, size: int) -> "np.ndarray":
    """A working copy -> 3HW uint8: the largest centred square, brought to ``size`` (Lanczos down, bicubic up)."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(working_copy) as picture:
        shrink = min(picture.size) >= size
        filter_ = Image.Resampling.LANCZOS if shrink else Image.Resampling.BICUBIC
        square = ImageOps.fit(picture.convert("RGB"), (size, size), method=filter_)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _shard(group: "pd.DataFrame", plan: Preprocess, vae: Weights, threads: int, store: Store, encoder: Encoder) -> Path:
    """The cached shard of these rows, made if need be; tensors and captions are addressed apart.

    A changed caption rewrites only the small JSON beside tensors that are linked as they are.
    """
    import numpy as np
    import torch
    from safetensors.torch import save_file

    folder = store.root / "shardcache"
    folder.mkdir(parents=True, exist_ok=True)
    version = STAGES["shards"].version
    tensors_key = digest_of([version, plan.size, vae.sha256, threads, list(group["working"])])
    tensors_file = folder / f"{tensors_key}.safetensors"
    if not tensors_file.is_file():
        stack = np.stack([resized(working_path(store.root, key), plan.size) for key in group["working"]])
        pixels = torch.from_numpy(stack)
        temporary = folder / f".{tensors_key}.{os.getpid()}"
        save_file({"pixels": pixels, "latents": encoder(pixels).contiguous()}, temporary)
        os.replace(temporary, tensors_file)
    texts = group[["row_id", "id", "caption", "label"]].astype(object).where(lambda frame: frame.notna(), None)
    records = texts.to_dict("records")
    made = folder / digest_of([tensors_key, records])
    write_json(made.with_suffix(".json"), records)
    if not made.with_suffix(".safetensors").exists():
        _link(tensors_file, made.with_suffix(".safetensors"))
    return made


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)
