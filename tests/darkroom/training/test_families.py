"""Every kind of pipeline learns, and is the same after a kill; what is finished can be judged."""

import json
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.collect import digits
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import preprocess
from darkroom.quality.picture import working_path
from darkroom.recipe import Model, Preprocess, Sampler, Train
from darkroom.recipe_training import NEEDED, SHIFTED, UNETS
from darkroom.store import Store
from darkroom.training import checkpoints
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.weights.locate import locate
from tests.darkroom.diffusion.tiny import t5

PICTURES = 120
SMALL: dict[str, Any] = {
    "block_out_channels": (16, 16),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_heads": 2,
    "norm_num_groups": 8,
}
# Steps, and the share of its first loss that the validation loss must fall below in them.
LEARNS = {
    "unconditional": (60, 0.5),
    "dit": (60, 0.85),
    "stable-diffusion-xl": (40, 0.9),
    "stable-diffusion-3": (40, 0.9),
    "flux": (30, 0.95),
}


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The trainer listens to SIGTERM; the tests after it need not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def checked(noise, checked_of, store: Store) -> CheckedManifest:
    """Real digits in the place of the noise."""
    rows = []
    for number, item in enumerate(islice(digits.items(), PICTURES)):
        row = noise(number, (8, 8), caption=item.caption, label=item.label)
        working_path(store.root, row["working"]).write_bytes(item.read())
        rows.append(row)
    return checked_of(rows)


def parts_of(name: str, folder: Path) -> dict[str, str]:
    text = "builtin:digits-text-encoder"
    found = {part: "builtin:digits-vae" if part == "vae" else text for part in NEEDED[name]}
    if name == "flux":
        for part in t5(64):
            part.save_pretrained(folder / "t5")
        found["text_encoder_2"] = str(folder / "t5")
    return found


def job_of(name: str, checked: CheckedManifest, store: Store, folder: Path, steps: int) -> Job:
    named = parts_of(name, folder)
    shape = {"unet": SMALL} if name in UNETS else {"transformer": {"layers": 2, "heads": 2, "head_width": 16}}
    model = Model(family=name, **named, **shape)
    latents = Latents(locate(named["vae"]) if "vae" in named else None, name in SHIFTED)
    shards: Shards = preprocess(checked, Preprocess(size=16), latents, 1, store)
    plan = Train(
        steps=steps,
        batch=16,
        learning_rate=4e-3,
        warmup_steps=4,
        ema_decay=0.9,
        threads=1,
        validate_every=1,
        checkpoint_every=10,
        grid_every=1000,
    )
    plan = plan.model_copy(update={"validate_every": max(1, steps - 1)})
    sampler = Sampler(steps=2, guidance=1.0, batch=4)
    paths = {part: locate(value).path for part, value in named.items()}
    return Job("test", 0, plan, model, sampler, shards.path, paths, "cpu", 0, {"shards": shards.digest})


def validation(work: Path) -> float:
    events = [json.loads(line) for line in (work / "events.jsonl").read_text().splitlines()]
    found = [event["metrics"]["validation/loss"] for event in events if "validation/loss" in event.get("metrics", {})]
    return float(found[-1])


@pytest.mark.parametrize("name", list(LEARNS))
def test_each_kind_learns(name: str, checked: CheckedManifest, store: Store, tmp_path: Path) -> None:
    steps, share = LEARNS[name]
    losses = []
    for count in (1, steps):
        work = tmp_path / f"{count}"
        work.mkdir()
        train(job_of(name, checked, store, tmp_path, count), work)
        losses.append(validation(work))
    assert losses[1] < share * losses[0]
    assert "from diffusers import DiffusionPipeline" in (work / "pipeline/README.md").read_text()
    assert all(Image.open(sheet).size[0] > 16 for sheet in (work / "grids").iterdir())


@pytest.mark.parametrize("name", ["unconditional", "dit"])
def test_killed_and_resumed_gives_the_same_bytes(
    name: str, checked: CheckedManifest, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(name, checked, store, tmp_path, 16)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for work in (straight, broken):
        work.mkdir()
    train(job, straight)
    original = checkpoints.save

    def killed(work: Path, step: int, tensors: dict) -> None:
        original(work, step, tensors)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(job, broken)
    torch.rand(7)  # whatever else drew from torch's own numbers must not matter
    train(job, broken)
    (file,) = (
        (straight / "pipeline").glob("*/diffusion_pytorch_model.safetensors")
        if name == "unconditional"
        else (straight / "pipeline/transformer/diffusion_pytorch_model.safetensors",)
    )
    assert file.read_bytes() == (broken / file.relative_to(straight)).read_bytes()
