"""Evaluation: draw from a checkpoint on fixed noise and prompts, and measure."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.artifacts import Checkpoint, Evaluation, Reference, Shards
from darkroom.devices import prepare
from darkroom.recipe import Evaluate
from darkroom.stages import stage_digest
from darkroom.store import Store, write_json
from darkroom.weights.locate import locate

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
TINY = 1e-12
OF_TRAINING = ("nearest_", "memorised_", "blank_")  # measures that mean nothing on data that were not trained on
REBUILT = 512  # held-out pictures of a shape that a model's autoencoder rebuilds
REAL_DRAWS = 8  # sets of real training pictures, whose mean distance generated ones are compared with


def evaluate(
    checkpoint: Checkpoint,
    shards: Shards,
    plan: Evaluate,
    store: Store,
    *,
    others: Mapping[str, Shards] | None = None,
    threads: int,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
    fresh: bool = False,
) -> Evaluation:
    """Every measure of one checkpoint on the validation side; ``progress`` is told (pictures drawn, in all).

    ``others`` are other data sets by name: the measures that do not speak of the training data are taken on each of
    them, too, and called ``name/measure``.
    """
    inputs, fields = evaluation_inputs(checkpoint.digest, shards, plan, threads, others)

    def build(work: Path) -> dict[str, Any]:
        metrics, samples = _measure(checkpoint, shards, plan, store, work, threads, device, progress)
        for name, other in sorted((others or {}).items()):
            on = evaluate(checkpoint, other, plan, store, threads=threads, device=device, progress=progress)
            metrics |= {
                f"{name}/{key}": value for key, value in metrics_of(on).items() if not key.startswith(OF_TRAINING)
            }
        write_json(work / "metrics.json", metrics)
        return {"device": device, "samples": samples}

    digest = stage_digest("evaluation", fields, inputs)
    return store.get_or_build(Evaluation, digest, build, inputs=inputs, fields=fields, fresh=fresh)


def evaluation_digest(
    checkpoint: str, shards: Shards, plan: Evaluate, threads: int, others: Mapping[str, Shards] | None = None
) -> str:
    """The digest that :func:`evaluate` will give, before anything is drawn."""
    inputs, fields = evaluation_inputs(checkpoint, shards, plan, threads, others)
    return stage_digest("evaluation", fields, inputs)


def evaluation_inputs(
    checkpoint: str, shards: Shards, plan: Evaluate, threads: int, others: Mapping[str, Shards] | None = None
) -> tuple[dict[str, str], dict[str, Any]]:
    """What an evaluation's digest is made of. Raises what finding the extractor raises."""
    from .features import clip_identity, identity

    _, extractor = identity(plan.features, plan.sha256)
    inputs = {
        "checkpoint": checkpoint,
        "shards": shards.digest,
        "features": extractor,
        "clip": clip_identity(plan.clip, plan.clip_sha256)[1],
        **({"safety": locate(plan.safety).sha256} if plan.safety else {}),
        **{f"also {name}": other.digest for name, other in sorted((others or {}).items())},
    }
    return inputs, {**plan.digest_fields(), "threads": threads}


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """The measures by name."""
    content: dict[str, float] = json.loads((evaluation.path / "metrics.json").read_text("utf-8"))
    return content


def reference(shards: Shards, plan: Evaluate, store: Store, threads: int, device: str) -> Reference:
    """Features of the validation pictures and of as many training pictures, made once for all evaluations.

    The training pictures have the validation side's share of every label, as generated pictures have its captions:
    else the distance between two sets of real pictures would mostly be that of their label counts.
    """
    from .features import folder_features, identity, load
    from .samples import save_pictures

    measure, extractor = identity(plan.features, plan.sha256)
    inputs = {"shards": shards.digest, "features": extractor}

    def build(work: Path) -> None:
        import numpy as np
        from safetensors.numpy import save_file

        prepare(threads, device)
        network = load(plan.features, device, plan.layer)
        (validation, wanted), (training, offered) = (real_pictures(shards, which) for which in ("validation", "train"))
        draws = [matched_rows(wanted, offered, draw) for draw in range(REAL_DRAWS)]
        used = sorted({row for rows in draws for row in rows})
        features = {}
        for name, pixels in (("validation", validation), ("train", training[used])):
            save_pictures([np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in pixels], work / name)
            features[name] = folder_features(work / name, network)
        known_features = features["train"][np.searchsorted(used, draws)]
        save_file({"validation": features["validation"], "train": known_features}, work / "features.safetensors")

    digest = stage_digest("reference", {"layer": plan.layer, "threads": threads}, inputs)
    return store.get_or_build(Reference, digest, build, inputs={**inputs, "measure": measure})


