"""How good is a model after equal CPU seconds? darkroom beside diffusers' own example, as curves.

    .venv/bin/python benchmarks/quality.py --diffusers FOLDER --home HOME [--seconds 20 40 80]
    DARKROOM_REAL_DATA=DATA .venv/bin/python benchmarks/quality.py --diffusers FOLDER --home HOME --set-of emoji

Both train the UNet of recipes/digits.toml on the same pictures with the same frozen autoencoder and text encoder, on
one thread: the digits at 16 px, or emoji_3d_128 (unpacked in DATA) at 32 px by an autoencoder that is first trained on
them, on neither's account. Ours trains by the recipe, whose schedule is spread over so many steps as fill each budget.
The example (see benchmarks/training.py) runs with its defaults, and once more with the recipe's learning rate; it has
no schedule, so the checkpoints of one run are its curve. CPU seconds are those of the steps: no start-up counts.

Each draws one picture for each caption of the validation side from the same seeds through its own pipeline: ours as
its recipe says, the example's in 50 steps of DDIM without guidance, as it drops no captions. Measured is the Fréchet
distance to the held-out pictures by the pooled features of the shipped CLIP model. It knows nothing but digits: on
emoji read it as a distance of textures.

What is finished is kept in HOME, and the same command goes on. benchmarks/quality-NAME.png shows the printed table.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from training import cpu_seconds

from darkroom.artifacts import Shards
from darkroom.collect.manifest import collect
from darkroom.evaluation.evaluate import reference
from darkroom.evaluation.features import folder_features, load
from darkroom.evaluation.frechet import frechet
from darkroom.evaluation.samples import save_pictures
from darkroom.preprocess.shards import preprocess
from darkroom.quality.check import gate
from darkroom.recipe import Overrides, Recipe, Sampler
from darkroom.recipe import load as load_recipe
from darkroom.store import Store
from darkroom.training.parts import latents_of
from darkroom.training.supervise import train

ROOT = Path(__file__).parents[1]
Points = list[tuple[float, float]]  # CPU seconds, distance
TRIAL = 60  # steps from which it is told how many fill a budget
EVERY = 50  # steps of the example between two checkpoints
# An autoencoder of drawings: at the digits' rate, 2e-3, it loses to its discriminator what it has learnt.
AUTOENCODER = {"train.steps": 600, "train.learning_rate": 5e-4, "train.adversary.start": 400}
SETS: dict[str, dict[str, Any]] = {"digits": {}, "emoji": {"preprocess.size": 32, "collect.source": "folder"}}


def main() -> None:
    """Print a Markdown table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diffusers", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--set-of", choices=list(SETS), default="digits")
    parser.add_argument("--seconds", type=float, nargs="+", default=[20.0, 40.0, 80.0])
    options = parser.parse_args()
    home = (options.home / options.set_of).resolve()
    store = Store(home / "store")
    fields = SETS[options.set_of] | {"train.threads": 1}
    if options.set_of == "emoji":
        fields["collect.path"] = str(Path(os.environ["DARKROOM_REAL_DATA"], "emoji_3d_128").resolve())
        fields["model.vae"] = str(autoencoder(fields, store))
    plan = load_recipe("digits", Overrides(fields=fields))
    shards = shards_of(plan, store)

    curves: dict[str, Points] = {"darkroom": ours(plan, shards, store, options.seconds)}
    for name, rate in (("example", None), ("example, the recipe's learning rate", plan.train.learning_rate)):
        curves[name] = theirs(options, plan, shards, store, home, rate)
    real = real_distance(plan, shards, store)
    print("| | " + " | ".join(f"{second:.0f} CPU s" for second in options.seconds) + " |")
    print("|---|" + "---:|" * len(options.seconds))
    for name, points in curves.items():
        print(f"| {name} | " + " | ".join(f"{found:.2f} ({spent:.0f} s)" for spent, found in points) + " |")
    print(f"\nReal training pictures are {real:.2f} from the held-out ones.")
    plot(curves, real, ROOT / f"benchmarks/quality-{options.set_of}.png")


