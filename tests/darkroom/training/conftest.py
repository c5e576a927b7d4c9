"""A small training on noise: two shapes, a network of two levels, one thread."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.artifacts import Shards
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import preprocess
from darkroom.recipe import Model, Preprocess, Sampler, Train, UNet
from darkroom.store import Store
from darkroom.training.job import Job
from darkroom.weights.locate import locate

PLAN = Preprocess(size=16, buckets=2, bucket_step=8, max_bucket_aspect=4)
UNET = UNet(
    block_out_channels=(16, 16),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_heads=2,
    norm_num_groups=8,
)
MODEL = Model(vae="builtin:digits-vae", text_encoder="builtin:digits-text-encoder", unet=UNET)
SMALL = {"steps": 8, "batch": 4, "warmup_steps": 2, "threads": 1, "checkpoint_every": 3, "validate_every": 2}
SMALL |= {"grid_every": 1000, "log_every": 1, "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The trainer listens to SIGTERM and computes deterministically; the tests after it need not."""
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


@pytest.fixture
def shards(noise: Any, checked_of: Any, store: Store) -> Shards:
    """32 pictures of noise in two shapes, eight of them to validate on."""
    rows = [noise(number, (60, 20) if number % 3 == 0 else (20, 20), caption=f"n {number % 4}") for number in range(32)]
    return preprocess(checked_of(rows), PLAN, Latents(locate("builtin:digits-vae")), 1, store)


@pytest.fixture
def job(shards: Shards) -> Callable[..., Job]:
    """``job(**fields)``: a small training with these fields of [train]."""

    def make(**fields: Any) -> Job:
        plan = Train.model_validate(SMALL | fields)
        parts = {name: locate(str(getattr(MODEL, name))).path for name in ("vae", "text_encoder")}
        sampler = Sampler(steps=2, batch=4)
        return Job("test", 0, plan, MODEL, sampler, shards.path, parts, "cpu", 0, {"shards": shards.digest})

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """``folder(name)``: an empty work folder."""

    def make(name: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        return made

    return make
