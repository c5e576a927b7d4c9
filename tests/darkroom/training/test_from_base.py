"""Training from a finished pipeline: each way learns, keeps what it must not touch, and leaves what diffusers reads.

The base is a tiny Stable Diffusion that was trained on digits, white on black and black on white as the caption says.
It is taught digits whose left half alone is inverted, and a word for the plain ones.
"""

import hashlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.diffusion.pipeline import load_pipeline
from darkroom.diffusion.sampling import draw
from darkroom.errors import RecipeError
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import preprocess
from darkroom.quality.picture import working_path
from darkroom.recipe import Model, Preprocess, Sampler, Train, UNet
from darkroom.store import Store
from darkroom.training import checkpoints
from darkroom.training.events import read
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.weights.locate import locate

PARTS = {"vae": locate("builtin:digits-vae").path, "text_encoder": locate("builtin:digits-text-encoder").path}
UNET = UNet(
    block_out_channels=(24, 24),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_heads=2,
    norm_num_groups=8,
)
SAMPLER = Sampler(steps=8, batch=8)
COMMON = {"batch": 16, "warmup_steps": 5, "threads": 1, "grid_every": 10_000, "ema_decay": None, "log_every": 1}
COMMON |= {"checkpoint_every": 10_000, "validate_every": 10_000}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The trainer listens to SIGTERM; the tests after it need not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


CAPTIONS = {"plain": "a handwritten {}", "inverted": "an inverted {}", "half": "a half {}"}


