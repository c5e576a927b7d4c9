"""Several processes train what one does, but for rounding; one that dies ends all, and any number goes on.

Where it is not the starting of processes that is tested, they are forked from a server that has imported torch.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from darkroom import process
from darkroom.errors import Diverged, RecipeError
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import preprocess
from darkroom.recipe import Model, Preprocess, Recipe, Sampler, Train, UNet
from darkroom.recipe_training import Distributed
from darkroom.settings import Settings
from darkroom.store import Store
from darkroom.training import checkpoints, supervise
from darkroom.training.alive import FOLDER
from darkroom.training.estimate import estimate, here, synthetic_shards
from darkroom.training.events import FILE, read
from darkroom.training.job import Job
from darkroom.training.launch import CALL, share
from darkroom.training.loop import DONE, train

CLOSE = 1e-5  # of losses and norms, relative
ENDLESS = {"steps": 100_000, "schedule": "constant"}
PRELOAD = ["darkroom.training.loop", "darkroom.training.distributed", "darkroom.training.methods.lora"]
PRELOAD += ["diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "torch._dynamo"]
UNET = UNet(
    block_out_channels=(16,),
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    layers_per_block=1,
    attention_heads=2,
    norm_num_groups=8,
)

RANK = """
import os, sys
from pathlib import Path
rank, port, work, (step_, number) = {}
os.environ |= {{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}}
os.environ |= {{"MASTER_ADDR": "localhost", "MASTER_PORT": port}}
from darkroom.training import __main__ as trainer
from darkroom.training.methods.denoise import Denoise
whole = Denoise.batch
def batch(task, step):
    if rank == "1" and step == step_:
        os.kill(os.getpid(), number)
    return whole(task, step)
Denoise.batch = batch
sys.exit(trainer.rank(Path(work)))
"""


def together(job: Job, work: Path, signalled: tuple[int, int] = (-1, 0)) -> list[int | None]:
    """Train by two processes; returns their exit statuses. ``signalled``: (step, what the second one hears then)."""
    job.write(work)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(PRELOAD)
    port = str(process.free_port())
    codes = [RANK.format((str(rank), port, str(work), tuple(map(int, signalled)))) for rank in range(2)]
    ranks = [forks.Process(target=exec, args=(code, {}), daemon=True) for code in codes]
    for rank in ranks:
        rank.start()
    try:
        while any(rank.is_alive() for rank in ranks) and not any(rank.exitcode for rank in ranks):
            time.sleep(0.01)
    finally:
        for rank in ranks:  # one that failed leaves the other waiting
            if any(other.exitcode for other in ranks):
                rank.join(5)
            rank.kill()
            rank.join()
    return [rank.exitcode for rank in ranks]


def two(job: Job, strategy: str = "ddp") -> Job:
    """The same for two processes."""
    shared = Distributed(processes=2, strategy=strategy)
    return replace(job, train=job.train.model_copy(update={"distributed": shared}))


@pytest.fixture
def job(job: Callable[..., Job]) -> Callable[..., Job]:
    """The same of a network with fewer tensors."""

    def make(**fields: Any) -> Job:
        made = job(**fields)
        return replace(made, model=made.model.model_copy(update={"unet": UNET}))

    return make


def start(job: Job, work: Path, **settings: str) -> "subprocess.Popen[bytes]":
    """The trainer, as a run starts it, with these settings."""
    work.mkdir(exist_ok=True, parents=True)
    job.write(work)
    command = [sys.executable, "-m", "darkroom.training", str(work)]
    return process.spawn(command, log=work / "log", env={**os.environ, **settings})


def two_machines(job: Job, home: Path, **env: str) -> tuple[Path, list["subprocess.Popen[bytes]"]]:
    """A training by the launchers of two machines with one home folder; returns its work folder and both launchers.

    The second waits before the first begins.
    """
    work = home / "store" / ".work" / "checkpoint-0"
    shared = {"DARKROOM_MACHINES": "2", "DARKROOM_RENDEZVOUS": f"127.0.0.1:{process.free_port()}", **env}
    second = shared | {"DARKROOM_MACHINE": "1", "DARKROOM_HOME": str(home)}
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "darkroom.training.launch"]
    joining = process.spawn(command, log=work / "second.log", env={**os.environ, **second})
    try:
        wait_for(lambda: (work / "second.log").read_text(), joining)
        return work, [start(two(job), work, **shared), joining]
    except BaseException:
        process.stop(joining, 1)
        raise


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid, *(found for child in children for found in descendants(child))]


def told(work: Path, name: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for event in read(work / FILE):
        if name in event.get("metrics", {}):
            assert event["step"] not in found  # one process speaks
            found[event["step"]] = event["metrics"][name]
    return found


def agree(one: Path, other: Path, file: str = "unet/diffusion_pytorch_model.safetensors") -> None:
    for name in ("train/loss", "train/gradient_norm", "validation/loss"):
        assert told(one, name)
        assert told(other, name) == pytest.approx(told(one, name), rel=CLOSE)
    assert (one / DONE).read_text() == (other / DONE).read_text()
    texts = [path.relative_to(one) for path in (one / "pipeline").rglob("*.json")]
    for path in texts:
        assert (one / path).read_text() == (other / path).read_text()
    expected, found = (load_file(work / "pipeline" / file) for work in (one, other))
    assert expected.keys() == found.keys()
    apart = sum(float((found[name] - value).square().sum()) for name, value in expected.items())
    assert apart < CLOSE * sum(float(value.square().sum()) for value in expected.values())


def members(work: Path) -> set[int]:
    """The processes that work for this folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and process.started(int(entry.name)):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"darkroom.training" in words and str(work).encode() in words:
                found.add(int(entry.name))
    return found