def shards_of(plan: Recipe, store: Store) -> Shards:
    """The pictures of a plan, ready to train on."""
    checked = gate(collect(plan.collect, store), plan, store, workers=1)
    return preprocess(checked, plan.preprocess, latents_of(plan), plan.train.threads, store)


def autoencoder(fields: dict[str, Any], store: Store) -> Path:
    """An autoencoder of these pictures, for both."""
    fields = fields | AUTOENCODER | {"train.autoencoder.latent_channels": 4}
    plan = load_recipe("digits-autoencoder", Overrides(fields=fields))
    return train(shards_of(plan, store), plan, store, "cpu").path / "pipeline"


def ours(plan: Recipe, shards: Shards, store: Store, budgets: list[float]) -> Points:
    """A training for each budget."""
    each = trained(plan, shards, store, TRIAL)[1]
    points = []
    for budget in budgets:
        folder, each = trained(plan, shards, store, steps := round(budget / each))
        points.append((each * steps, drawn(folder, None, plan, shards, store, plan.evaluate.sampler)))
        print(f"darkroom, {steps} steps: {points[-1]}", file=sys.stderr, flush=True)
    return points


def trained(plan: Recipe, shards: Shards, store: Store, steps: int) -> tuple[Path, float]:
    """(the pipeline after so many steps, CPU seconds of a step without validation, grids and checkpoints)."""
    often = {f"{name}_every": 10**6 for name in ("checkpoint", "validate", "grid")}
    train_plan = plan.train.model_copy(update={"steps": steps, **often})
    looks: list[tuple[int, float]] = []

    def follow(_: Path, new: list[dict[str, Any]]) -> None:
        told = [event for event in new if "train/loss" in event.get("metrics", {})]
        children = Path("/proc/self/task", str(threading.get_native_id()), "children").read_text().split()
        if told and children:
            looks.append((told[-1]["step"], cpu_seconds(int(children[-1]))))

    made = train(shards, plan.model_copy(update={"train": train_plan}), store, "cpu", follow)
    kept = made.path.parent.with_name("cpu-seconds") / f"{made.digest}.json"
    if len(looks) > 1:
        (first, before), (last, after) = looks[0], looks[-1]
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps((after - before) / (last - first)))
    return made.path / "pipeline", float(json.loads(kept.read_text()))


