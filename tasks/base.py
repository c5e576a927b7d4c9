"""Which pipeline a training starts from, decided as a task where the recipe names one."""

from darkroom.artifacts import Manifest
from darkroom.recipe import Recipe
from darkroom.tracking import open_registry
from darkroom.training import parts

from .stage import open_store, stage


def pin(plan: Recipe, manifest: Manifest) -> Recipe:
    """The plan with a base that can mean one thing only; a plan without one as it is."""
    return _pin(plan, manifest) if plan.model.base else plan


@stage("base")
def _pin(plan: Recipe, manifest: Manifest) -> Recipe:
    settings, store = open_store()
    return parts.pin(plan, manifest.digest, open_registry(settings, plan.name), store)
