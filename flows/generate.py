"""Pictures from a registered model, from Prefect's page or a schedule."""

from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from tasks.generate import generate as draw


@flow(name="generate", flow_run_name="generate {model}", persist_result=False)
def generate(
    model: str,
    prompt: str,
    count: Annotated[int, Field(ge=1, le=1000)] = 16,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> dict[str, Any]:
    """Draw pictures from a registered model into a folder of their own in the home folder.

    Args:
        model: name@champion, name@challenger or name/3; a bare name means its champion.
        prompt: What to draw; for a model of classes, a class.
        count: Number of pictures.
        seed: Seed of the noise; the same seed draws the same pictures.
    """
    files = draw(model, prompt, count, seed)
    run = {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}
    return {"pictures": [str(path) for path in files[:-1]], "grid": str(files[-1]), "run": run}
