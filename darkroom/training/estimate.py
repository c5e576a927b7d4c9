"""What a recipe will take, before anything long starts: seconds, memory, disk and money, from a few measured steps."""

import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from darkroom import process
from darkroom.artifacts import CheckedManifest, Checkpoint, Shards
from darkroom.preprocess.shards import preprocess, read_index
from darkroom.recipe import Recipe
from darkroom.settings import Settings
from darkroom.store import Store, digest_of, write_json

from . import checkpoints, supervise
from .job import Job
from .launch import share
from .parts import latents_of

SYNTHETIC = 64  # pictures of noise, where the recipe's own are not asked for
FOLDER = "estimates"
MEASURED, JUDGED, PLAN = "measured.json", "judged.json", "evaluate.json"


@dataclass(frozen=True)
class Estimate:
    """What is left to do of a recipe: stages that the store can answer take nothing."""

    train_seconds: float
    evaluate_seconds: float
    compare_seconds: float
    """At most, where there is a champion: a comparison ends as soon as it is decided."""
    peak_bytes: int
    """Of the device, or of the trainer's process on a CPU."""
    disk_bytes: int
    steps: int
    """That are left."""
    measured_on: str
    cost: float | None = None
    currency: str = ""

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.train_seconds + self.evaluate_seconds + self.compare_seconds