def digits(store: Store, *styles: str, count: int = 96) -> Shards:
    """Shards of scanned digits, in these styles by turns, every fourth for validation."""
    scans, rows = load_digits(), []
    for number in range(count):
        style = styles[number // 4 % len(styles)]
        pixels = (scans.images[number] * 15.9).astype(np.uint8)
        inverted = {"plain": 0, "inverted": 8, "half": 4}[style]  # columns from the left
        pixels[:, :inverted] = 255 - pixels[:, :inverted]
        picture = Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).convert("RGB")
        identity = hashlib.sha256(f"{number} {style}".encode()).hexdigest()
        path = working_path(store.root, identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG")
        words = CAPTIONS[style].format(WORDS[scans.target[number]])
        rows.append(
            {"row_id": identity, "id": identity, "path": f"{number}.png", "source": "digits", "origin": None}
            | {"licence": "CC0-1.0", "caption": words, "label": None, "bytes": 1, "width": 16, "height": 16}
            | {"alpha": 0.0, "working": identity, "converted": []}
            | {"split": "validation" if number % 4 == 3 else "train"}
        )
    checked = store.get_or_build(
        CheckedManifest,
        "-".join(styles),
        lambda work: pd.DataFrame(rows).to_parquet(work / "checked.parquet"),
        inputs={},
    )
    return preprocess(checked, Preprocess(size=16), Latents(locate("builtin:digits-vae")), 1, store)


@dataclass
class World:
    """A base, and data that it does not know."""

    base: Path
    shards: Shards
    """Halves."""
    plain: Shards

    def job(self, base: Path | None = None, shards: Shards | None = None, **fields: Any) -> Job:
        """A training from the base."""
        model, data = Model(base="base"), shards or self.shards
        plan = Train(**COMMON | fields)
        parts = {"base": base or self.base}
        return Job("test", 0, plan, model, SAMPLER, data.path, parts, "cpu", 0, {"shards": data.digest})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Trained once for this file."""
    before = signal.getsignal(signal.SIGTERM)
    root = tmp_path_factory.mktemp("world")
    store = Store(root / "store")
    both = digits(store, "plain", "inverted")
    plan = Train(steps=120, learning_rate=4e-3, **COMMON)
    model = Model(vae="builtin:digits-vae", text_encoder="builtin:digits-text-encoder", unet=UNET)
    work = root / "base"
    work.mkdir()
    train(Job("base", 0, plan, model, SAMPLER, both.path, PARTS, "cpu", 0, {"shards": both.digest}), work)
    signal.signal(signal.SIGTERM, before)
    return World(work / "pipeline", digits(store, "half"), digits(store, "plain"))


def trained(job: Job, work: Path) -> list[float]:
    """Train; the validation losses, the first of them before any step."""
    work.mkdir(parents=True, exist_ok=True)
    train(job, work)
    told = [event.get("metrics", {}) for event in read(work / "events.jsonl")]
    return [metrics["validation/loss"] for metrics in told if "validation/loss" in metrics]


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet/diffusion_pytorch_model.safetensors")


def drawn(pipeline: Any, prompt: str) -> np.ndarray:
    """NHWC int16."""
    return np.stack([np.asarray(picture, np.int16) for picture in draw(pipeline, [prompt] * 8, 0, SAMPLER)])


def halves(pictures: np.ndarray) -> float:
    """By how much the left half is brighter than the right one."""
    return float(pictures[:, :, :8].mean() - pictures[:, :, 8:].mean())


def start_loss(job: Job) -> float:
    """The validation loss before any training."""
    from darkroom.training.methods import method

    return method(job, torch.device("cpu")).validate()["validation/loss"]


def test_full_fine_tuning_goes_on_from_the_base(world: World, tmp_path: Path) -> None:
    job = world.job(steps=40, learning_rate=3e-3)
    (end,) = trained(job, tmp_path / "work")
    assert end < 0.6 * start_loss(job)
    finished = load_pipeline(tmp_path / "work/pipeline", "cpu")
    before = halves(drawn(load_pipeline(world.base, "cpu"), "a half six"))
    assert halves(drawn(finished, "a half six")) > before + 30
    assert type(finished.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert "of `base`, was trained further" in (tmp_path / "work/pipeline/README.md").read_text()


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_learn_and_load_into_the_base(world: World, tmp_path: Path, dora: bool) -> None:
    lora = {"rank": 8, "dora": dora}
    job = world.job(steps=60, learning_rate=1e-2, method="lora", lora=lora)
    (end,) = trained(job, tmp_path / "work")
    assert end < 0.75 * start_loss(job)
    fused = load_pipeline(tmp_path / "work/pipeline", "cpu")
    assert set(unet_of(tmp_path / "work/pipeline")) == set(unet_of(world.base)), "an ordinary pipeline"

    base = load_pipeline(world.base, "cpu")
    before = halves(drawn(base, "a half six"))
    base.load_lora_weights(tmp_path / "work/lora", weight_name="pytorch_lora_weights.safetensors")
    names = load_file(tmp_path / "work/lora/pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") for name in names)
    assert any("lora_magnitude_vector" in name for name in names) == dora
    ours, theirs = drawn(fused, "a half six"), drawn(base, "a half six")
    assert np.abs(ours - theirs).max() <= 2, "the base with the adapters draws what the fused pipeline draws"
    assert halves(ours) > before + 30


def test_adapters_leave_the_rest_alone_and_resume_exactly(world: World, tmp_path: Path, monkeypatch) -> None:
    fields = {"steps": 8, "method": "lora", "lora": {"rank": 4, "dropout": 0.2}, "learning_rate": 5e-3}
    fields |= {"ema_decay": 0.9, "checkpoint_every": 5}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    trained(world.job(**fields), straight)
    original = checkpoints.save

    def killed(work: Path, step: int, tensors: dict) -> None:
        original(work, step, tensors)
        assert all("lora_" in name for group in ("model", "model-ema") for name in tensors[group])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        broken.mkdir()
        with pytest.raises(KeyboardInterrupt):
            train(world.job(**fields), broken)
    trained(world.job(**fields), broken)
    for name in ("pipeline/unet/diffusion_pytorch_model.safetensors", "lora/pytorch_lora_weights.safetensors"):
        assert (straight / name).read_bytes() == (broken / name).read_bytes()
    before, after = unet_of(world.base), unet_of(straight / "pipeline")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".to_" in name for name in changed), "only attention was adapted"


def test_unknown_layers_are_named(world: World) -> None:
    with pytest.raises(RecipeError, match=r"no layer's name ends in to_x; there are .*to_k"):
        start_loss(world.job(steps=1, method="lora", lora={"targets": ("to_x",)}))


def test_the_prior_keeps_the_class_and_is_drawn_once(world: World, tmp_path: Path, monkeypatch) -> None:
    prior = {"prompt": "a handwritten six", "pictures": 8, "steps": 8, "guidance": 1.0, "batch": 4, "weight": 2.0}
    fields = {"steps": 24, "learning_rate": 2e-3, "checkpoint_every": 12}
    without, along = tmp_path / "without", tmp_path / "along"
    trained(world.job(**fields), without)
    trained(world.job(**fields, prior=prior), along)
    original, kept, lost = (
        halves(drawn(load_pipeline(one, "cpu"), "a handwritten six"))
        for one in (world.base, along / "pipeline", without / "pipeline")
    )
    assert abs(kept - original) < 0.6 * abs(lost - original)

    # Killed and resumed: the pictures of the class are read, not drawn, and the end is the same.
    broken, save = tmp_path / "broken", checkpoints.save

    def killed(work: Path, step: int, tensors: dict) -> None:
        save(work, step, tensors)
        raise KeyboardInterrupt

    broken.mkdir()
    job = world.job(**fields, prior=prior)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(job, broken)
    stamps = {path.name: path.stat().st_mtime_ns for path in (broken / "prior").iterdir()}
    assert len(stamps) == 8
    train(job, broken)
    assert stamps == {path.name: path.stat().st_mtime_ns for path in (broken / "prior").iterdir()}
    assert (broken / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes() == (
        along / "pipeline/unet/diffusion_pytorch_model.safetensors"
    ).read_bytes()


def test_the_priors_loss_adds_up_however_the_batch_is_cut(world: World, tmp_path: Path) -> None:
    from dataclasses import replace

    from darkroom.training.methods import method

    prior = {"prompt": "a six", "pictures": 3, "steps": 2, "guidance": 1.0, "weight": 0.5}
    task = method(replace(world.job(steps=1, prior=prior), work=tmp_path), torch.device("cpu"))
    batch, player = task.batch(0), task.players[0]
    with torch.no_grad():
        whole = task.loss(player, batch, 0).value
        cut = sum(
            task.loss(player, part, 0).value * len(part) / len(batch)
            for part in (batch.part(0, 5), batch.part(5, 20), batch.part(20, 32))
        )
        halves = [batch.part(0, 16), batch.part(16, 32)]
        new, known = (task.loss(player, half, 0).value for half in halves)
    torch.testing.assert_close(whole, cut)
    torch.testing.assert_close(whole, (new + known) / 2)
    assert known > 0


def test_a_word_is_learnt_and_nothing_else(world: World, tmp_path: Path) -> None:
    inversion = {"token": "<plain>", "start": "", "vectors": 2}
    fields = {"steps": 40, "learning_rate": 5e-2, "method": "textual-inversion", "inversion": inversion}
    job = world.job(shards=world.plain, **fields, caption_dropout=0.0, weight_decay=0.0)
    (end,) = trained(job, tmp_path / "work")
    assert end < 0.99 * start_loss(job)
    folder = tmp_path / "work/pipeline"

    # Bit for bit: the denoiser, and of the text encoder all but the new rows.
    before, after = unet_of(world.base), unet_of(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (load_file(one / "text_encoder/model.safetensors") for one in (world.base, folder))
    assert set(old) == set(new)
    (table,) = [name for name in old if name.endswith("token_embedding.weight")]
    assert all(torch.equal(old[name], new[name]) for name in old if name != table)
    assert torch.equal(old[table], new[table][:-2])
    assert len(new[table]) == len(old[table]) + 2

    # The pipeline knows the word, and so does the base once it was told.
    finished = DiffusionPipeline.from_pretrained(folder)
    told = load_pipeline(world.base, "cpu")
    told.load_textual_inversion(tmp_path / "work/learned_embeds.safetensors")
    words = "a photo of <plain>"
    ours = drawn(finished, words)
    assert np.array_equal(ours, drawn(told, words))
    assert ours.mean() < drawn(load_pipeline(world.base, "cpu"), "a photo of").mean() - 10
