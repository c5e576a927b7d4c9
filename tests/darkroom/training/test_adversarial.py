"""Training against an opponent: what is learnt, whose gradients, exact resume with two players, what is left behind."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.artifacts import Checkpoint, Shards
from darkroom.errors import RecipeError
from darkroom.evaluation.evaluate import evaluate, metrics_of
from darkroom.evaluation.reconstruction import rebuild, reconstruction_errors
from darkroom.preprocess.latents import Latents, encode
from darkroom.preprocess.shards import load_side, preprocess
from darkroom.quality.picture import working_path
from darkroom.recipe import Evaluate, Model, Overrides, Preprocess, Sampler, Train, UNet, load
from darkroom.recipe_training import Distill
from darkroom.store import Store
from darkroom.training import checkpoints
from darkroom.training.events import read
from darkroom.training.job import Job
from darkroom.training.loop import train
from darkroom.training.methods import Method, method
from darkroom.training.methods.distill import energy_distance
from darkroom.training.state import State
from darkroom.training.step import take_step
from darkroom.weights.locate import locate

VAE, TEXT, CLIP = (locate(f"builtin:{name}") for name in ("digits-vae", "digits-text-encoder", "clip-digits"))
UNET = UNet(
    block_out_channels=(16, 16),
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_heads=2,
    norm_num_groups=8,
)
SHAPE = {"block_out_channels": (8, 16), "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 4}
AUTOENCODER = Train(
    method="autoencoder",
    steps=40,
    batch=8,
    learning_rate=5e-3,
    warmup_steps=2,
    ema_decay=0.9,
    threads=1,
    validate_every=20,
    checkpoint_every=20,
    grid_every=1000,
    autoencoder={**SHAPE, "perceptual": "builtin:clip-digits", "perceptual_weight": 0.2},
    adversary={"start": 10, "channels": 8, "layers": 1},
)
DENOISER = Train(steps=40, batch=8, learning_rate=5e-3, warmup_steps=2, ema_decay=0.9, threads=1, grid_every=1000)
DISTILL = Train(
    method="distill",
    steps=40,
    batch=8,
    learning_rate=3e-3,
    warmup_steps=2,
    ema_decay=0.9,
    threads=1,
    validate_every=40,
    checkpoint_every=20,
    grid_every=1000,
    distill={"steps": 2, "guidance": 1.5, "teacher_steps": 6, "pairs": 32},
    adversary={"weight": 0.01, "start": 5, "channels": 8, "layers": 3},
)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The trainer listens to SIGTERM; the tests after it need not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rows(noise, store: Store) -> list[dict]:
    """Bright bars on dark ground, of any place and width: few numbers say what is in a picture."""
    found = []
    for number in range(32):
        row = noise(number, (16, 16), caption=f"bar {number % 4}")
        random = np.random.default_rng(number)
        pixels = np.full((16, 16, 3), 20, np.uint8)
        start = int(random.integers(0, 10))
        pixels[:, start : start + int(random.integers(2, 7))] = random.integers(120, 256, 3)
        Image.fromarray(pixels).save(working_path(store.root, row["working"]), format="PNG")
        found.append(row)
    return found


@pytest.fixture
def pictures(rows, checked_of, store: Store) -> Shards:
    """Shards of pixels."""
    return preprocess(checked_of(rows), Preprocess(size=16), Latents(None), 1, store)


def autoencoder_job(shards: Shards, **changes) -> Job:
    plan, parts = AUTOENCODER.model_copy(update=changes), {"perceptual": CLIP.path}
    digests = {"shards": shards.digest}
    return Job("auto", 0, plan, Model(family="autoencoder"), Sampler(), shards.path, parts, "cpu", 0, digests)


def trained(job: Job, work: Path) -> list[dict]:
    """What was told while a job was trained to its end."""
    work.mkdir()
    train(job, work)
    return [event["metrics"] for event in read(work / "events.jsonl") if "metrics" in event]


def resumed_equals_straight(job: Job, file: str, tmp_path: Path, monkeypatch) -> None:
    """Kill at the first checkpoint, run again: the same bytes as without."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    trained(job, straight)
    broken.mkdir()
    original = checkpoints.save

    def killed(work: Path, step: int, tensors: dict) -> None:
        original(work, step, tensors)
        assert {"model", "adversary", "model-optimizer", "adversary-optimizer"} <= set(tensors)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(job, broken)
    assert len(checkpoints.found(broken)) == 1
    train(job, broken)
    assert (broken / file).read_bytes() == (straight / file).read_bytes()


def gradients_stay_apart(task: Method, step: int) -> None:
    """Each player's loss gives gradients to that player's parameters, all of them, and to no other's."""
    batch = task.batch(step)
    for player in task.players:
        task.loss(player, batch, step).value.backward()
        for other in task.players:
            given = [parameter.grad is not None for parameter in other.parameters.values()]
            assert all(given) if other is player else not any(given)
        player.optimizer.zero_grad(set_to_none=True)


