"""Does the length of the weights' average matter? One training of the digits, averaged over several lengths at once.

    DARKROOM_HOME=HOME .venv/bin/darkroom run digits
    .venv/bin/python benchmarks/averages.py --home HOME

Post-hoc EMA (Karras et al. 2024, section 3) finds the best length after training, and keeps snapshots for it. It can
gain at most what lies between the recipe's own length and the best of a table such as this one prints: the Fréchet
distance to the held-out digits of what each average draws from the same noise for the same prompts.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.devices import prepare
from darkroom.diffusion.ema import Averaged, Ema
from darkroom.diffusion.sampling import draw
from darkroom.evaluation.evaluate import reference
from darkroom.evaluation.features import folder_features, load
from darkroom.evaluation.frechet import frechet_of_sets
from darkroom.evaluation.samples import save_pictures
from darkroom.preprocess.shards import preprocess
from darkroom.recipe import Overrides, Recipe, read_assignments
from darkroom.recipe import load as load_recipe
from darkroom.store import Store
from darkroom.training.methods import method
from darkroom.training.optimizers import learning_rate
from darkroom.training.parts import latents_of
from darkroom.training.state import State
from darkroom.training.step import take_step
from darkroom.training.supervise import job_of

DECAYS = (0.0, 0.9, 0.97, 0.98, 0.99, 0.995, 0.998)  # 0: the last weights alone


def main() -> None:
    """Print a Markdown table, one line a decay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where `darkroom run digits` was run")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override the recipe")
    options = parser.parse_args()
    plan = load_recipe("digits", Overrides(fields=read_assignments(options.set)))
    store = Store(options.home / "store")
    checked = max((store.root / "checked").glob("*/checked.parquet"), key=lambda path: path.stat().st_mtime).parent
    shards = preprocess(
        CheckedManifest(checked.name, checked), plan.preprocess, latents_of(plan), plan.train.threads, store
    )
    task, averages = trained(plan, shards, store)
    print("| decay a step | distance | its spread over sets of noise |\n|---:|---:|---:|", flush=True)
    for decay, average in averages.items():
        with Averaged(task.players[0].module, task.players[0].parameters, average):
            distances = distances_of(task.pipeline, plan, shards, store, task.validation.texts)
        mean = sum(distances) / len(distances)
        spread = (sum((one - mean) ** 2 for one in distances) / max(1, len(distances) - 1)) ** 0.5
        print(f"| {decay:g} | {mean:.3f} | {spread:.3f} |", flush=True)


def trained(plan: Recipe, shards: Shards, store: Store) -> tuple[Any, dict[float, Ema]]:
    """The method after its training, and an average of each length."""
    prepare(plan.train.threads, "cpu")
    task: Any = method(job_of(plan, shards, store, "cpu"), torch.device("cpu"))
    state, player = State(task), task.players[0]
    averages = {decay: Ema(player.parameters, decay) for decay in DECAYS}
    for step in range(plan.train.steps):
        take_step(task, state, player, task.batch(step), step, learning_rate(plan.train, step))
        for average in averages.values():
            average.update(player.parameters, step)
    return task, averages


def distances_of(pipeline: Any, plan: Recipe, shards: Shards, store: Store, texts: list[str]) -> list[float]:
    """The Fréchet distances to the held-out digits, one for each set of the validation side's size."""
    from safetensors.numpy import load_file

    count, evaluate = plan.evaluate.count or len(texts), plan.evaluate
    prompts = [texts[index % len(texts)] for index in range(count)]
    known = load_file(reference(shards, evaluate, store, plan.train.threads, "cpu").path / "features.safetensors")
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        save_pictures(draw(pipeline, prompts, evaluate.noise_seed, evaluate.sampler), Path(folder))
        features = folder_features(Path(folder), load(evaluate.features, "cpu", evaluate.layer))
    return frechet_of_sets(features, known["validation"])


if __name__ == "__main__":
    main()
