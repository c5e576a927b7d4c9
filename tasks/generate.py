"""Drawing from a registered model as a task, with the grid on the run's page."""

from pathlib import Path

from prefect.runtime import flow_run

from darkroom.generate import FOLDER
from darkroom.generate import generate as draw
from darkroom.references import full, model_of
from darkroom.tracking import open_registry

from .pictures import show_small
from .stage import open_store, stage


@stage("generate")
def generate(model: str, prompt: str, count: int, seed: int) -> list[Path]:
    """The pictures' files, and the grid's last."""
    settings, _ = open_store()
    registry = open_registry(settings, model_of(model))
    out = settings.root / FOLDER / str(flow_run.id)
    files = draw(registry, full(model), prompt, count=count, seed=seed, out=out)
    show_small(files[-1].read_bytes(), "pictures", f"{count} pictures of {model}")
    return files
