"""What the sections of a recipe that trains against an adversary must agree on."""

from typing import TYPE_CHECKING

from .recipe_shapes import sides_of

if TYPE_CHECKING:
    from .recipe import Recipe


def adversarial_disagreement(plan: "Recipe") -> str | None:
    """Why an autoencoder or a student cannot be trained as a recipe says, in one sentence; None where it can."""
    return _autoencoder(plan) or _distilling(plan)


def _autoencoder(plan: "Recipe") -> str | None:
    train, shape = plan.train, {"block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups"}
    if (train.method == "autoencoder") != (plan.model.family == "autoencoder"):
        return "train.method = 'autoencoder' and model.family = 'autoencoder' go together: set both or neither"
    if train.method != "autoencoder":
        return None
    if plan.model.base is not None:
        return "model.base belongs to denoisers: name the autoencoder to start from as model.vae"
    if plan.model.vae is not None and (named := shape & train.autoencoder.model_fields_set):
        return f"train.autoencoder.{min(named)} is that of model.vae, which is started from: leave one of them out"
    if train.micro_batch is not None and train.adversary.weight:
        return (
            f"train.micro_batch = {train.micro_batch}: the adversarial loss is balanced over whole batches; leave "
            "it out and lower train.batch, or set train.adversary.weight = 0"
        )
    return _sides(plan)


def _sides(plan: "Recipe") -> str | None:
    """Whether the smallest picture can be halved as often as the autoencoder and its opponent do."""
    train, sides = plan.train, sides_of(plan)
    levels = len(train.autoencoder.block_out_channels)
    if plan.model.vae is None and (odd := [side for side in sides if side % 2 ** (levels - 1)]):
        return (
            f"train.autoencoder.block_out_channels has {levels} levels, each but the last of which halves the "
            f"picture, and {min(odd)} pixels cannot be halved {levels - 1} times: give it fewer"
        )
    if train.adversary.weight and min(sides) < 3 * 2**train.adversary.layers:
        return (
            f"train.adversary.layers = {train.adversary.layers}: a discriminator of so many needs pictures of "
            f"{3 * 2**train.adversary.layers} pixels, and there are some of {min(sides)}: set fewer layers"
        )
    return None


def _distilling(plan: "Recipe") -> str | None:
    if plan.train.method != "distill":
        return None
    sampler, steps = plan.evaluate.sampler, plan.train.distill.steps
    if plan.model.base is None:
        return "train.method = 'distill' needs a teacher: name a finished model as model.base"
    if sampler.steps != steps:
        return (
            f"evaluate.sampler.steps = {sampler.steps}: the student is made to draw in train.distill.steps = "
            f"{steps}, so set both to the same number"
        )
    if sampler.guidance != 1:
        return (
            f"evaluate.sampler.guidance = {sampler.guidance}: a student draws without guidance, which it takes in "
            "from its teacher: set it to 1, and train.distill.guidance to what the teacher is to be guided by"
        )
    return None
