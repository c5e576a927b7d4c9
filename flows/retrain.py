"""The main flow: from the source's pictures to a registered model, and to a promoted one where it is better."""

from typing import Any

from prefect import State, flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.states import Cancelled

from darkroom.outcome import RunResults, outcome
from darkroom.recipe import Overrides, load
from darkroom.settings import Settings
from darkroom.tracking import Tracker, describe, open_registry
from tasks.base import pin
from tasks.check import check
from tasks.collect import collect, go_back
from tasks.evaluate import compare, evaluate, look_ahead
from tasks.news import remember
from tasks.others import other_sets
from tasks.preprocess import preprocess
from tasks.register import register
from tasks.report import report
from tasks.stage import ledger
from tasks.train import CANCELLED, train

from .naming import after_recipe

STAGES = ("check", "preprocess", "train", "evaluate")


def end_cancelled(_flow: Any, run: FlowRun, state: State) -> None:
    """A run that stopped because it was cancelled has not failed, and is no longer about to be cancelled."""
    if state.is_cancelling() or CANCELLED in (state.message or ""):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelled(message=CANCELLED), force=True)


HOOKS: list[Any] = [end_cancelled]


@flow(
    name="retrain",
    flow_run_name=after_recipe,
    persist_result=False,
    on_failure=HOOKS,
    on_cancellation=HOOKS,
)
def retrain(recipe: str, overrides: Overrides | None = None) -> dict[str, Any]:
    """Collect, check, preprocess, train, evaluate, compare and register one recipe; returns the run's outcome."""
    plan = load(recipe, overrides)
    look_ahead(plan)
    settings = Settings()
    fresh = overrides.fresh if overrides else None
    anew = STAGES[STAGES.index(fresh) :] if fresh else ()
    with ledger() as book:
        if overrides and overrides.data:
            manifest, checked = go_back(plan, overrides.data)
            plan = pin(plan, manifest)
        else:
            manifest = collect(plan.collect)
            plan = pin(plan, manifest)
            checked = check(manifest, plan, fresh="check" in anew)
            remember(plan.name, "new", checked.digest)  # no event need ask for what is being done
        shards = preprocess(checked, plan, fresh="preprocess" in anew)
        others = other_sets(plan) if plan.evaluate.also else {}
        run = describe(plan, manifest, checked, shards, others)
        checkpoint = train(shards, plan, Tracker(open_registry(settings, plan.name), run), fresh="train" in anew)
        evaluation = evaluate(checkpoint, shards, plan, others, fresh="evaluate" in anew)
        verdict = compare(checkpoint, evaluation, shards, plan, others, fresh=bool(anew))
        page = report(checked, shards, checkpoint, evaluation, verdict, plan, fresh=bool(anew))
        registered = register(checkpoint, evaluation, verdict, checked, page, run, plan)
    results = RunResults(manifest, checked, shards, checkpoint, evaluation, verdict, registered, page)
    here = {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}
    return {**outcome(plan, results, book.seconds, book.reused), "run": here}
