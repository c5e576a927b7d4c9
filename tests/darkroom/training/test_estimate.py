"""Estimates: sums of what was measured once, kept beside the checkpoint's digest and compared afterwards."""

from pathlib import Path

import pytest

from darkroom.artifacts import Checkpoint
from darkroom.recipe import Recipe
from darkroom.recipe_training import Distance
from darkroom.store import Store, write_json
from darkroom.training import checkpoints
from darkroom.training.estimate import FOLDER, compared, estimate, steps_left, synthetic_shards, total

TABLE = {
    "version": 1,
    "name": "x",
    "collect": {"source": "digits"},
    "preprocess": {"size": 16},
    "model": {
        "vae": "builtin:digits-vae",
        "text_encoder": "builtin:digits-text-encoder",
        "unet": {
            "block_out_channels": [16, 16],
            "down_block_types": ["DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "attention_heads": 2,
            "norm_num_groups": 8,
        },
    },
    "train": {"steps": 100, "batch": 4, "threads": 1, "validate_every": 30, "grid_every": 50, "checkpoint_every": 25},
    "evaluate": {
        "features": "builtin:clip-digits",
        "clip": "builtin:clip-digits",
        "count": 10,
        "sampler": {"steps": 2, "batch": 4},
        "denoising_timesteps": 3,
    },
}
PLAN = Recipe.model_validate(TABLE)
ONE = {"start": 1000.0, "step": 1.0, "validation": 10.0, "grid": 100.0, "checkpoint": 0.1, "pipeline": 5.0}
ONE |= {"evaluation": 7000.0}
MEASURED = {"seconds": ONE, "peak_bytes": 7, "checkpoint_bytes": 10, "pipeline_bytes": 1}


def test_the_sum_has_everything_as_often_as_the_intervals_say() -> None:
    found = total(PLAN, MEASURED, {"train": 30, "validation": 10}, 100)
    assert found["train_seconds"] == pytest.approx(1000 + 100 + 4 * 10 + 2 * 100 + 4 * 0.1 + 5)
    assert (found["evaluate_seconds"], found["compare_seconds"]) == (7000, 0), "what draws nothing is evaluated whole"
    drawn = MEASURED | {"seconds": ONE | {"batch": 50.0}}
    found = total(PLAN, drawn, {"train": 30, "validation": 10}, 0)
    assert found["train_seconds"] == 0
    # Ten pictures are three batches of four, and errors are taken at three times: one of each was in the 7000.
    assert found["evaluate_seconds"] == pytest.approx(7000 + 2 * 50 + 2 * 10)
    assert found["compare_seconds"] == 0
    assert found["disk_bytes"] == 31
    # Where validations draw, too, four batches here, errors take what is left of one.
    distance = Distance(features="builtin:clip-digits", count=16)
    drawing = PLAN.model_copy(update={"train": PLAN.train.model_copy(update={"distance": distance})})
    for seconds, errors in ((200.0, 0), (210.0, 10), (150.0, 0)):
        again = total(drawing, MEASURED | {"seconds": drawn["seconds"] | {"validation": seconds}}, {"train": 30}, 0)
        assert again["evaluate_seconds"] == pytest.approx(7000 + 2 * 50 + 2 * errors)
    against = total(PLAN, drawn, {"train": 30, "validation": 10}, 0, champion=True)
    assert against["compare_seconds"] == pytest.approx(found["evaluate_seconds"] + 2 * 512 * 50)


def test_what_was_trained_already_is_not_estimated_again(tmp_path: Path) -> None:
    import torch

    store = Store(tmp_path)
    assert steps_left(PLAN, store, "a" * 64) == 100
    work = store.workplace(Checkpoint, "a" * 64)
    checkpoints.save(work, 60, {"model": {"w": torch.zeros(2)}})
    assert steps_left(PLAN, store, "a" * 64) == 40


def test_a_run_says_how_far_off_the_estimate_was(tmp_path: Path) -> None:
    checkpoint = Checkpoint("b" * 64, tmp_path / "checkpoint" / ("b" * 64))
    seconds = {"train": 90.0, "evaluate": 30.0, "check": 5.0}
    assert compared(checkpoint, seconds, []) is None
    (tmp_path / FOLDER).mkdir()
    write_json(tmp_path / FOLDER / f"{'b' * 64}.json", {"train_seconds": 80.0, "evaluate_seconds": 20.0})
    assert compared(checkpoint, seconds, []) == {"estimated_seconds": 100.0, "took_seconds": 120.0, "off": 0.2}
    assert compared(checkpoint, seconds, ["train"]) is None


def test_an_estimate_is_measured_by_a_process_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    shards = synthetic_shards(PLAN, store, "cpu")
    found = estimate(PLAN, shards, store, "cpu", price_per_hour=3600.0, currency="EUR")
    assert found.train_seconds > found.steps * 1e-4
    assert found.evaluate_seconds > 1, "it loads what the run's evaluation loads"
    assert found.peak_bytes > 1e8
    assert found.cost == pytest.approx(found.seconds)
    (kept,) = (store.root / FOLDER).glob("*.json")
    assert kept.stem not in str(list(store.root.glob("checkpoint/*")))  # nothing that it trained is kept
