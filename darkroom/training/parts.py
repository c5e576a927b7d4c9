"""The frozen parts and the base that a recipe names, found."""

from darkroom.preprocess.latents import Latents
from darkroom.recipe import Recipe
from darkroom.recipe_training import PARTS, SHIFTED
from darkroom.weights.locate import Weights, locate


def parts(plan: Recipe) -> dict[str, Weights]:
    """The weights that a plan names, by the names of its fields; raises what :func:`locate` raises."""
    return {name: locate(value) for name in PARTS if (value := getattr(plan.model, name)) is not None}


def latents_of(plan: Recipe) -> Latents:
    """How the pictures of a plan become what its denoiser sees."""
    vae = locate(plan.model.vae) if plan.model.vae else None
    return Latents(vae, plan.model.family in SHIFTED, plan.train.objective.masked)
