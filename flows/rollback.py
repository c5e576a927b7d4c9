"""Back to the champion before, from Prefect's page or by an automation."""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from tasks import promote as steps


@flow(name="rollback", flow_run_name="rollback {model}", persist_result=False)
def rollback(model: str, why: str = "", who: str = "Prefect") -> dict[str, Any]:
    """Make the champion before the present one champion again; once more goes back one more.

    Args:
        model: The model's name in MLflow.
        why: The reason, for the model's history.
        who: Who decided, for the model's history.
    """
    words = steps.rollback(model, who, why)
    run = {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}
    return {"decision": "rolled_back", "reason": words, "run": run}
