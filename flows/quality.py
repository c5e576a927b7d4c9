"""Quick feedback on the data alone, for a schedule: what came in, and whether it would be trained on."""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from darkroom.outcome import data_of
from darkroom.recipe import Overrides, load
from tasks.check import check
from tasks.collect import collect
from tasks.news import tell_new
from tasks.stage import ledger

from .naming import after_recipe


@flow(name="quality", flow_run_name=after_recipe, persist_result=False)
def quality(recipe: str, overrides: Overrides | None = None) -> dict[str, Any]:
    """Collect and check one recipe's pictures; raises ``DataGateRefused`` when a critical expectation was not met."""
    plan = load(recipe, overrides)
    with ledger() as book:
        manifest = collect(plan.collect)
        checked = check(manifest, plan, fresh=bool(overrides and overrides.fresh == "check"))
    data = data_of(checked)
    tell_new(plan.name, checked.digest, manifest.digest, data["rows"])
    here = {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}
    return {
        "recipe": plan.name,
        "decision": "accepted",
        "digests": {"manifest": manifest.digest, "checked": checked.digest},
        "reused": book.reused,
        "seconds": book.seconds,
        "data": data,
        "run": here,
    }
