"""Training as a task: start the trainer, show how far it is, and pass its curves on to MLflow while it works."""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.context import SyncClientContext
from prefect.runtime import flow_run

from darkroom.artifacts import Checkpoint, Shards
from darkroom.errors import DarkroomError, Interrupted
from darkroom.recipe import Recipe
from darkroom.report.charts import loss_curve
from darkroom.settings import Settings
from darkroom.tracking import Tracker, Untracked
from darkroom.training import pace, supervise
from darkroom.training.events import FILE

from .pictures import show_picture
from .slot import slot
from .stage import TRANSIENT, Progress, open_store, stage

CANCELLED = "the run was cancelled in Prefect; training was saved, and the same command goes on from there"


@stage("train")
def train(shards: Shards, plan: Recipe, tracker: Tracker | Untracked, fresh: bool = False) -> Checkpoint:
    """The checkpoint of this plan; an MLflow that is away does not stop it, register fills the gap."""
    settings, store = open_store()
    progress = Progress("train-progress", "training steps")
    digest = supervise.checkpoint_digest(shards, plan)
    for other in supervise.unfinished(store, digest):
        get_run_logger().warning("an unfinished training is left behind: %s", other[:12])

    cancelled = Cancellation()

    def follow(events: Path, new: list[dict[str, Any]]) -> None:
        cancelled.raise_if_asked()
        if new:
            told = [event["metrics"] for event in new if pace.LEFT in event.get("metrics", ())]
            progress(new[-1]["step"], plan.train.steps, pace.in_words(told[-1]) if told else "")
        for event in new:
            if "grid" in event:
                with contextlib.suppress(*TRANSIENT):  # a page that cannot be told stops no training
                    grid = events.parent / event["grid"]
                    show_picture(grid, "sample-grid", f"Samples at step {event['step']}", settings)
            if "note" in event or "refused" in event:
                get_run_logger().warning("step %d: %s", event["step"], sentence(event))
        tracker.follow(events)

    try:
        with slot(settings) if fresh or store.find(Checkpoint, digest) is None else contextlib.nullcontext():
            checkpoint = supervise.train(shards, plan, store, settings.device, follow, fresh)
    except Interrupted:
        tracker.end("KILLED")
        raise
    except DarkroomError:
        tracker.end("FAILED")
        raise
    except BaseException:  # Ctrl-C, a cancelled run
        tracker.end("KILLED")
        raise
    if not checkpoint.reused:
        _show_curve(checkpoint, settings)
    return checkpoint


class Cancellation:
    """Whether this run was cancelled on Prefect's page, asked at most once in ``interval`` seconds.

    No worker supervises a run of `darkroom run`, so that nobody else would end it.
    """

    def __init__(self, interval: float = 2.0) -> None:
        self._interval, self._asked = interval, time.monotonic()

    def raise_if_asked(self) -> None:
        """Raise :class:`Interrupted` when it was; a server that does not answer cancels nothing."""
        if time.monotonic() - self._asked < self._interval or flow_run.id is None:
            return
        self._asked = time.monotonic()
        with contextlib.suppress(httpx.HTTPError, *TRANSIENT), SyncClientContext.get_or_create() as context:
            state = context.client.read_flow_run(UUID(flow_run.id)).state
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                raise Interrupted(CANCELLED)


def sentence(event: dict[str, Any]) -> str:
    """A note or a refused step in words."""
    if "note" in event:
        return str(event["note"])
    refused = event["refused"]
    pictures = ", ".join(name[:12] for name in refused["pictures"][:8])
    return f"step {refused['at']} was not applied, as {refused['why']}; its pictures are {pictures}, ..."


def _show_curve(checkpoint: Checkpoint, settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        curve = loss_curve(checkpoint.path / FILE, Path(folder) / "loss.png")
        show_picture(curve, "loss-curve", "Training and validation loss", settings)
