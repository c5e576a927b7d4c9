"""Training from the outside: start the trainer so that it dies with us, follow it, and pass on how it ended."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

from darkroom import errors, process
from darkroom.artifacts import Checkpoint, Shards
from darkroom.errors import DarkroomError
from darkroom.recipe import Recipe
from darkroom.stages import stage_digest
from darkroom.store import Store, write_json
from darkroom.weights.locate import Weights

from . import checkpoints
from .events import FILE, Tail
from .job import Job
from .packages import available
from .parts import NAMED, parts

Follow = Callable[[Path, list[dict[str, Any]]], None]
POLL_SECONDS = 0.25
TRAINERS = {
    # Threads that wait for each other soon sleep: spinning, one busy neighbour makes training crawl.
    "GOMP_SPINCOUNT": "30000",
    # glibc keeps the memory of a step for the next: handed back, every page is asked for and cleared again.
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_MMAP_THRESHOLD_": "33554432",  # the most that it takes
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # and has it in large pages, where the kernel may give them
}
GRACE_SECONDS = 6.0  # to save and end; Ctrl-C promises ten


def checkpoint_digest(shards: Shards, plan: Recipe) -> str:
    """The digest that training this plan on these shards will have."""
    return stage_digest("checkpoint", _fields(plan), _inputs(shards, plan, parts(plan)), plan.seed)


def train(
    shards: Shards,
    plan: Recipe,
    store: Store,
    device: str,
    follow: Follow = lambda events, new: None,
    fresh: bool = False,
) -> Checkpoint:
    """The trained model of this plan; what an earlier attempt left unfinished is carried on.

    ``follow`` is called several times a second with the path of ``events.jsonl`` and its new events.
    Raises what the trainer ran into, and
    :class:`Interrupted` (after the trainer saved) when interrupted from the keyboard.
    """
    available(plan.train)
    frozen = parts(plan)
    inputs = _inputs(shards, plan, frozen)
    digest = stage_digest("checkpoint", _fields(plan), inputs, plan.seed)

    def build(work: Path) -> dict[str, Any]:
        store.need_room(room_needed(frozen), "training")
        job_of(plan, shards, store, device).write(work)
        write_json(work / "recipe.json", plan.model_dump(mode="json", by_alias=True))
        _run(work, follow)
        for name in ("trainer.lock", "job.json"):  # trained.json stays: a kill before the seal must not train again
            (work / name).unlink(missing_ok=True)
        return {"device": device, "processes": plan.train.distributed.processes}

    return store.get_or_build(
        Checkpoint, digest, build, inputs=inputs, fields=_fields(plan), resumable=True, fresh=fresh
    )


def job_of(plan: Recipe, shards: Shards, store: Store, device: str) -> Job:
    """What the trainer of a plan is told."""
    return Job(
        name=plan.name,
        seed=plan.seed,
        train=plan.train,
        model=plan.model,
        sampler=plan.evaluate.sampler,
        shards=shards.path,
        parts={name: weights.path for name, weights in parts(plan).items()},
        device=device,
        reserve=store.reserve,
        digests={"shards": shards.digest},
    )


def unfinished(store: Store, digest: str) -> list[str]:
    """Digests of other trainings that were begun and not finished, with a checkpoint to go on from."""
    work = store.workplace(Checkpoint, "*")
    found = (path for path in work.parent.glob(work.name) if checkpoints.found(path))
    return sorted(name for path in found if (name := path.name.removeprefix("checkpoint-")) != digest)


def room_needed(frozen: dict[str, Weights]) -> int:
    """Bytes below which training does not start: the frozen parts of the pipeline, and some for grids and events.

    The trainer itself, which knows the denoiser's size, asks again before its first step.
    """
    kept = [weights for name, weights in frozen.items() if name != "features"]
    files = (path for weights in kept for path in weights.path.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files) + 50_000_000


def _inputs(shards: Shards, plan: Recipe, frozen: dict[str, Weights]) -> dict[str, str]:
    told = set() if plan.train.goes_by_distance else {"features"}  # of distances that are only told
    return {"shards": shards.digest, **{name: one.sha256 for name, one in frozen.items() if name not in told}}


def _fields(plan: Recipe) -> dict[str, Any]:
    model = plan.model.digest_fields()
    shape = {name: value for name, value in model.items() if name not in NAMED}  # which parts, their digests say
    sampler = {"sampler": plan.evaluate.sampler.digest_fields()} if plan.train.goes_by_distance else {}
    return {"train": plan.train.digest_fields(), "unet": plan.model.unet.digest_fields(), **shape, **sampler}


def _run(work: Path, follow: Follow) -> None:
    trainer = process.spawn(
        [sys.executable, "-m", "darkroom.training", str(work)], log=work / "trainer.log", env=environment()
    )
    tail = Tail(work / FILE)
    with stopped_with_us(trainer):
        while trainer.poll() is None:
            follow(work / FILE, tail.new())
            time.sleep(POLL_SECONDS)
    follow(work / FILE, tail.new())
    if trainer.returncode:
        raise explained(work, trainer.returncode)


@contextlib.contextmanager
def stopped_with_us(trainer: "Popen[bytes]") -> Iterator[None]:
    """Whatever ends the wait (Ctrl-C, a cancelled run) ends the trainer too, with time to save."""
    try:
        yield
    finally:
        if trainer.poll() is None:
            process.stop(trainer, GRACE_SECONDS)


def environment() -> dict[str, str]:
    """Ours, but with the trainer's ways to wait and to keep memory, unless they are set."""
    return TRAINERS | os.environ


def explained(work: Path, status: int) -> DarkroomError:
    """The error that the trainer met, as it would have been raised here."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        said = json.loads((work / "error.json").read_text("utf-8"))
        kind: type[DarkroomError] = getattr(errors, said["kind"])
        return kind(said["message"])
    log = (work / "trainer.log").read_text("utf-8", errors="replace") if (work / "trainer.log").exists() else ""
    return DarkroomError(
        f"the trainer ended with status {status}; its last words, of {work / 'trainer.log'}:\n{log[-2000:]}"
    )
