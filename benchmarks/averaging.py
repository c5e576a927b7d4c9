"""Would another EMA draw better digits? One training, averages of its weights over several spans, compared.

    .venv/bin/python benchmarks/averaging.py --home HOME --seeds 0 1

Post-hoc EMA (Karras et al. 2024, arXiv:2312.02696) lets the span be chosen after training, for the price of snapshots:
it pays where the span matters. Here several averages are followed while the digits' recipe trains on one thread. Each
then draws one picture for each caption of the validation side, from the same noise; measured as in quality.py.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from quality import drawn, real_distance, shards_of

from darkroom.diffusion.ema import Ema
from darkroom.recipe import Overrides, load
from darkroom.store import Store
from darkroom.training import loop
from darkroom.training.methods import Batch, Method, Player
from darkroom.training.state import State
from darkroom.training.step import take_step
from darkroom.training.supervise import job_of

DECAYS = (0.0, 0.9, 0.95, 0.98, 0.99)  # warmed up as the recipe's, which is at 0.985 after its 640 steps


def main() -> None:
    """Print a Markdown table, one line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where shards and features are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(options.home / "store")
    plan = load("digits", Overrides(fields={"train.threads": 1}))
    shards = shards_of(plan, store)
    others: list[Ema] = []

    def followed(task: Method, state: State, player: Player, batch: Batch, step: int, rate: float) -> Any:
        if not step:
            others[:] = [Ema(player.parameters, decay) for decay in DECAYS]
        told = take_step(task, state, player, batch, step, rate)
        for other in others:
            other.update(player.parameters, step)
        return told

    loop.take_step = followed  # type: ignore[attr-defined]
    print("| seed | " + " | ".join(f"{decay or 'none'}" for decay in DECAYS) + " |")
    print("|" + "---:|" * (len(DECAYS) + 1), flush=True)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
            loop.train(job_of(plan.model_copy(update={"seed": seed}), shards, store, "cpu"), Path(name))
            pipeline, folder = Path(name) / "pipeline", Path(name) / "unet"
            unet = UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet")
            found = []
            for other in others:
                unet.load_state_dict(other.average)
                unet.save_pretrained(folder)
                found.append(drawn(pipeline, folder, plan, shards, store, plan.evaluate.sampler))
            print(f"| {seed} | " + " | ".join(f"{each:.3f}" for each in found) + " |", flush=True)
    print(f"\nReal training pictures are {real_distance(plan, shards, store):.3f} from the held-out ones.")


if __name__ == "__main__":
    main()
