"""A look at the champion, for a schedule: is it still what it was, and is it time to train again?"""

from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from darkroom.artifacts import CheckedManifest, Manifest
from darkroom.errors import DataGateRefused, RecipeError
from darkroom.recipe import Overrides, Recipe, load
from tasks.base import pin
from tasks.check import check
from tasks.collect import collect, go_back
from tasks.evaluate import evaluate
from tasks.monitor import champion_of, draw_again, judge, tell
from tasks.preprocess import preprocess
from tasks.stage import ledger

from .naming import after_recipe


@flow(name="monitor", flow_run_name=after_recipe, persist_result=False)
def monitor(recipe: str, overrides: Overrides | None = None) -> dict[str, Any]:
    """Draw from the champion again, measure it on the newest accepted data, and say when retraining is due, and why.

    Args:
        recipe: A name in recipes/, a path to a .toml file, or an address.
        overrides: Fields of the recipe that this look changes.
    """
    plan = load(recipe, overrides)
    with ledger() as book:
        version, checkpoint = champion_of(plan.name)
        manifest, checked, data = _newest(plan)
        plan = pin(plan, manifest)
        shards = preprocess(checked, plan)
        same = draw_again(version, checkpoint, shards, plan)
        evaluation = evaluate(checkpoint, shards, plan, {})
        found = judge(version, plan, checked, evaluation, same, data)
    tell(found, recipe)
    return {
        "recipe": plan.name,
        "decision": found.decision,
        "reason": found.reason,
        **asdict(found),
        "model": {"name": version.model, "version": version.version, "uri": version.uri},
        "digests": {"manifest": manifest.digest, "checked": checked.digest, "evaluation": evaluation.digest},
        "reused": book.reused,
        "seconds": book.seconds,
        "run": {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url},
    }


def _newest(plan: Recipe) -> tuple[Manifest, CheckedManifest, str]:
    """The newest data that the gate accepts: of today, or where it refuses, the last version, and that in words."""
    manifest = collect(plan.collect)
    try:
        return manifest, check(manifest, plan), "today's data"
    except DataGateRefused as refused:
        try:
            return *go_back(plan, "latest"), "the last accepted version of the data, as the data gate refused today's"
        except RecipeError:
            raise refused from None
