"""Which sides pictures may have for the model that a recipe trains: said before anything runs, not at some step."""

from typing import TYPE_CHECKING

from .errors import RecipeError

if TYPE_CHECKING:
    from .recipe import Recipe


def sides_of(plan: "Recipe") -> list[int]:
    """The sides of all shapes that the recipe cuts pictures to, in pixels, each once, the shortest first."""
    cut = plan.preprocess
    if cut.buckets == 1:
        return [cut.size]
    from .preprocess.buckets import shapes

    found = shapes(cut.size, cut.buckets, cut.bucket_step, cut.max_bucket_aspect)
    return sorted({side for shape in found for side in shape})


def shape_disagreement(plan: "Recipe") -> str | None:
    """Why a new model on pixels cannot see the recipe's shapes, or there are none, in one sentence."""
    try:
        sides = sides_of(plan)
    except RecipeError as error:
        return str(error)
    if plan.model.family != "unconditional" or plan.model.base is not None:
        return None
    levels = len(plan.model.unet.block_out_channels)
    odd = [side for side in sides if side % 2 ** (levels - 1)]
    if not odd:
        return None
    return (
        f"model.unet.block_out_channels has {levels} levels, each but the last of which halves the picture, and "
        f"{odd[0]} pixels cannot be halved {levels - 1} times: give it fewer, or take another preprocess.size"
    )


def untiled(plan: "Recipe", factor: int, patch: int) -> str | None:
    """Why pictures cannot be cut into whole latents and tokens, in one sentence: ``factor`` pixels are a latent's side,
    ``patch`` latents a token's.
    """
    whole = factor * patch
    odd = [side for side in sides_of(plan) if side % whole]
    if not odd:
        return None
    field = "size" if odd[0] == plan.preprocess.size else "bucket_step"
    value = getattr(plan.preprocess, field)
    tokens = f", and {patch} x {patch} of these a token" if patch > 1 else ""
    return (
        f"preprocess.{field} = {value}: {factor} x {factor} pixels make a latent{tokens}, and a side of {odd[0]} "
        f"pixels is no multiple of {whole}: take {max(whole, round(value / whole) * whole)}"
    )
