"""Training as a task: start the trainer, show how far it is, and pass its curves on to MLflow while it works."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from prefect import get_run_logger

from darkroom.artifacts import Checkpoint, Shards
from darkroom.errors import DarkroomError
from darkroom.recipe import Recipe
from darkroom.report.charts import loss_curve
from darkroom.settings import Settings
from darkroom.tracking import Tracker
from darkroom.training import supervise
from darkroom.training.events import FILE

from .pictures import show_picture
from .stage import TRANSIENT, Progress, open_store, stage


@stage("train")
def train(shards: Shards, plan: Recipe, tracker: Tracker, fresh: bool = False) -> Checkpoint:
    """The checkpoint of this plan; an MLflow that is away does not stop it, register fills the gap."""
    settings, store = open_store()
    progress = Progress("train-progress", "training steps")
    digest = supervise.checkpoint_digest(shards, plan)
    for other in supervise.unfinished(store, digest):
        get_run_logger().warning("an unfinished training is left behind: %s", other[:12])

    def follow(events: Path, new: list[dict[str, Any]]) -> None:
        if new:
            progress(new[-1]["step"], plan.train.steps)
        for event in new:
            if "grid" in event:
                with contextlib.suppress(*TRANSIENT):  # a page that cannot be told stops no training
                    grid = events.parent / event["grid"]
                    show_picture(grid, "sample-grid", f"Samples at step {event['step']}", settings)
        tracker.follow(events)

    try:
        checkpoint = supervise.train(shards, plan, store, settings.device, follow, fresh)
    except DarkroomError:
        tracker.end("FAILED")
        raise
    except BaseException:  # Ctrl-C, a cancelled run
        tracker.end("KILLED")
        raise
    if not checkpoint.reused:
        _show_curve(checkpoint, settings)
    return checkpoint


def _show_curve(checkpoint: Checkpoint, settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        curve = loss_curve(checkpoint.path / FILE, Path(folder) / "loss.png")
        show_picture(curve, "loss-curve", "Training and validation loss", settings)
