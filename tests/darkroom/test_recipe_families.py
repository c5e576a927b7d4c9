"""Kinds of pipelines in a recipe: what one cannot be trained for, or has no part for, is refused in one sentence."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darkroom.errors import RecipeError
from darkroom.recipe import load, parse
from darkroom.recipe_training import DRAWN, NEEDED, Objective, misfit

ENCODERS = {"vae": "builtin:v", "text_encoder": "builtin:a", "text_encoder_2": "builtin:b"}

DEEP = {
    "block_out_channels": [32] * 5,
    "down_block_types": ["DownBlock2D"] * 5,
    "up_block_types": ["UpBlock2D"] * 5,
}


def recipe(family: str, model: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    parts = {name: ENCODERS[name] for name in NEEDED[family]}
    return {
        "version": 1,
        "name": "tiny",
        "collect": {"source": "digits"},
        "model": {"family": family, **parts, **(model or {})},
        "train": {"steps": 1},
        **sections,
    }


def train(**fields: Any) -> dict[str, Any]:
    return {"train": {"steps": 1, **fields}}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            recipe("unconditional", **train(objective={"kind": "flow"})),
            "train.objective.kind = 'flow': the pipeline of model.family = 'unconditional' cannot draw with it; it can "
            "with v, epsilon, x0",
        ),
        (recipe("flux", **train(objective={"kind": "epsilon"})), "cannot draw with it; it can with flow"),
        (recipe("stable-diffusion-3", **train(objective={"kind": "v"})), "it can with flow"),
        (recipe("dit", **train(objective={"min_snr_gamma": 5})), "min_snr_gamma belongs to the DDPM path"),
        (
            recipe("stable-diffusion", **train(objective={"zero_terminal_snr": True})),
            "zero_terminal_snr belongs to the DDPM path",
        ),
        (
            recipe("flux", {"base": "hub/flux"}, **train(objective={"betas": "linear"})),
            "betas belongs to the DDPM path",
        ),
        (
            recipe("dit", **train(objective={"kind": "epsilon", "zero_terminal_snr": True})),
            "set kind = 'v'",
        ),
        (recipe("unconditional", **train(timestep_mean=1.0)), "train.timestep_mean belongs to objective.kind = 'flow'"),
        (recipe("dit", **train(objective={"huber_delta": 0.5})), "huber_delta belongs to loss = 'huber'"),
        (recipe("flux", **train(dropout=0.1)), "train.dropout = 0.1: the transformer of flux has none"),
        (recipe("unconditional", **train(prompts=["a"])), "train.prompts: an unconditional model"),
        (recipe("unconditional", {"vae": "builtin:v"}), "'unconditional' works on pixels: it has no vae: leave it out"),
        (recipe("dit", {"text_encoder": "a", "text_encoder_2": "b"}), "has no text_encoder and no text_encoder_2"),
        (recipe("stable-diffusion-xl", {"text_encoder_3": "c"}), "has no text_encoder_3"),
        (recipe("dit", {"vae": None}), "vae must be named to train dit from scratch"),
        (recipe("dit", {"unet": {"layers_per_block": 1}}), "'dit' trains a transformer: give its shape under"),
        (recipe("stable-diffusion", {"transformer": {"layers": 1}}), "'stable-diffusion' trains a UNet: give its"),
        (recipe("flux", {"transformer": {"patch_size": 4}}), "Flux's pipeline makes tokens of 2 x 2"),
        (recipe("dit", preprocess={"size": 64, "buckets": 3}), "preprocess.buckets = 3: a model of the family dit"),
        (
            recipe("stable-diffusion", **train(distill={"steps": 2})),
            "train.distill does nothing with train.method",
        ),
        (recipe("dit", **train(adversary={"weight": 0.1})), "train.adversary does nothing with train.method = 'full'"),
        (
            recipe("stable-diffusion", {"base": "hub/base"}, **train(dropout=0.1)),
            "train.dropout = 0.1 is of a new denoiser, and model.base brings its own",
        ),
        (
            recipe("stable-diffusion", {"base": "hub/base", "unet": {"layers_per_block": 1}}),
            "model.unet is the shape of a new denoiser",
        ),
        (
            recipe("flux", preprocess={"size": 72, "buckets": 3}),
            "preprocess.size = 72 is no multiple of preprocess",
        ),
        (recipe("unconditional", {"unet": DEEP}, preprocess={"size": 24}), "24 pixels cannot be halved 4 times"),
        (recipe("unconditional", evaluate={"sampler": {"guidance": 2}}), "evaluate.sampler.guidance = 2.0: an uncon"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(table: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(table, "mine.toml")
    assert words in str(caught.value)
    assert str(caught.value).count(";") <= 2, "one mistake, one sentence"


@pytest.mark.parametrize("family", [name for name, kinds in DRAWN.items() if kinds])
def test_every_kind_that_a_family_draws_with_is_accepted(family: str) -> None:
    for kind in (None, *DRAWN[family]):
        assert parse(recipe(family, **train(objective={"kind": kind})), "x").train.objective.kind == kind


def test_options_go_with_the_kind_that_results_from_none() -> None:
    """From scratch it is the family's first; that of a base is known once it is there, and is asked again then."""
    options = {"min_snr_gamma": 5, "zero_terminal_snr": True}
    assert parse(recipe("unconditional", **train(objective=options)), "x").train.objective.kind is None
    plan = parse(recipe("stable-diffusion", {"base": "hub/base"}, **train(objective=options)), "x").train.objective
    assert "belongs to the DDPM path" in (misfit(plan, "flow") or "")
    assert "kind = 'v'" in (misfit(plan, "epsilon") or "")
    assert misfit(plan, "v") is None


def test_an_objective_is_asked_again_when_its_kind_is_known() -> None:
    from darkroom.diffusion.objectives import make

    with pytest.raises(RecipeError, match="which learns flow: min_snr_gamma belongs to the DDPM path"):
        make(Objective(min_snr_gamma=5), "flow")


SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    assert load(str(path)).name == path.stem


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys; from darkroom.recipe import load; load('digits-classes'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
