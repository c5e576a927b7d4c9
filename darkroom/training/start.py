"""The pipeline that a training starts with: a new one, or a base, and what its denoiser learns."""

from typing import Any

from darkroom.diffusion.families import Family, Shape
from darkroom.diffusion.objectives import STEPS, Ddpm, Objective, make, of_scheduler
from darkroom.errors import RecipeError
from darkroom.randomness import seed_of
from darkroom.recipe_training import PARTS, misfit

from .job import BASE, Job


def start(job: Job, family: Family, shape: Shape) -> tuple[Any, Objective]:
    """(the pipeline, on the CPU; the objective) of a job.

    From scratch the objective is the recipe's or the family's usual one; a base has its own, which the recipe may
    replace. Raises :class:`RecipeError` where base, data and recipe do not go together.
    """
    plan = job.train.objective
    kind = plan.kind or family.objectives[0]
    others = {name: path for name, path in job.parts.items() if name in PARTS}
    if BASE not in job.parts:
        objective = make(plan, kind)
        seed = seed_of(job.seed, "weights")
        return family.new(job.model, others, shape, objective, seed, job.train.dropout), objective
    pipeline = family.load(job.parts[BASE], others)
    _fit(pipeline, family, shape, str(job.model.base))
    objective = _objective(job, pipeline.scheduler)
    if objective.kind not in family.objectives:
        raise RecipeError(
            f"train.objective.kind = {objective.kind!r}: a {family.pipeline} learns {' or '.join(family.objectives)}"
        )
    if objective.kind != _own(pipeline.scheduler).kind or _names_path(job):
        pipeline.scheduler = objective.scheduler()
    return pipeline, objective


def _names_path(job: Job) -> bool:
    """Whether the recipe itself says how noise grows along the DDPM path."""
    plan = job.train.objective
    return plan.zero_terminal_snr or "betas" in plan.model_fields_set


def _own(scheduler: Any) -> Objective:
    try:
        return of_scheduler(scheduler)
    except KeyError as error:
        raise RecipeError(f"model.base: its denoiser predicts {error}, which darkroom does not know") from None


def _objective(job: Job, scheduler: Any) -> Objective:
    """The base's own objective, weighed as the recipe says; the recipe's own path takes the scheduler's place."""
    plan = job.train.objective
    found = _own(scheduler)
    if (plan.kind or found.kind) != found.kind or _names_path(job):
        return make(plan, plan.kind or found.kind)
    if isinstance(found, Ddpm) and len(found.alphas) != STEPS:
        raise RecipeError(f"model.base: its noise schedule has {len(found.alphas)} steps, not {STEPS}")
    if wrong := misfit(plan, found.kind):
        raise RecipeError(f"train.objective, where the base learns {found.kind}: {wrong}")
    found.plan = plan
    return found


def _fit(pipeline: Any, family: Family, shape: Shape, base: str) -> None:
    """Have the base draw what it is trained on: its denoiser must take these latents, and remembers their side."""
    channels, *sides = family.latent_shape(pipeline)
    if channels != shape.channels:
        raise RecipeError(
            f"model.base = {base!r}: its denoiser takes {channels} channels, and the pictures have {shape.channels}: "
            "leave out model.vae, so that the base's own autoencoder is used"
        )
    if sides != [shape.side, shape.side]:
        family.resize(pipeline, shape.side)
