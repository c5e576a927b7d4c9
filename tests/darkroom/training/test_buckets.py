"""Training on several shapes: exact resume, missing captions, and a model that draws squares."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darkroom.artifacts import Checkpoint, Shards
from darkroom.evaluation.evaluate import evaluate, metrics_of, squares
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import preprocess
from darkroom.recipe import Evaluate, Model, Preprocess, Sampler, Train, UNet
from darkroom.store import Store
from darkroom.training import checkpoints
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.training.methods.denoise import Denoise
from darkroom.weights.locate import locate

VAE, TEXT = locate("builtin:digits-vae"), locate("builtin:digits-text-encoder")
PLAN = Preprocess(size=16, buckets=2, bucket_step=8, max_bucket_aspect=4)
UNET = UNet(
    block_out_channels=(16, 16),
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_heads=2,
    norm_num_groups=8,
)
MODEL = Model(vae="builtin:digits-vae", text_encoder="builtin:digits-text-encoder", unet=UNET)
SAMPLER = Sampler(steps=2, batch=4)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The trainer listens to SIGTERM; the tests after it need not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rows(noise) -> list[dict]:
    return [
        noise(number, (60, 20) if number % 3 == 0 else (20, 20), caption=f"n {number}" if number % 8 < 4 else None)
        for number in range(32)
    ]


def job_of(shards: Shards, **fields) -> Job:
    plan = Train(steps=24, batch=4, warmup_steps=2, threads=1, checkpoint_every=10, grid_every=1000, **fields)
    parts = {"vae": VAE.path, "text_encoder": TEXT.path}
    return Job("test", 0, plan, MODEL, SAMPLER, shards.path, parts, "cpu", 0, {"shards": shards.digest})


def weights(work: Path) -> bytes:
    return (work / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes()


def test_killed_and_resumed_gives_the_same_bytes(rows, checked_of, store: Store, tmp_path: Path, monkeypatch) -> None:
    shards = preprocess(checked_of(rows), PLAN, Latents(VAE), 1, store)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for work in (straight, broken):
        work.mkdir()
    train(job_of(shards), straight)
    original = checkpoints.save

    def killed(work: Path, step: int, tensors: dict) -> None:
        original(work, step, tensors)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(job_of(shards), broken)
    assert [path.name for path in checkpoints.found(broken)] == ["step-00000010"]
    train(job_of(shards), broken)
    assert weights(broken) == weights(straight)
    assert (store.root / "textcache").is_dir()


def test_evaluation_of_partly_captioned_and_of_silent_data(rows, checked_of, store: Store, tmp_path: Path) -> None:
    plan = Evaluate(
        features="builtin:clip-digits", clip="builtin:clip-digits", layer="pooled", sampler=SAMPLER, count=9,
        denoising_timesteps=2,
    )  # fmt: skip
    for name, some in (("partly", rows), ("silent", [row | {"caption": None} for row in rows])):
        shards = preprocess(checked_of(some), PLAN, Latents(VAE), 1, store)
        work = tmp_path / name
        work.mkdir()
        train(job_of(shards), work)
        done = evaluate(Checkpoint(name[0] * 64, work), shards, plan, store, threads=1)
        metrics = metrics_of(done)
        assert metrics["fd_clip_digits"] >= 0
        assert metrics["denoising_mse"] > 0
        (note,) = json.loads((done.path / "notes.json").read_text())
        prompts = json.loads((done.path / "prompts.json").read_text())
        if name == "partly":
            assert "clip_score_digits" in metrics
            assert f"over the {sum(map(bool, prompts))} of 9 pictures" in note
        else:
            assert "clip_score_digits" not in metrics
            assert prompts == [""] * 9
            assert note.startswith("clip_score_digits was left out")


def test_validation_covers_every_row_of_every_shape(rows, checked_of, store: Store) -> None:
    shards = preprocess(checked_of(rows), PLAN, Latents(VAE), 1, store)
    task = Denoise(job_of(shards), torch.device("cpu"))
    side = task.validation
    assert len(side.parts) == 2
    assert sum(len(part.latents) for part in side.parts) == 8 == side.pictures
    for part in side.parts:
        assert part.texts == [sorted({"", *side.texts})[row] for row in part.rows.tolist()]
    seen = []

    class Blank:
        """Predicts nothing, so that the loss is the mean square of the velocity."""

        def __call__(self, noisy: torch.Tensor, times: torch.Tensor, encoder_hidden_states: torch.Tensor):
            seen.append(tuple(noisy.shape))
            return SimpleNamespace(sample=torch.zeros_like(noisy))

    task.denoiser = Blank()
    assert task.validate()["validation/loss"] > 1
    assert sum(shape[0] for shape in seen) == 8
    assert len({shape[2:] for shape in seen}) == 2


def test_pictures_are_compared_by_their_middle() -> None:
    pixels = torch.randint(0, 256, (3, 3, 16, 40), dtype=torch.uint8, generator=torch.manual_seed(0))
    assert torch.equal(squares(pixels, 16), pixels[..., 12:28])
    assert torch.equal(squares(pixels[..., :16], 16), pixels[..., :16])
    small = squares(pixels, 8)
    assert small.shape == (3, 3, 8, 8)
    assert abs(float(small.float().mean() - pixels[..., 12:28].float().mean())) < 1
