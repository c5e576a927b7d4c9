"""Does a student draw better in few steps than its teacher in as many? Distils the digits' model and compares.

    DARKROOM_HOME=HOME .venv/bin/darkroom run digits
    .venv/bin/python benchmarks/distillation.py --home HOME --steps 1 2 4

For each number of steps a student of recipes/digits-fast.toml is trained. Both draw one picture for each caption of the
validation side from the same noise, in this many steps: the student without guidance, the teacher with its recipe's.
Measured is the Fréchet distance to the held-out digits by the pooled features of the shipped CLIP model.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.evaluation.evaluate import reference
from darkroom.evaluation.features import folder_features, load
from darkroom.evaluation.frechet import frechet
from darkroom.evaluation.samples import save_pictures
from darkroom.preprocess.shards import preprocess
from darkroom.recipe import Overrides, Recipe, Sampler, read_assignments
from darkroom.recipe import load as load_recipe
from darkroom.store import Store
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.training.parts import latents_of, parts

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print a Markdown table, one line a number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where `darkroom run digits` was run")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of the student's recipe"
    )
    options = parser.parse_args()
    store = Store(options.home / "store")
    teacher = newest_digits(store.root / "checkpoint") / "pipeline"
    checked = max((store.root / "checked").glob("*/checked.parquet"), key=lambda path: path.stat().st_mtime).parent
    print("| steps | teacher | student | training s |\n|---:|---:|---:|---:|", flush=True)
    for steps in options.steps:
        fields = {"model.base": str(teacher), "train.distill.steps": steps, "evaluate.sampler.steps": steps}
        plan = load_recipe(
            str(ROOT / "recipes/digits-fast.toml"), Overrides(fields=fields | read_assignments(options.set))
        )
        # The artifact's own digest is the name of its folder.
        shards = preprocess(
            CheckedManifest(checked.name, checked), plan.preprocess, latents_of(plan), plan.train.threads, store
        )
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            work = Path(folder)
            begun = time.monotonic()
            train(job_of(plan, shards, teacher), work)
            seconds = time.monotonic() - begun
            guided = Sampler(steps=steps, guidance=plan.train.distill.guidance, batch=plan.evaluate.sampler.batch)
            old = distance(teacher, shards, plan, guided, store, work)
            new = distance(work / "pipeline", shards, plan, plan.evaluate.sampler, store, work)
            print(f"| {steps} | {old:.2f} | {new:.2f} | {seconds:.0f} |", flush=True)


def newest_digits(checkpoints: Path) -> Path:
    """The newest checkpoint of the recipe ``digits``."""
    found = [
        path for path in checkpoints.iterdir() if json.loads((path / "recipe.json").read_text())["name"] == "digits"
    ]
    return max(found, key=lambda path: path.stat().st_mtime)


def job_of(plan: Recipe, shards: Shards, teacher: Path) -> Job:
    """The student's training."""
    places = {name: weights.path for name, weights in parts(plan).items()} | {"base": teacher}
    digests = {"shards": shards.digest}
    sampler = plan.evaluate.sampler
    return Job(plan.name, plan.seed, plan.train, plan.model, sampler, shards.path, places, "cpu", 0, digests)


def distance(folder: Path, shards: Shards, plan: Recipe, sampler: Sampler, store: Store, work: Path) -> float:
    """The Fréchet distance of what a pipeline draws to the held-out digits."""
    from safetensors.numpy import load_file

    from darkroom.diffusion.pipeline import load_pipeline
    from darkroom.diffusion.sampling import draw
    from darkroom.training.data import Side

    real: Any = load_file(
        reference(shards, plan.evaluate, store, plan.train.threads, "cpu").path / "features.safetensors"
    )
    prompts = Side(shards, "validation").texts
    pictures = draw(load_pipeline(folder, "cpu"), prompts, plan.evaluate.noise_seed, sampler)
    shutil.rmtree(work / "drawn", ignore_errors=True)
    save_pictures(pictures, work / "drawn")
    extractor = load(plan.evaluate.features, "cpu", plan.evaluate.layer)
    return frechet(folder_features(work / "drawn", extractor), real["validation"])


if __name__ == "__main__":
    main()
