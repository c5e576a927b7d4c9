"""A registered version made again, from its recipe and its version of the data: the same bytes, or where not."""

from typing import Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from darkroom.again import compared
from darkroom.outcome import made_again
from darkroom.tracking import Untracked
from tasks.evaluate import evaluate
from tasks.preprocess import preprocess
from tasks.recall import recall
from tasks.stage import ledger
from tasks.train import train

from .retrain import HOOKS

STAGES = ("preprocess", "train", "evaluate")


@flow(name="again", flow_run_name="again {model}", persist_result=False, on_failure=HOOKS, on_cancellation=HOOKS)
def again(model: str, fresh: Literal["preprocess", "train", "evaluate"] | None = None) -> dict[str, Any]:
    """Make a version again; MLflow is told nothing: no version and no alias changes.

    It is measured on its own data, and not on those of ``evaluate.also``, which have no version of their own.
    """
    anew = STAGES[STAGES.index(fresh) :] if fresh else ()
    with ledger() as book:
        known = recall(model)
        shards = preprocess(known.checked, known.plan, fresh="preprocess" in anew)
        checkpoint = train(shards, known.plan, Untracked(), fresh="train" in anew)
        evaluation = evaluate(checkpoint, shards, known.plan, {}, fresh="evaluate" in anew)
        found = compared(known, checkpoint)
    here = {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}
    return {**made_again(known, shards, checkpoint, evaluation, found, book.seconds, book.reused), "run": here}