def test_an_autoencoder_learns_and_is_judged_by_what_it_rebuilds(
    pictures: Shards, store: Store, tmp_path: Path
) -> None:
    from diffusers import AutoencoderKL

    told = trained(autoencoder_job(pictures), tmp_path / "work")
    half, end = (one["validation/psnr"] for one in told if "validation/psnr" in one)
    assert end > half
    assert end > 16  # always answering the mean picture gives less than 10 dB
    last = [one for one in told if "train/adaptive_weight" in one][-1]
    assert last["train/adaptive_weight"] > 0
    assert {"train/adversary_loss", "train/kl", "train/perceptual"} <= set(last)

    # An ordinary AutoencoderKL, whose scaled latents have a deviation of 1 over the training pictures.
    folder = tmp_path / "work/pipeline"
    vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True).eval()
    known, _ = load_side(pictures, "train")
    assert abs(float(encode(vae, known["pixels"]).std()) - 1) < 0.01
    assert "scaling_factor" in (folder / "README.md").read_text("utf-8")

    plan = Evaluate(features="builtin:clip-digits", clip="builtin:clip-digits", layer="pooled")
    done = evaluate(Checkpoint("a" * 64, tmp_path / "work"), pictures, plan, store, threads=1)
    metrics = metrics_of(done)
    held_out, _ = load_side(pictures, "validation")
    by_hand = reconstruction_errors([rebuild(vae, held_out["pixels"])], [held_out["pixels"]])
    assert {name: metrics[name] for name in by_hand} == by_hand
    assert abs(metrics["reconstruction_psnr"] - end) < 0.5
    assert set(metrics) - set(by_hand) == {"fd_clip_digits", "fd_clip_digits_train"}
    assert len(list((done.path / "generated").iterdir())) == len(held_out["pixels"])
    # The finished folder is the start of another training, and makes the latents of a denoiser.
    job = autoencoder_job(pictures)
    again = method(Job(**{**vars(job), "parts": {**job.parts, "vae": folder}}), torch.device("cpu"))
    assert again.validate()["validation/psnr"] > 16
    Latents(locate(str(folder)))


def test_the_errors_are_those_of_the_definitions() -> None:
    true = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    true[0] = 255
    off = true.clone()
    off[0] -= 51  # a fifth of white in half of the values
    found = reconstruction_errors([off], [true])
    wanted = {"mse": 0.02, "rmse": 0.02**0.5, "mae": 0.1, "r2": 1 - 0.02 / 0.25, "psnr": 10 * np.log10(50)}
    assert found == pytest.approx({f"reconstruction_{name}": value for name, value in wanted.items()})
    exact = reconstruction_errors([true], [true])
    assert (exact["reconstruction_mse"], exact["reconstruction_r2"]) == (0, 1)
    assert np.isfinite(exact["reconstruction_psnr"])


def test_the_opponent_counts_from_its_first_step_on(pictures: Shards) -> None:
    task = method(autoencoder_job(pictures), torch.device("cpu"))
    model, opponent = task.players
    assert opponent.start == 10
    batch = task.batch(0)
    assert "adaptive_weight" not in task.loss(model, batch, 9).metrics
    found = task.loss(model, batch, 10)
    parts = {name: float(value) for name, value in found.metrics.items()}
    plan = task.job.train
    total = parts["l1"] + plan.autoencoder.perceptual_weight * parts["perceptual"]
    total += plan.autoencoder.kl_weight * parts["kl"]
    total += plan.adversary.weight * parts["adaptive_weight"] * parts["adversarial"]
    assert float(found.value) == pytest.approx(total, rel=1e-5)
    gradients_stay_apart(task, 10)
    alone = method(autoencoder_job(pictures, adversary=plan.adversary.model_copy(update={"weight": 0})), task.device)
    assert [player.name for player in alone.players] == ["model"]


def test_the_posteriors_noise_follows_from_seed_and_step(pictures: Shards) -> None:
    one, other = (method(autoencoder_job(pictures), torch.device("cpu")) for _ in range(2))
    for name, value in one.batch(3).tensors.items():
        assert torch.equal(value, other.batch(3).tensors[name])
    assert not torch.equal(one.batch(3).tensors["noise"], one.batch(4).tensors["noise"])


def test_an_autoencoder_killed_and_resumed_gives_the_same_bytes(pictures: Shards, tmp_path: Path, monkeypatch) -> None:
    file = "pipeline/diffusion_pytorch_model.safetensors"
    resumed_equals_straight(autoencoder_job(pictures, steps=24), file, tmp_path, monkeypatch)


@pytest.fixture
def latents(rows, checked_of, store: Store) -> Shards:
    """Shards of latents."""
    return preprocess(checked_of(rows), Preprocess(size=16), Latents(VAE), 1, store)


