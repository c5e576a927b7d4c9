"""What ``index.json`` says of the shards: shapes and what they cut off, normalisation, captions, warnings."""

from typing import TYPE_CHECKING, Any

from darkroom.recipe import Preprocess
from darkroom.weights.locate import Weights

from .buckets import Shape, cropped, name_of
from .latents import Latents
from .rowcache import RowCache

if TYPE_CHECKING:
    import pandas as pd

    from .shards import Shard

SIDES = ("train", "validation")
STD_RANGE = (0.5, 2.0)  # of latents, which models expect to have a standard deviation of about one
SHARP_CROP = 0.4


def content(
    planned: "list[Shard]",
    rows: "pd.DataFrame",
    plan: Preprocess,
    among: tuple[Shape, ...],
    encoding: Latents,
    cache: RowCache,
) -> dict[str, Any]:
    """The whole of it. ``rows`` are the pictures, with the position of their ``bucket``."""
    scaling = _configuration(encoding.vae) if encoding.vae else {"scaling_factor": 1.0, "shift_factor": None}
    latents = moments(planned, cache)
    buckets = [_bucket(rows[rows["bucket"] == position], shape) for position, shape in enumerate(among)]
    captions = {side: _captions(rows[rows["split"] == side]) for side in SIDES}
    given, missing = (sum(captions[side][what] for side in SIDES) for what in ("with", "without"))
    return {
        "shards": [
            {"name": shard.name, "side": shard.side, "rows": len(shard.rows), "shape": list(shard.shape)}
            for shard in planned
        ],
        "size": plan.size,
        "buckets": buckets,
        "variants": plan.augment.variants,
        "normalisation": "pixels: uint8 RGB, NCHW; the model sees pixels / 127.5 - 1",
        "latents": _words(encoding),
        "latent_statistics": {**scaling, **latents},
        "vae": {"name": encoding.vae.name, "sha256": encoding.vae.sha256} if encoding.vae else None,
        "sides": {side: int((rows["split"] == side).sum()) for side in SIDES},
        "captions": captions,
        "supervision": "partly captioned" if given and missing else "captioned" if given else "unsupervised",
        "warnings": [
            *fewer(plan, among),
            *warnings(buckets, latents["std"], encoding, scaling),
            *_unmasked(rows, encoding),
        ],
    }


def moments(planned: "list[Shard]", cache: RowCache) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel of the training latents, in float64."""
    import numpy as np

    count, total, square = 0, np.zeros(1), np.zeros(1)
    for shard in planned:
        if shard.side == "train":
            latents = cache.tensors(shard.tensors)["latents"]
            for start in range(0, len(latents), 1024):
                part = latents[start : start + 1024].astype(np.float64)
                count += part.shape[0] * part.shape[2] * part.shape[3]
                total = total + part.sum(axis=(0, 2, 3))
                square = square + (part**2).sum(axis=(0, 2, 3))
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0))
    return {"mean": mean.tolist(), "std": std.tolist()}


def fewer(plan: Preprocess, among: tuple[Shape, ...]) -> list[str]:
    """Whether there are fewer shapes than asked for."""
    if len(among) == plan.buckets:
        return []
    return [
        f"preprocess.buckets = {plan.buckets}, but only {len(among)} fit: a smaller bucket_step "
        f"({plan.bucket_step}) or a larger max_bucket_aspect ({plan.max_bucket_aspect:g}) allows more"
    ]


def warnings(buckets: list[dict[str, Any]], std: list[float], encoding: Latents, scaling: dict[str, Any]) -> list[str]:
    """Sentences on what a person should look at before training."""
    found = []
    spread = (sum(value**2 for value in std) / len(std)) ** 0.5
    if encoding.vae is not None and not STD_RANGE[0] <= spread <= STD_RANGE[1]:
        factor = scaling["scaling_factor"]
        better = f" = {factor / spread:.4g}" if spread > 0 else ""
        found.append(
            f"the latents' standard deviation is {spread:.3g}, and models expect about 1: "
            f"an autoencoder with scaling_factor{better} (it has {factor:.4g}) would give that"
        )
    shift_factor = scaling["shift_factor"]
    if shift_factor and not encoding.shift:
        found.append(
            f"the autoencoder's shift_factor of {shift_factor:.4g} is not subtracted, as the pipeline that draws would "
            "not add it again"
        )
    found += [
        f"{name_of((bucket['shape'][0], bucket['shape'][1]))} cuts off up to {bucket['cropped_most']:.0%} of a "
        "picture: more buckets or a larger preprocess.max_bucket_aspect would keep more"
        for bucket in buckets
        if bucket["cropped_most"] > SHARP_CROP
    ]
    return found


def _bucket(rows: "pd.DataFrame", shape: Shape) -> dict[str, Any]:
    """Rows and crops of one shape; empty buckets are told of, too."""
    lost = cropped(rows["width"], rows["height"], shape)
    return {
        "shape": list(shape),
        "rows": {side: int((rows["split"] == side).sum()) for side in SIDES},
        "cropped_most": float(lost.max()) if len(rows) else 0.0,
        "cropped_mean": float(lost.mean()) if len(rows) else 0.0,
        "enlarged": int(((rows["width"] < shape[1]) | (rows["height"] < shape[0])).sum()),
    }


def _captions(rows: "pd.DataFrame") -> dict[str, int]:
    given = int((rows["caption"].fillna("").astype(str) != "").sum())
    return {"with": given, "without": len(rows) - given}


def _unmasked(rows: "pd.DataFrame", encoding: Latents) -> list[str]:
    if not encoding.masks or (rows["alpha"] > 0).any():
        return []
    return ["train.objective.masked does nothing here: no picture has a transparent part"]


def _words(encoding: Latents) -> str:
    if encoding.vae is None:
        return "the pixels themselves, / 127.5 - 1"
    shifted = "less its shift_factor, " if encoding.shift else ""
    return f"mean of the autoencoder's posterior, {shifted}times its scaling_factor"


def _configuration(vae: Weights) -> dict[str, Any]:
    """Scaling and shift of an ``AutoencoderKL``, from its configuration."""
    import json

    folder = vae.path / "vae" if (vae.path / "vae").is_dir() else vae.path
    found = json.loads((folder / "config.json").read_text("utf-8"))
    # 0.18215 is AutoencoderKL's own default, that of Stable Diffusion.
    return {"scaling_factor": found.get("scaling_factor", 0.18215), "shift_factor": found.get("shift_factor")}
