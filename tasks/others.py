"""The other data sets that a model is tested on, as a task."""

from darkroom.artifacts import Shards
from darkroom.preprocess.shards import preprocess
from darkroom.quality.check import gate
from darkroom.recipe import Recipe
from darkroom.training.parts import latents_of

from .collect import pinned_or_collected
from .stage import open_store, stage


@stage("other data sets")
def other_sets(plan: Recipe) -> dict[str, Shards]:
    """The shards of every data set of ``evaluate.also``: collected, checked and prepared as the training data are.

    Raises ``DataGateRefused`` where a critical expectation fails on one of them.
    """
    settings, store = open_store()
    found = {}
    for name in sorted(plan.evaluate.also):
        own = plan.on(name)
        checked = gate(pinned_or_collected(own.collect, store, name), own, store, workers=settings.workers)
        found[name] = preprocess(checked, own.preprocess, latents_of(own), own.train.threads, store, settings.device)
    return found
