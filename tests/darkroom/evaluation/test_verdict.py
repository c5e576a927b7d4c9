"""The verdict before any comparison: limits, signs of a broken model, and copies."""

import pytest

from darkroom.errors import RecipeError
from darkroom.evaluation.verdict import broken_limits, copied, faults, names, settled
from darkroom.recipe import Evaluate, Gate, Limit


def test_limits_name_what_is_broken() -> None:
    gate = Gate(limits={"fid": Limit(max=2.0), "clip": Limit(min=10.0), "gone": Limit(min=0.0)})
    found = broken_limits({"fid": 3.0, "clip": 11.0}, gate)
    assert found == ["fid is 3, above the limit 2", "gone is nan, below the limit 0"]
    assert broken_limits({"fid": 2.0, "clip": 10.0, "gone": 1.0}, gate) == []


def test_a_model_that_draws_nothing_is_broken() -> None:
    assert faults({"blank_share": 0.04, "blank_share_validation": 0.0, "fid": 3.0}) == []
    assert faults({"blank_share": 0.5, "blank_share_validation": 0.48}) == []  # some data are like that
    (found,) = faults({"blank_share": 1.0, "blank_share_validation": 0.0})
    assert found == "100% of its pictures are one flat colour, and 0% of the held-out ones: it is broken"
    assert faults({"fid": float("nan")}) == ["fid is nan, which is no number"]


def test_copies_are_named_with_their_chance() -> None:
    gate = Gate()
    assert copied({"memorised_p": 0.2, "memorised_share": 0.02}, gate) == []
    (found,) = copied({"memorised_p": 1e-5, "memorised_share": 0.12}, gate)
    assert found.startswith("12.0% of its pictures are nearer to a training picture")
    assert "gate.memorisation is 0.001" in found
    assert copied({"memorised_p": 0.0, "memorised_share": 1.0}, Gate(memorisation=0)) == []
    assert copied({"reconstruction_mse": 0.1}, gate) == []  # an autoencoder draws nothing


def test_measures_are_named_after_their_extractors() -> None:
    plan = Evaluate(features="builtin:clip-digits", clip="builtin:clip-digits")
    found = names(plan)
    assert (found["frechet"], found["kernel"], found["clip_score"]) == (
        "fd_clip_digits",
        "kd_clip_digits",
        "clip_score_digits",
    )
    assert found["coverage"] == "coverage_clip_digits"


def test_a_frechet_distance_of_many_dimensions_is_judged_of_many_pictures_alone() -> None:
    plan = Evaluate(features="builtin:clip-digits", layer="pooled")  # 64 dimensions
    assert settled(plan, Gate(first=128)).measure == "frechet"
    assert settled(plan, Gate(first=127)).measure == "kernel"
    assert settled(plan, Gate(first=50, measure="coverage")).measure == "coverage"
    assert settled(plan, Gate(first=128, measure="frechet")).measure == "frechet"
    with pytest.raises(RecipeError, match=r"gate\.measure = 'frechet': .* 64 dimensions and wants 128 .* 'kernel'"):
        settled(plan, Gate(first=127, measure="frechet"))
    with pytest.raises(RecipeError, match=r"gate\.guards\.frechet: "):
        settled(plan, Gate(first=127, measure="kernel", guards={"frechet": 0.05}))