def theirs(
    options: argparse.Namespace, plan: Recipe, shards: Shards, store: Store, home: Path, rate: float | None
) -> Points:
    """The checkpoints of one run of the example that come first after each budget."""
    epsilon = plan.train.objective.model_copy(update={"kind": "epsilon"})
    start = plan.train.model_copy(update={"steps": 1, "objective": epsilon})
    base = train(shards, plan.model_copy(update={"train": start}), store, "cpu").path / "pipeline"
    pictures, out = home / "pictures", home / f"example-{rate or 'default'}"
    if not pictures.is_dir():
        written(shards, pictures)
    if not (out / "seconds.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        moved = example(options, plan, base, pictures, out, rate)
        (out / "seconds.json").write_text(json.dumps(moved))
    seconds = {int(step): spent for step, spent in json.loads((out / "seconds.json").read_text()).items()}
    sampler = Sampler(steps=50, guidance=1.0, batch=plan.evaluate.sampler.batch)
    points = []
    for budget in options.seconds:
        step = min(step for step, spent in seconds.items() if step % EVERY == 0 and spent >= budget)
        unet = out / f"checkpoint-{step}/unet"
        points.append((seconds[step], drawn(base, unet, plan, shards, store, sampler)))
        print(f"{out.name}, {step} steps: {points[-1]}", file=sys.stderr, flush=True)
    return points


def written(shards: Shards, folder: Path) -> None:
    """The training side as the example reads it: pictures of the very size, and their captions."""
    from PIL import Image

    from darkroom.preprocess.shards import load_parts

    folder.mkdir(parents=True)
    lines, number = [], 0
    for tensors, rows in load_parts(shards, "train", ("pixels",)):
        for pixels, row in zip(tensors["pixels"], rows, strict=True):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")
            lines.append(json.dumps({"file_name": f"{number:05}.png", "text": row["caption"] or ""}))
            number += 1
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def example(
    options: argparse.Namespace, plan: Recipe, base: Path, pictures: Path, out: Path, rate: float | None
) -> dict[int, float]:
    """Run the example until its largest budget is spent; returns the CPU seconds of its steps, by step."""
    steps = 10**5
    command = [
        sys.executable, str(options.diffusers / "examples/text_to_image/train_text_to_image.py"),
        "--pretrained_model_name_or_path", str(base), "--train_data_dir", str(pictures), "--image_column", "image",
        "--caption_column", "text", "--resolution", str(plan.preprocess.size), "--max_train_steps", str(steps),
        "--seed", "0", "--output_dir", str(out), "--cache_dir", str(out / "cache"),
        "--checkpointing_steps", str(EVERY), *(["--learning_rate", str(rate)] if rate else []),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    moved: dict[int, float] = {}
    begun, words = 0.0, [""]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        assert isinstance(run.stderr, io.BufferedReader)
        line = b""
        while some := run.stderr.read1(4096):  # the bar ends its states by a carriage return
            *states, line = re.split(rb"[\r\n]", line + some)
            for state in states:
                words.append(state.decode(errors="replace"))
                if not (bar := re.search(rf"Steps:.* (\d+)/{steps} ", words[-1])):
                    continue
                begun = begun or cpu_seconds(run.pid)  # the bar is drawn before the first step, too
                moved.setdefault(int(bar[1]), cpu_seconds(run.pid) - begun)
            enough = max(options.seconds) + 3 * EVERY * max(moved.values(), default=0.0) / max([1, *moved])
            if moved and max(moved) % EVERY > EVERY // 2 and max(moved.values()) > enough:
                run.kill()
                break
    if not moved or max(moved.values()) < max(options.seconds):
        sys.exit("\n".join(words[-30:]))
    # The bar skips steps: a checkpoint's seconds are those of the first state that shows it done.
    steps_seen = sorted(moved)
    marks = range(EVERY, steps_seen[-1] - EVERY, EVERY)
    return {mark: moved[next(step for step in steps_seen if step >= mark)] for mark in marks}


def drawn(folder: Path, unet: Path | None, plan: Recipe, shards: Shards, store: Store, sampler: Sampler) -> float:
    """The distance of what a pipeline, with another UNet if one is named, draws for the held-out captions."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.numpy import load_file

    from darkroom.diffusion.pipeline import load_pipeline
    from darkroom.diffusion.sampling import draw
    from darkroom.training.data import Side

    torch.set_num_threads(plan.train.threads)
    pipeline = load_pipeline(folder, "cpu")
    if unet is not None:
        pipeline.unet = UNet2DConditionModel.from_pretrained(unet).eval()
    found = reference(shards, plan.evaluate, store, plan.train.threads, "cpu").path / "features.safetensors"
    target = store.root.parent / "drawn"
    shutil.rmtree(target, ignore_errors=True)
    prompts = Side(shards, "validation").texts
    save_pictures(draw(pipeline, prompts, plan.evaluate.noise_seed, sampler), target)
    extractor = load(plan.evaluate.features, "cpu", plan.evaluate.layer)
    return frechet(folder_features(target, extractor), load_file(found)["validation"])


def real_distance(plan: Recipe, shards: Shards, store: Store) -> float:
    """The distance of real training pictures to the held-out ones, in the mean of several draws."""
    from safetensors.numpy import load_file

    real = load_file(reference(shards, plan.evaluate, store, 1, "cpu").path / "features.safetensors")
    distances = [frechet(drawn, real["validation"]) for drawn in real["train"]]
    return sum(distances) / len(distances)


def plot(curves: dict[str, Points], real: float, path: Path) -> None:
    """A small PNG of the curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.axhline(real, color="grey", linestyle=":", label="real training pictures")
    axes.set(xscale="log", yscale="log", xlabel="CPU seconds of training", ylabel="distance to held-out pictures")
    for axis, values in (
        (axes.xaxis, [spent for points in curves.values() for spent, _ in points]),
        (axes.yaxis, [found for points in curves.values() for _, found in points] + [real]),
    ):
        round_ones = [digit * 10.0**power for power in range(-2, 4) for digit in (1, 2, 3, 5)]
        axis.set_ticks([value for value in round_ones if min(values) * 0.8 <= value <= max(values) * 1.25])
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
