"""What training costs beside the model's own steps.

    .venv/bin/python benchmarks/training_overhead.py

Trains recipes/digits.toml for a few hundred steps on its own shards, once as it is and once with a model that does
nothing, and prints, of the first:

- the share of validation, grids and checkpoints at the recipe's intervals (at most 10 %);
- the share of the loader and of bookkeeping in a step: drawing the batch, the guard, the average, logs (at most 3 %).
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from darkroom.collect.manifest import collect
from darkroom.preprocess.shards import preprocess
from darkroom.quality.check import gate
from darkroom.recipe import Overrides, load
from darkroom.store import Store
from darkroom.training import checkpoints, loop
from darkroom.training.methods.base import Loss
from darkroom.training.methods.denoise import Denoise
from darkroom.training.parts import latents_of
from darkroom.training.rows import Rows
from darkroom.training.supervise import job_of

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--home", type=Path, help="a store that has the shards already")
    options = parser.parse_args()
    plan = load(str(ROOT / "recipes/digits.toml"), Overrides(fields={"train.steps": options.steps}))
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        store = Store(options.home or Path(name) / "store")
        checked = gate(collect(plan.collect, store), plan, store)
        shards = preprocess(checked, plan.preprocess, latents_of(plan), plan.train.threads, store)
        job = job_of(plan, shards, store, "cpu")
        spent = timed(lambda: loop.train(job, folder(name, "real")))
        original = Denoise.loss
        Denoise.loss = nothing  # type: ignore[method-assign, assignment]
        idle = timed(lambda: loop.train(job, folder(name, "idle")))
        Denoise.loss = original  # type: ignore[method-assign]
    steps = spent["steps"] - spent["asides"]
    # Of the idle run: all that a step is without the model, the gradients' norm and the optimiser.
    bare = idle["steps"] - idle["asides"] - idle["optimizer"]
    print("| what | seconds | share |\n|---|---:|---:|")
    print(f"| {options.steps} steps | {steps:.1f} | |")
    print(f"| validation, grids, checkpoints | {spent['asides']:.1f} | {spent['asides'] / spent['steps']:.1%} |")
    print(f"| loader and bookkeeping | {bare:.1f} | {bare / steps:.1%} |")


def folder(name: str, which: str) -> Path:
    """A new work folder."""
    made = Path(name) / which
    made.mkdir()
    return made


def nothing(_task: Denoise, player: Any, _batch: Any, _step: int) -> Loss:
    """A loss that asks no model, with a gradient for every parameter."""
    values = list(player.parameters.values())
    if values[0].grad is None:  # in the rehearsal; later they are kept
        for value in values:
            value.grad = torch.zeros_like(value)
    return Loss(values[0].flatten()[0] * 0.0)


def timed(train: Callable[[], None]) -> dict[str, float]:
    """Seconds of the loop, of what interrupts its steps, and of optimisers and norms."""
    seconds: dict[str, float] = defaultdict(float)
    undo = [
        clocked(seconds, "asides", Denoise, "validate"),
        clocked(seconds, "asides", loop, "sample"),
        clocked(seconds, "asides", checkpoints, "save"),
        clocked(seconds, "rehearsal", loop, "rehearse"),
        clocked(seconds, "optimizer", torch.optim.AdamW, "step"),
        clocked(seconds, "optimizer", torch.nn.utils, "get_total_norm"),
        clocked(seconds, "optimizer", torch.nn.utils, "clip_grads_with_norm_"),
        clocked(seconds, "optimizer", Rows, "taken"),
        clocked(seconds, "optimizer", Rows, "clear"),
        clocked(seconds, "setup", loop, "method"),
        clocked(seconds, "pipeline", Denoise, "save"),
    ]
    start = time.monotonic()
    train()
    seconds["steps"] = time.monotonic() - start - seconds["rehearsal"] - seconds["setup"] - seconds["pipeline"]
    for one in undo:
        one()
    return seconds


def clocked(seconds: dict[str, float], name: str, owner: Any, attribute: str) -> Callable[[], None]:
    """Add up the seconds of a function; returns what puts it back."""
    original = getattr(owner, attribute)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name] += time.monotonic() - start

    setattr(owner, attribute, call)
    return lambda: setattr(owner, attribute, original)


if __name__ == "__main__":
    main()
