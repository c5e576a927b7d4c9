"""Killed at any moment, the trainer ends in the same bytes as one that never was."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from darkroom.artifacts import Shards
from darkroom.preprocess.latents import Latents
from darkroom.preprocess.shards import preprocess
from darkroom.randomness import generator
from darkroom.recipe import Model, Preprocess, Sampler, Train, UNet
from darkroom.store import Store
from darkroom.training import checkpoints
from darkroom.training.job import Job
from darkroom.weights.locate import locate

VAE, TEXT = locate("builtin:digits-vae"), locate("builtin:digits-text-encoder")
UNET = UNet(
    block_out_channels=(16, 16),
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    attention_heads=2,
    norm_num_groups=8,
)
STEPS, EVERY = 120, 7  # in all, and between checkpoints
PAUSE = 0.3  # seconds at most from a checkpoint to the kill: some steps
KILLS, EACH = 50, 10  # in all, and in each part of the longer proof


@pytest.fixture
def job(noise, checked_of, store: Store) -> Job:
    rows = [noise(number, (20, 20), caption=f"n {number}" if number % 2 else None) for number in range(24)]
    shards: Shards = preprocess(checked_of(rows), Preprocess(size=16), Latents(VAE), 1, store)
    plan = Train(
        steps=STEPS, batch=4, warmup_steps=2, threads=2, checkpoint_every=EVERY, validate_every=11, grid_every=50
    )
    model = Model(vae="builtin:digits-vae", text_encoder="builtin:digits-text-encoder", unet=UNET)
    parts = {"vae": VAE.path, "text_encoder": TEXT.path}
    return Job("test", 0, plan, model, Sampler(steps=2, batch=4), shards.path, parts, "cpu", 0, {"shards": "d"})


@pytest.fixture
def begin(job: Job) -> Callable[[Path], "subprocess.Popen[bytes]"]:
    def begin(work: Path) -> "subprocess.Popen[bytes]":
        work.mkdir(exist_ok=True)
        job.write(work)
        with (work / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "darkroom.training", str(work)], stdout=log, stderr=log)

    return begin


def result(work: Path) -> str:
    """The digest of all files of the finished pipeline."""
    total = hashlib.sha256()
    for path in sorted(path for path in (work / "pipeline").rglob("*") if path.is_file()):
        total.update(path.relative_to(work).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def kill_and_resume(begin: Callable[[Path], "subprocess.Popen[bytes]"], tmp_path: Path, kills: range) -> list[int]:
    """Kill trainings at moments spread over a whole one, one for each number; returns the steps resumed from.

    Moments are counted in CPU seconds and in steps, of which a training takes as many when other work slows it down.
    One of four falls anywhere from the first import on, most of which is before the first step; the others into a
    step, or between two, or into saving.
    """
    straight = begin(tmp_path / "straight")
    whole = 0.0
    while straight.poll() is None:
        whole = used(straight)
        time.sleep(0.01)
    assert straight.returncode == 0, (tmp_path / "straight/log").read_text()
    expected = result(tmp_path / "straight")
    resumed, turn, left = [], 0, list(kills)
    while left:
        work = tmp_path / f"killed-{turn}"
        trainer = begin(work)
        # A training that ends before its kill is compared, and another begun.
        share, later = torch.rand(2, generator=generator("moment", left[0], turn)).tolist()
        if left[0] % 4 == 3:
            wait(trainer, lambda run=trainer, moment=whole * share: used(run) >= moment)
        else:
            step = saved(work) + 1 + share * (STEPS - saved(work) - 1)
            wait(trainer, lambda work=work, step=step: saved(work) >= step)
            time.sleep(later * PAUSE)
        if trainer.poll() is None:
            os.kill(trainer.pid, signal.SIGKILL)
            trainer.wait()
            left.pop(0)
            resumed += [step for step in [saved(work)] if step]
            continue
        assert trainer.returncode == 0, (work / "log").read_text()
        assert result(work) == expected
        turn += 1
    work = tmp_path / f"killed-{turn}"
    assert begin(work).wait() == 0, (work / "log").read_text()
    assert result(work) == expected
    return resumed


def wait(trainer: "subprocess.Popen[bytes]", until: Callable[[], bool]) -> None:
    """Look until it is so, or the process has ended."""
    while trainer.poll() is None and not until():
        time.sleep(0.001)


def saved(work: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none but the start."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints.found(work)), default=0)


def used(trainer: "subprocess.Popen[bytes]") -> float:
    """CPU seconds that a process which is not waited for has taken."""
    fields = Path(f"/proc/{trainer.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): fields 14 and 15


@pytest.mark.timeout(600)
def test_killed_once_it_ends_in_the_same_bytes(begin, tmp_path: Path) -> None:
    kill_and_resume(begin, tmp_path, range(1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, KILLS, EACH))
def test_killed_fifty_times_it_ends_in_the_same_bytes(begin, tmp_path: Path, first: int) -> None:
    resumed = kill_and_resume(begin, tmp_path, range(first, first + EACH))
    assert len(set(resumed)) >= 3, "kills fell into the training itself, and not only into its start"
    print(f"kills after which a checkpoint was there: {len(resumed)} of {EACH}, at steps {sorted(resumed)}")
