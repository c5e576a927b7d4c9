"""Preprocessing as a task: split, resize, latents, shards."""

from darkroom.artifacts import CheckedManifest, Shards
from darkroom.preprocess import shards as preprocessing
from darkroom.recipe import Recipe
from darkroom.training.parts import latents_of

from .stage import Progress, open_store, stage


@stage("preprocess")
def preprocess(checked: CheckedManifest, plan: Recipe, fresh: bool = False) -> Shards:
    """The training-ready shards of a checked manifest."""
    settings, store = open_store()
    return preprocessing.preprocess(
        checked,
        plan.preprocess,
        latents_of(plan),
        plan.train.threads,
        store,
        settings.device,
        Progress("preprocess-progress", "pictures prepared"),
        fresh,
    )