def real_pictures(shards: Shards, side: str) -> "tuple[torch.Tensor, list[str | None]]":
    """(uint8 N3SS, labels) of a side's pictures, without variants, as the squares that a model draws."""
    import torch

    from darkroom.preprocess.shards import load_parts, read_index

    size = read_index(shards)["size"]
    pictures: list[torch.Tensor] = []
    labels: list[str | None] = []
    for tensors, rows in load_parts(shards, side, ("pixels",)):
        plain = [place for place, row in enumerate(rows) if "variant" not in row]
        pictures.append(squares(tensors["pixels"] if len(plain) == len(rows) else tensors["pixels"][plain], size))
        labels += [rows[place]["label"] for place in plain]
    return torch.cat(pictures), labels


def squares(pixels: "torch.Tensor", size: int) -> "torch.Tensor":
    """uint8 N3HW -> uint8 N3SS: the central squares, brought to the side of what a model draws, with antialiasing.

    Models draw squares; pictures of other shapes can be compared with them by their middle alone.
    """
    import torch
    from torch.nn import functional

    height, width = pixels.shape[-2:]
    if (height, width) == (size, size):
        return pixels
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    found = []
    for part in pixels[..., top : top + side, left : left + side].split(256):
        small = functional.interpolate(part.float(), (size, size), mode="bicubic", antialias=True, align_corners=False)
        found.append(small.clamp(0, 255).round().to(torch.uint8))
    return torch.cat(found)