@pytest.fixture
def teacher(latents: Shards, tmp_path: Path) -> Path:
    """A denoiser that learnt a little."""
    parts, digests = {"vae": VAE.path, "text_encoder": TEXT.path}, {"shards": latents.digest}
    model = Model(vae="builtin:digits-vae", text_encoder="builtin:digits-text-encoder", unet=UNET)
    job = Job("teacher", 0, DENOISER, model, Sampler(steps=2), latents.path, parts, "cpu", 0, digests)
    trained(job, tmp_path / "teacher")
    return tmp_path / "teacher/pipeline"


def distill_job(shards: Shards, teacher: Path, **changes) -> Job:
    plan, model = DISTILL.model_copy(update=changes), Model(base=str(teacher))
    sampler = Sampler(steps=2, batch=4)
    return Job("fast", 0, plan, model, sampler, shards.path, {"base": teacher}, "cpu", 0, {"shards": shards.digest})


def test_a_student_comes_nearer_to_its_teacher(latents: Shards, teacher: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    # In one step, where the teacher itself can answer no more than a blur.
    job = distill_job(latents, teacher, steps=60, distill=Distill(steps=1, guidance=1.5, teacher_steps=6, pairs=128))
    before = method(job, torch.device("cpu"))
    before.players[0].module.eval()
    start = before.validate()
    told = trained(job, tmp_path / "work")
    end = next(one for one in reversed(told) if "validation/loss" in one)
    assert end["validation/loss"] < 0.8 * start["validation/loss"]
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "work/pipeline", safety_checker=None)
    assert pipeline.scheduler.config.solver_order == 1


def test_a_student_is_trained_on_the_states_that_its_pipeline_passes(latents: Shards, teacher: Path) -> None:
    task = method(distill_job(latents, teacher), torch.device("cpu"))
    task.players[0].module.eval()
    shown = task.held_out.noise[:4]
    given = task.validation.parts[0].given(task.held_out.rows[:4])
    by_hand = task.steps_of_student(shown, given)
    texts = [sorted({"", *task.validation.texts})[row] for row in task.held_out.rows[:4].tolist()]
    drawn = task.pipeline(
        prompt=texts, latents=shown, num_inference_steps=2, guidance_scale=1.0, output_type="latent"
    ).images
    torch.testing.assert_close(by_hand, drawn, rtol=1e-4, atol=1e-4)
    # What the student takes the last state for is what the sampler ends in.
    task.pipeline.scheduler.set_timesteps(2)
    last = task.steps_of_student(shown, given, 1)
    with torch.no_grad():
        torch.testing.assert_close(task.answer(last, 1, given), by_hand, rtol=1e-3, atol=1e-3)


def test_both_sides_of_a_distillation_keep_their_gradients(latents: Shards, teacher: Path) -> None:
    task = method(distill_job(latents, teacher), torch.device("cpu"))
    gradients_stay_apart(task, 5)
    assert "adversarial" not in task.loss(task.players[0], task.batch(4), 4).metrics
    before = {name: value.clone() for name, value in task.teacher.named_parameters()}
    state = State(task)
    for player in task.players:
        take_step(task, state, player, task.batch(5), 5, 1e-2)
    assert all(torch.equal(value, before[name]) for name, value in task.teacher.named_parameters())


def test_a_distillation_killed_and_resumed_gives_the_same_bytes(
    latents: Shards, teacher: Path, tmp_path: Path, monkeypatch
) -> None:
    job = distill_job(latents, teacher, steps=24)
    resumed_equals_straight(job, "pipeline/unet/diffusion_pytorch_model.safetensors", tmp_path, monkeypatch)


def test_the_energy_distance_tells_sets_apart() -> None:
    one, same, other = (torch.randn(300, 2, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    assert abs(energy_distance(one, same)) < 0.05
    assert energy_distance(one, other + 1) > 0.5


@pytest.mark.parametrize(
    ("recipe", "fields", "words"),
    [
        ("digits-autoencoder", {"model.family": "unconditional"}, "go together"),
        ("digits-autoencoder", {"model.vae": "builtin:digits-vae"}, "leave one of them out"),
        ("digits-autoencoder", {"model.base": "somewhere"}, "model.vae"),
        ("digits-autoencoder", {"train.adversary.layers": 3}, "24 pixels"),
        ("digits-autoencoder", {"train.autoencoder.block_out_channels": [4] * 6}, "cannot be halved 5 times"),
        ("digits-autoencoder", {"train.micro_batch": 4}, "whole batches"),
        ("digits-fast", {"evaluate.sampler.steps": 20}, "same number"),
        ("digits-fast", {"evaluate.sampler.guidance": 1.5}, "without guidance"),
    ],
)
def test_recipes_that_cannot_be_trained_are_refused(recipe: str, fields: dict, words: str) -> None:
    load(recipe)
    with pytest.raises(RecipeError, match=words):
        load(recipe, Overrides(fields=fields))