def estimate(
    plan: Recipe,
    shards: Shards,
    store: Store,
    device: str,
    *,
    synthetic: bool = False,
    champion: bool = False,
    price_per_hour: float | None = None,
    currency: str = "",
) -> Estimate:
    """Measure in processes of their own, as training runs in one; the estimate is kept beside the checkpoint's digest.

    ``champion``: whether there is one to compare with. Raises what training would raise before its first step.
    """
    digest = supervise.checkpoint_digest(shards, plan)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        work = Path(name)
        here(supervise.job_of(plan, shards, store, device)).write(work)
        _child(work)
        write_json(work / PLAN, plan.evaluate.model_dump(mode="json"))
        _child(work, "judge")
        measured = json.loads((work / MEASURED).read_text("utf-8"))
        measured["seconds"] |= json.loads((work / JUDGED).read_text("utf-8"))
    found = total(plan, measured, read_index(shards)["sides"], steps_left(plan, store, digest), champion)
    made = Estimate(
        **found, measured_on="pictures of noise of the right shape" if synthetic else "the recipe's own data"
    )
    if price_per_hour is not None:
        made = replace(made, cost=made.seconds / 3600 * price_per_hour, currency=currency)
    if not synthetic:
        (store.root / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(store.root / FOLDER / f"{digest}.json", asdict(made))
    return made


def _child(work: Path, *arguments: str) -> None:
    """Measure the job of a work folder; raises what that ran into."""
    child = process.spawn(
        [sys.executable, "-m", "darkroom.training.measure", str(work), *arguments],
        log=work / "trainer.log",
        env=supervise.environment(),
    )
    with supervise.stopped_with_us(child):
        child.wait()
    if child.returncode:
        raise supervise.explained(work, child.returncode)


def here(job: Job) -> Job:
    """What this machine has of a training by several machines: its processes, and their share of each batch.

    How long the machines take to exchange gradients is not known then.
    """
    machines, shared = Settings().machines, job.train.distributed
    local = shared.model_copy(update={"processes": share(job, Settings())})
    update = {"batch": job.train.batch // machines, "distributed": local}
    return replace(job, train=job.train.model_copy(update=update))


def steps_left(plan: Recipe, store: Store, digest: str) -> int:
    """Steps that a training of this digest has before it."""
    if store.find(Checkpoint, digest) is not None:
        return 0
    saved = checkpoints.found(store.workplace(Checkpoint, digest))
    return plan.train.steps - (int(saved[0].name.removeprefix("step-")) if saved else 0)


def total(
    plan: Recipe, measured: dict[str, Any], sides: dict[str, int], steps: int, champion: bool = False
) -> dict[str, Any]:
    """Sums of what was measured once: for the steps that are left, the evaluation after them and the comparison."""
    one, train = measured["seconds"], plan.train
    training = 0.0
    if steps:
        # The last step is validated, drawn and saved, too.
        training = (
            one["start"]
            + steps * one["step"]
            + math.ceil(steps / train.validate_every) * one["validation"]
            + math.ceil(steps / train.grid_every) * one["grid"]
            + math.ceil(steps / train.checkpoint_every) * one["checkpoint"]
            + one["pipeline"]
        )
    evaluating, comparing = one["evaluation"], 0.0
    if "batch" in one:
        batch = plan.evaluate.sampler.batch
        further = math.ceil((plan.evaluate.count or sides["validation"]) / batch) - 1
        drawn = math.ceil(train.distance.count / batch) * one["batch"] if train.distance is not None else 0.0
        errors = max(0.0, one["validation"] - drawn)
        evaluating += further * one["batch"] + (plan.evaluate.denoising_timesteps - 1) * errors
        # The champion is evaluated, too, and both draw anew, from noise of the comparison's own.
        comparing = evaluating + 2 * math.ceil(plan.gate.count / batch) * one["batch"]
    return {
        "train_seconds": training,
        "evaluate_seconds": evaluating,
        "compare_seconds": comparing if champion else 0.0,
        "peak_bytes": measured["peak_bytes"],
        "disk_bytes": measured["checkpoint_bytes"] * (checkpoints.KEEP + 1) + measured["pipeline_bytes"],
        "steps": steps,
    }


def of(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The last estimate of a checkpoint in the store; None where there was none."""
    path = checkpoint.path.parents[1] / FOLDER / f"{checkpoint.digest}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def compared(checkpoint: Checkpoint, seconds: dict[str, float], reused: list[str]) -> dict[str, float] | None:
    """How far off the last estimate was, over the stages that ran: what it said, what they took, and their ratio - 1.

    None where nothing was estimated or a part of what was estimated did not run.
    """
    said = of(checkpoint)
    stages = ("train", "evaluate")
    if said is None or any(name in reused or name not in seconds for name in stages):
        return None
    expected = float(said["train_seconds"] + said["evaluate_seconds"])
    took = sum(seconds[name] for name in stages)
    off = took / expected - 1
    return {"estimated_seconds": round(expected, 1), "took_seconds": round(took, 1), "off": round(off, 3)}


def synthetic_shards(plan: Recipe, store: Store, device: str) -> Shards:
    """Pictures of noise in the shape that the recipe asks for, through its own autoencoder, in a store of their own."""
    import hashlib

    import numpy as np
    import pandas as pd
    from PIL import Image

    from darkroom.quality.picture import working_path

    side = plan.preprocess.size
    rows = []
    for number in range(SYNTHETIC):
        identity = hashlib.sha256(f"synthetic {number}".encode()).hexdigest()
        path = working_path(store.root, identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
        row: dict[str, Any] = {
            "row_id": identity,
            "id": identity,
            "path": f"{number}.png",
            "source": "synthetic",
            "origin": None,
        }
        row |= {"licence": "CC0-1.0", "caption": f"picture {number}", "label": str(number % 2), "working": identity}
        row |= {"bytes": path.stat().st_size, "width": side, "height": side, "converted": [], "alpha": 0.0}
        rows.append(row | {"split": "validation" if number % 4 == 3 else "train"})

    def build(work: Path) -> None:
        pd.DataFrame(rows).to_parquet(work / "checked.parquet")

    checked = store.get_or_build(CheckedManifest, digest_of(["synthetic", side]), build, inputs={})
    one_shape = plan.preprocess.model_copy(update={"buckets": 1})
    return preprocess(checked, one_shape, latents_of(plan), plan.train.threads, store, device)