def matched_rows(wanted: list[str | None], offered: list[str | None], draw: int) -> list[int]:
    """Random rows of ``offered``, one for each label of ``wanted``; no row twice while unused ones are left.

    A label that ``offered`` lacks, and a surplus of one, is made up for with any other rows, so that every draw has
    as many rows as ``wanted``.
    """
    import torch

    from darkroom.randomness import generator

    order = torch.randperm(len(offered), generator=generator("reference", draw)).tolist()
    left = Counter(wanted)
    chosen, others = [], []
    for row in order:
        if left[offered[row]] > 0:
            left[offered[row]] -= 1
            chosen.append(row)
        else:
            others.append(row)
    return (chosen + others + order * (len(wanted) // len(order) + 1))[: len(wanted)]


def _measure(
    checkpoint: Checkpoint,
    shards: Shards,
    plan: Evaluate,
    store: Store,
    work: Path,
    threads: int,
    device: str,
    progress: Progress,
) -> tuple[dict[str, float], str | None]:
    """The measures, and the digest of the samples that they were taken of."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.numpy import load_file

    from darkroom.diffusion.families import family_of
    from darkroom.diffusion.pipeline import load_pipeline
    from darkroom.diffusion.sampling import grid
    from darkroom.preprocess.latents import encode
    from darkroom.preprocess.shards import load_parts
    from darkroom.preprocess.texts import Texts
    from darkroom.quality.safety import unwanted_share
    from darkroom.training.data import Side

    from .copies import copying
    from .features import identity
    from .frechet import frechet_at_equal_count, frechet_of_sets
    from .measures import denoising_errors
    from .reconstruction import is_autoencoder, rebuild, rebuilding, reconstruction_errors
    from .samples import PICTURES, Drawer
    from .sets import blank, by_group, compared

    if is_autoencoder(checkpoint.path / "pipeline"):
        prepare(threads, device)
        return rebuilding(checkpoint.path / "pipeline", shards, plan, store, work, device, progress), None

    # The reference first: it may fail, and it is cheap.
    real = load_file(reference(shards, plan, store, threads, device).path / "features.safetensors")
    prepare(threads, device)
    pipeline = load_pipeline(checkpoint.path / "pipeline", device)
    kind = family_of(pipeline)
    texts = Texts.cached(lambda some: kind.encode(pipeline, some), kind.encoders(pipeline), shards)
    data = Side(shards, "validation", kind.asked_by, pixels=True).condition(texts)
    # A champion from another recipe has another autoencoder: each model is judged on latents of its own.
    for part in data.parts:
        part.latents = encode(getattr(pipeline, "vae", None), part.pixels, kind.shifts_latents)
    data.to(torch.device(device))

    # The pictures: the validation side's captions, in order, over and over; without one, the unconditional prompt.
    count = plan.count or len(data.texts)
    drawer = Drawer(
        checkpoint,
        shards,
        plan,
        plan.noise_seed,
        store,
        threads=threads,
        device=device,
        progress=progress,
        pipeline=pipeline,
    )
    samples, prompts = drawer.samples(0, count), drawer.prompts(0, count)
    pictures = [Image.open(path).convert("RGB") for path in sorted((samples.path / PICTURES).iterdir())]
    grid(pictures[:64], columns=8).save(work / "grid.png")
    write_json(work / "prompts.json", prompts)

    # What its autoencoder, which no training of the denoiser mends, loses of held-out pictures.
    metrics: dict[str, float] = {}
    if (vae := getattr(pipeline, "vae", None)) is not None:
        given = [part.pixels[:REBUILT] for part in data.parts]
        metrics |= reconstruction_errors([rebuild(vae, pixels) for pixels in given], given)

    # The distance to held-out pictures, beside that of real training pictures at equal count.
    measure, _ = identity(plan.features, plan.sha256)
    features = drawer.features(0, count)
    distances = frechet_of_sets(features, real["validation"])
    distance = float(np.mean(distances))
    floor = float(np.mean([frechet_at_equal_count(one[:count], real["validation"]) for one in real["train"]]))
    metrics |= {measure: distance, f"{measure}_train": floor, f"{measure}_ratio": distance / max(floor, TINY)}
    if len(distances) > 1:  # sets of other noise for the same prompts: how steady the model is
        spread = {"spread": float(np.std(distances, ddof=1)), "spread_sets": float(len(distances))}
        metrics |= {f"{measure}_{name}": value for name, value in spread.items()}
    metrics |= compared(features, real["validation"], prompts, data.texts, measure)

    # Whether the pictures are what was asked for, where something was.
    asked = sum(bool(prompt) for prompt in prompts)
    score_name, scores = score_of(plan), drawer.scores(0, count)
    if asked:
        metrics[score_name] = float(np.nanmean(scores))
    write_json(work / "scores.json", [None if np.isnan(score) else round(float(score), 3) for score in scores])
    write_json(work / "notes.json", notes(score_name, asked, count))
    labels = drawer.labels(0, count)
    write_json(work / "groups.json", by_group(labels if any(labels) else prompts, scores, features, real["validation"]))

    # Whether they are copies: nearness to training pictures, beside that of held-out ones.
    known = load_parts(shards, "train", ("pixels",))
    training = np.concatenate([squares(tensors["pixels"], data.size).numpy() for tensors, _ in known])
    drawn = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    held = np.concatenate([squares(part.pixels, data.size).numpy() for part in data.parts])
    metrics |= copying(drawn, held, training, [row["id"] for _, rows in known for row in rows], work)
    metrics |= {"blank_share": blank(drawn), "blank_share_validation": blank(held)}
    unsafe = unwanted_share(sorted((samples.path / PICTURES).iterdir()), plan)
    if unsafe is not None:
        metrics["unsafe_share"] = unsafe

    errors, by_time = denoising_errors(pipeline, data.parts, plan.noise_seed, plan.denoising_timesteps)
    write_json(work / "denoising.json", by_time)
    return metrics | errors, samples.digest


def score_of(plan: Evaluate) -> str:
    """What the CLIP score is called: after the model that gives it."""
    from .features import identity

    return f"clip_score_{identity(plan.clip, None)[0].removeprefix('fd_').removeprefix('clip_')}"


def notes(score: str, asked: int, count: int) -> list[str]:
    """What a reader of the measures must know: whether the CLIP score is of all pictures, some or none."""
    if not asked:
        return [f"{score} was left out: no picture of the validation side has a caption, so nothing was asked for"]
    if asked < count:
        return [f"{score} is the mean over the {asked:,} of {count:,} pictures that were drawn for a caption"]
    return []