def wait_for(what: Callable[[], object], child: "subprocess.Popen[bytes]") -> None:
    while not what():
        assert child.poll() is None, "it ended before"
        time.sleep(0.01)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_what_one_does(job, folder, strategy: str) -> None:
    # With an early end and the best weights; with dropout only where layers see the same memory format.
    fields = {"micro_batch": 1, "dropout": 0.1 if strategy == "ddp" else 0.0, "grid_every": 4, "keep": "best"}
    fields |= {"early_stop": {"patience": 2, "least_gain": 0.9}}
    one, other = folder("one"), folder("two")
    train(job(**fields), one)
    assert together(two(job(**fields), strategy), other) == [0, 0]
    agree(one, other)
    assert json.loads((one / DONE).read_text())["steps"] == 6
    assert {path.name for path in (other / "grids").iterdir()} == {path.name for path in (one / "grids").iterdir()}


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_two_go_on_where_one_was_killed(job, folder, monkeypatch, strategy: str) -> None:
    one, other = folder("one"), folder("two")
    train(job(), one)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed_after(checkpoints.save))
        with pytest.raises(KeyboardInterrupt):
            train(job(), other)
    assert together(two(job(), strategy), other) == [0, 0]
    agree(one, other)


def killed_after(save: Callable[..., None]) -> Callable[..., None]:
    def killed(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    return killed


def test_all_go_back_from_the_same_step_and_end_alike(job, folder) -> None:
    # Of what is hardly above the usual norm, it is said that it leaps.
    fields = {"steps": 40, "guard": {"spike": 1.02, "retries": 1}, "clip_gradient_norm": None, "checkpoint_every": 8}
    one, other = folder("one"), folder("two")
    with pytest.raises(Diverged) as ended:
        train(job(**fields), one)
    assert together(two(job(**fields)), other) == [Diverged.exit_status] * 2
    said = json.loads((other / "error.json").read_text())
    assert (said["kind"], said["message"]) == ("Diverged", str(ended.value))
    refused = [[event["refused"] for event in read(work / FILE) if "refused" in event] for work in (one, other)]
    assert refused[0] == refused[1]
    assert len(refused[0]) == 2


def test_adapters_are_shared_out_too(job, folder) -> None:
    base = folder("base")
    train(job(steps=1), base)
    plan = {"method": "lora", "lora": {"rank": 2, "dropout": 0.2}, "micro_batch": 1}
    lora = replace(job(**plan), model=Model(base="base"), parts={"base": base / "pipeline"})
    one, other = folder("one"), folder("two")
    train(lora, one)
    assert together(two(lora, "fsdp"), other) == [0, 0]
    agree(one, other)
    agree_on = [load_file(work / "lora/pytorch_lora_weights.safetensors").keys() for work in (one, other)]
    assert agree_on[0] == agree_on[1]


def test_two_players_play_against_each_other(noise, checked_of, store: Store, folder) -> None:
    shards = preprocess(
        checked_of([noise(number, (16, 16)) for number in range(24)]), Preprocess(size=16), Latents(None), 1, store
    )
    shape = {"block_out_channels": (8, 16), "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 4}
    # The opponent's weight follows from a part's gradients: so parts of the same two pictures.
    plan = Train(
        method="autoencoder",
        steps=6,
        batch=4,
        micro_batch=2,
        learning_rate=1e-3,
        warmup_steps=2,
        threads=1,
        log_every=1,
        validate_every=3,
        autoencoder=shape,
        adversary={"start": 3, "channels": 8, "layers": 1},
    )
    model, digests = Model(family="autoencoder"), {"shards": shards.digest}
    job = Job("auto", 0, plan, model, Sampler(), shards.path, {}, "cpu", 0, digests)
    one, other = folder("one"), folder("two")
    train(job, one)
    assert together(two(job), other) == [0, 0]
    agree(one, other, "diffusion_pytorch_model.safetensors")
    assert told(other, "train/adversary_loss") == pytest.approx(told(one, "train/adversary_loss"), rel=CLOSE)


def test_one_killed_ends_all(job, tmp_path: Path) -> None:
    work = tmp_path / "broken"
    trainer = start(two(job(**ENDLESS)), work)
    try:
        wait_for(lambda: checkpoints.found(work), trainer)
        ranks = members(work) - {trainer.pid}
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGKILL)
        assert trainer.wait() == 1, (work / "log").read_text()
        assert members(work) == set()
        assert "SIGKILL" in json.loads((work / "error.json").read_text())["message"]
    finally:
        process.stop(trainer, 1)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_one_goes_on_where_one_of_two_was_killed(job, folder, strategy: str) -> None:
    one, other = folder("one"), folder("two")
    train(job(), one)
    assert -signal.SIGKILL in together(two(job(), strategy), other, (5, signal.SIGKILL))
    assert [path.name for path in checkpoints.found(other)] == ["step-00000003"]
    train(job(), other)
    agree(one, other)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_stop_of_one_is_heard_by_all_and_saved(job, folder, strategy: str) -> None:
    one, other = folder("one"), folder("two")
    train(job(), one)
    assert together(two(job(), strategy), other, (4, signal.SIGTERM)) == [130, 130]
    said = json.loads((other / "error.json").read_text())
    assert said["kind"] == "Interrupted"
    assert "step 5 of 8" in said["message"]
    assert checkpoints.found(other)[0].name == "step-00000005"
    (other / "error.json").unlink()
    assert together(two(job(), strategy), other) == [0, 0]
    agree(one, other)


@pytest.fixture
def plan() -> Recipe:
    unet = {"block_out_channels": [16], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    unet |= {"layers_per_block": 1, "attention_heads": 2, "norm_num_groups": 8}
    plan = {"steps": 4, "batch": 4, "threads": 1, "warmup_steps": 1, "log_every": 1, "distributed": {"processes": 2}}
    table = {"version": 1, "name": "x", "collect": {"source": "digits"}, "preprocess": {"size": 16}, "train": plan}
    table["model"] = {"vae": "builtin:digits-vae", "text_encoder": "builtin:digits-text-encoder", "unet": unet}
    table["evaluate"] = {"features": "builtin:clip-digits", "clip": "builtin:clip-digits", "sampler": {"steps": 2}}
    return Recipe.model_validate(table)


@pytest.mark.slow
def test_a_run_starts_several(plan: Recipe, store: Store) -> None:
    shards, seen = synthetic_shards(plan, store, "cpu"), []
    checkpoint = supervise.train(shards, plan, store, "cpu", lambda path, new: seen.extend(new))
    assert [event["step"] for event in seen if "train/loss" in event.get("metrics", {})] == [1, 2, 3, 4]
    assert json.loads((checkpoint.path / "artifact.json").read_text())["facts"]["processes"] == 2
    alone = plan.model_copy(update={"train": plan.train.model_copy(update={"distributed": Distributed()})})
    assert supervise.checkpoint_digest(shards, alone) == checkpoint.digest


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_estimate_is_measured_by_several(plan: Recipe, store: Store, strategy: str) -> None:
    shared = Distributed(processes=2, strategy=strategy)
    plan = plan.model_copy(update={"train": plan.train.model_copy(update={"distributed": shared})})
    found = estimate(plan, synthetic_shards(plan, store, "cpu"), store, "cpu")
    assert found.train_seconds > 4 * 1e-4
    assert found.evaluate_seconds > 0
    assert found.peak_bytes > 1e8


def test_two_machines_train_what_one_process_does(job, folder, tmp_path: Path) -> None:
    one = folder("one")
    train(job(), one)
    work, machines = two_machines(job(), tmp_path / "home")
    try:
        ended = [machine.wait(120) for machine in machines]
    finally:
        for machine in machines:
            process.stop(machine, 1)
    assert ended == [0, 0], (work / "log").read_text() + (work / "second.log").read_text()
    agree(one, work)
    assert members(work) == set()
    assert not (work / CALL).exists()
    assert not (work / FOLDER).exists()


@pytest.mark.slow
def test_a_machine_that_is_gone_ends_the_others(job, tmp_path: Path) -> None:
    work, (first, second) = two_machines(job(**ENDLESS), tmp_path / "home")
    try:
        wait_for(lambda: checkpoints.found(work), first)
        os.kill(second.pid, signal.SIGKILL)  # and with the launcher, its process
        second.wait()
        assert first.wait(120) == 1
        assert members(work) == set()
        assert not (work / CALL).exists()
        assert checkpoints.found(work)
        said = json.loads((work / "error.json").read_text())
        assert said["kind"] == "DarkroomError"
        assert "the connection to the other machines was lost" in said["message"]
    finally:
        for machine in (first, second):
            process.stop(machine, 1)


@pytest.mark.slow
@pytest.mark.parametrize("silent", [0, 1])
def test_a_machine_that_falls_silent_ends_the_others(job, tmp_path: Path, silent: int) -> None:
    """Its processes are stopped: they answer no more, and no connection is closed."""
    work, machines = two_machines(job(**ENDLESS), tmp_path / "home", DARKROOM_MACHINE_SILENCE="6")
    gone, other = machines[silent], machines[1 - silent]
    stopped = []
    try:
        wait_for(lambda: checkpoints.found(work), other)
        stopped = descendants(gone.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        assert other.wait(120) == 1
        said = (work / "second.log").read_text() if silent == 0 else (work / "error.json").read_text()
        assert f"machine {silent} fell silent for 6 s" in said
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for machine in machines:
            process.stop(machine, 1)
    assert members(work) == set()


def test_machines_share_out_the_processes(job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_MACHINES", "2")
    monkeypatch.setenv("DARKROOM_RENDEZVOUS", "first:29500")
    four = replace(job(), train=job().train.model_copy(update={"distributed": Distributed(processes=4)}))
    assert share(four, Settings()) == 2
    assert (here(four).train.batch, here(four).train.distributed.processes) == (2, 2)
    with pytest.raises(RecipeError, match="processes = 1 cannot be shared out equally among DARKROOM_MACHINES=2"):
        share(job(), Settings())
    monkeypatch.delenv("DARKROOM_RENDEZVOUS")
    with pytest.raises(RecipeError, match="2 machines need HOST:PORT"):
        Settings()


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch = 9 cannot be shared out equally among"):
        Train(steps=1, batch=9, distributed=Distributed(processes=2))
    with pytest.raises(ValidationError, match="autoencoder"):
        Train(steps=1, method="autoencoder", distributed=Distributed(processes=2, strategy="fsdp"))
    with pytest.raises(ValidationError, match=r'works with optimizer\.name = "adamw", not "muon"'):
        Train(steps=1, optimizer={"name": "muon"}, distributed=Distributed(processes=2, strategy="fsdp"))
    assert Train(steps=1, distributed=Distributed(processes=2)).digest_fields() == Train(steps=1).digest_fields()


def test_one_process_knows_nothing_of_others(job, folder) -> None:
    work = folder("alone")
    before = set(sys.modules)
    train(job(steps=1), work)
    assert not torch.distributed.is_initialized()
    assert "darkroom.training.distributed" not in set(sys.modules) - before
    say = "import sys, darkroom.training.loop; print('darkroom.training.distributed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
