"""The frozen parts and the base that a recipe names, found."""

from typing import Any

from pydantic import ValidationError

from darkroom.errors import RecipeError
from darkroom.preprocess.latents import Latents
from darkroom.recipe import Recipe
from darkroom.recipe_training import PARTS, SHIFTED
from darkroom.registry import Registry
from darkroom.store import Store, digest_of, write_json
from darkroom.weights.base import locate_base, part_of, pinned_hub, read_name
from darkroom.weights.locate import Weights, locate

from .job import BASE

NAMED = (*PARTS, BASE)  # fields of [model] that say where weights lie: which these are, their digests say


def parts(plan: Recipe) -> dict[str, Weights]:
    """The weights that a plan names, by the names of its fields; ``base`` is a whole pipeline.

    Raises what :func:`locate` and :func:`locate_base` raise.
    """
    named = {name: getattr(plan.model, name) for name in PARTS}
    if plan.train.method == "autoencoder":
        named["perceptual"] = plan.train.autoencoder.perceptual
    found = {name: locate(value) for name, value in named.items() if value is not None}
    return found | ({BASE: locate_base(plan.model.base, plan.model.family)} if plan.model.base else {})


def look_early(plan: Recipe) -> None:
    """What is cheap to look at before a run: all that is named but models of the registry, which may be away yet."""
    later = plan.model.base and read_name(plan.model.base).kind in ("champion", "registered")
    parts(plan.model_copy(update={"model": plan.model.model_copy(update={"base": None})}) if later else plan)


def latents_of(plan: Recipe) -> Latents:
    """How the pictures of a plan become what its denoiser sees: by its autoencoder, or by that of its base."""
    if plan.train.method == "autoencoder":
        return Latents(None)  # it is itself what is trained, on pixels
    vae: Weights | None = None
    if plan.model.vae:
        vae = locate(plan.model.vae)
    elif plan.model.base and plan.model.family != "unconditional":
        vae = part_of(locate_base(plan.model.base, plan.model.family), "vae")
    return Latents(vae, plan.model.family in SHIFTED, masks=plan.train.objective.masked)


def pin(plan: Recipe, manifest: str, registry: Registry, store: Store, remember: bool = True) -> Recipe:
    """The plan with a base that can mean one thing only: a commit on the hub, a version in the registry.

    An alias means the version that it points to now. ``champion`` is decided once for these data (the digest
    ``manifest``) and this recipe, and remembered in the store: the champion that this training may bring forth must not
    be a reason to train again. While there is no champion, training starts from scratch. An estimate asks the same
    without ``remember``: it must not decide for the run.
    """
    if plan.model.base is None:
        return plan
    name = read_name(plan.model.base)
    if name.kind == "champion":
        return _with_base(plan, _champion(plan, manifest, registry, store, remember))
    if name.kind == "registered":
        return _with_base(plan, registry.resolve(name.where).uri)
    return _with_base(plan, pinned_hub(name)) if name.kind == "hub" else plan


def _champion(plan: Recipe, manifest: str, registry: Registry, store: Store, remember: bool) -> str | None:
    model = {field: value for field, value in plan.model.digest_fields().items() if field != BASE}
    sections = {field: getattr(plan, field).digest_fields() for field in ("check", "split", "preprocess", "train")}
    key = digest_of({"manifest": manifest, "name": plan.name, "seed": plan.seed, "model": model, **sections})
    path = store.root / "bases" / f"{key}.json"
    with store.lock(f"base-{key}"):
        if path.is_file():
            return _read(path)
        found = registry.with_alias(plan.name, "champion")
        chosen = found.uri if found else None
        if remember:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"base": chosen, "recipe": plan.name, "manifest": manifest})
        return chosen


def _read(path: Any) -> str | None:
    import json

    content: dict[str, str | None] = json.loads(path.read_text("utf-8"))
    return content["base"]


def _with_base(plan: Recipe, base: str | None) -> Recipe:
    table = plan.model_dump(by_alias=True, exclude_unset=True)
    table["model"]["base"] = base
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        assert base is None, "only what lacks a base can be incomplete"
        words = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise RecipeError(f"model.base = 'champion', but {plan.name} has no champion yet: {words}") from None
