"""What a registered version was made of, found as a task: its recipe in MLflow, its data in the store."""

from darkroom import again
from darkroom.references import model_of
from darkroom.tracking import open_registry

from .stage import open_store, stage


@stage("recall")
def recall(model: str) -> again.Again:
    """All that making this version again takes."""
    settings, store = open_store()
    return again.recall(open_registry(settings, model_of(model)), model, store)
