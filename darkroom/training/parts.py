"""The frozen parts and the base that a recipe names, found."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.evaluation import features
from darkroom.preprocess.latents import Latents
from darkroom.recipe import Recipe
from darkroom.recipe_shapes import untiled
from darkroom.recipe_training import PARTS, SHIFTED, UNETS
from darkroom.registry import Registry
from darkroom.store import Store, digest_of, write_json
from darkroom.weights.base import locate_base, part_of, pinned_hub, read_name
from darkroom.weights.locate import Weights, locate
from darkroom.weights.sound import part_fault

from .job import BASE

KNOWN = "AutoencoderKL"
NAMED = (*PARTS, BASE)  # fields of [model] that say where weights lie: which these are, their digests say


def parts(plan: Recipe) -> dict[str, Weights]:
    """The weights that a plan names, by the names of its fields; ``base`` is a whole pipeline.

    Raises what :func:`locate` and :func:`locate_base` raise.
    """
    named = {name: getattr(plan.model, name) for name in PARTS}
    if plan.train.method == "autoencoder":
        named["perceptual"] = plan.train.autoencoder.perceptual
    found = {name: locate(value) for name, value in named.items() if value is not None}
    if plan.train.distance is not None:
        found["features"] = _extractor(plan.train.distance.features)
    for name in found.keys() & set(PARTS):
        if fault := part_fault(found[name].path, name):
            raise RecipeError(f"model.{name} = {found[name].name!r}: {fault}")
    return found | ({BASE: locate_base(plan.model.base, plan.model.family)} if plan.model.base else {})


def _extractor(name: str) -> Weights:
    try:
        return features.weights(name)
    except (RecipeError, ServiceUnavailable) as error:
        raise type(error)(f"train.distance.features = {name!r}: {error}") from None


def look_early(plan: Recipe) -> None:
    """What is cheap to look at before a run: all that is named but models of the registry, which may be away yet."""
    if plan.model.base and read_name(plan.model.base).kind in ("champion", "registered"):
        parts(plan.model_copy(update={"model": plan.model.model_copy(update={"base": None})}))
    else:
        parts(plan)
        latents_of(plan)


def latents_of(plan: Recipe) -> Latents:
    """How the pictures of a plan become what its denoiser sees: by its autoencoder, or by that of its base.

    Raises :class:`RecipeError` where pictures of the plan's shapes cannot be cut into whole latents and tokens.
    """
    vae: Weights | None = None
    if plan.model.vae:
        vae = locate(plan.model.vae)
    elif plan.model.base and plan.model.family != "unconditional":
        vae = part_of(locate_base(plan.model.base, plan.model.family), "vae")
    factor = _factor(vae) if vae is not None else 1
    if plan.train.method == "autoencoder":
        return Latents(None)  # it is itself what is trained, on pixels
    if fault := untiled(plan, factor, _patch(plan)):
        raise RecipeError(fault)
    return Latents(vae, plan.model.family in SHIFTED, masks=plan.train.objective.masked)


def _factor(vae: Weights) -> int:
    """Pixels of a latent's side: all levels of an autoencoder but the last halve the picture.

    Raises :class:`RecipeError` for another kind of autoencoder, which diffusers would open with weights made up.
    """
    inner = vae.path / "vae"
    config = _read(inner if inner.is_dir() else vae.path)
    if (kind := config.get("_class_name", KNOWN)) != KNOWN:
        raise RecipeError(
            f"{vae.name} is of the class {kind}, and darkroom's latents are those of an {KNOWN}: name one"
        )
    return int(2 ** (len(config.get("block_out_channels", (64,))) - 1))


def _patch(plan: Recipe) -> int:
    """Latents of a token's side; 1 where the denoiser is no transformer."""
    if plan.model.family in UNETS:
        return 1
    if plan.model.family == "flux" or plan.model.base is None:
        return plan.model.transformer.patch_size  # Flux's configuration counts the tokens that its pipeline has packed
    return int(_read(locate_base(plan.model.base, plan.model.family).path / "transformer").get("patch_size", 2))


def _read(folder: Path) -> dict[str, Any]:
    """The configuration of a part. Raises :class:`RecipeError` where it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder} has no config.json that can be read: {error}") from None


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
    if plan.train.goes_by_distance:
        sections["sampler"] = plan.evaluate.sampler.digest_fields()
    key = digest_of({"manifest": manifest, "name": plan.name, "seed": plan.seed, "model": model, **sections})
    path = store.root / "bases" / f"{key}.json"
    with store.lock(f"base-{key}"):
        if path.is_file():
            known: dict[str, str | None] = json.loads(path.read_text("utf-8"))
            return known["base"]
        found = registry.with_alias(plan.name, "champion")
        chosen = found.uri if found else None
        if remember:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"base": chosen, "recipe": plan.name, "manifest": manifest})
        return chosen


def _with_base(plan: Recipe, base: str | None) -> Recipe:
    table = plan.model_dump(by_alias=True, exclude_unset=True)
    table["model"]["base"] = base
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        assert base is None, "only what lacks a base can be incomplete"
        words = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise RecipeError(f"model.base = 'champion', but {plan.name} has no champion yet: {words}") from None
