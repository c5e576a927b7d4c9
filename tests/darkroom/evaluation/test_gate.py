"""The gate's verdicts on models that are better, equal, worse, or better at a price."""

import functools
import json
from collections.abc import Callable

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from darkroom.errors import RecipeError
from darkroom.evaluation.contrasts import MEASURES, Drawn, Held
from darkroom.evaluation.gate import Draw, Judgement, judge
from darkroom.recipe import Gate

DIMENSIONS = 4
NAMES = {name: f"{name}_x" for name in MEASURES}
HELD = Held(np.random.default_rng(0).normal(size=(300, DIMENSIONS)))
GATE = Gate(first=128, count=1024)


@functools.cache
def noises(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4096, DIMENSIONS))


def model(
    scale: float = 1.0,
    score: float = 60.0,
    seed: int = 0,
    rho: float = 1.0,
    shift: np.ndarray | float = 0.0,
    asked: list[int] | None = None,
) -> Draw:
    """Draws normal features from noise that follows from the picture's number, mixed with ``1 - rho`` of its own."""

    def draw(first: int, last: int) -> Drawn:
        if asked is not None:
            asked.extend(range(first, last))
        noise = (rho * noises(99999) + (1 - rho**2) ** 0.5 * noises(seed))[first:last]
        return Drawn(noise * scale + shift, ["a", "b"] * ((last - first) // 2), score + noise[:, 0])

    return draw


def test_better_is_pass_and_turned_round_is_fail() -> None:
    found = judge(model(1.05), model(1.3), HELD, GATE, NAMES)
    assert found.decision == "PASS"
    assert found.rules[0].low > 0
    assert [rule.state for rule in found.rules] == ["held"] * 3
    assert "surely so" in found.reasons[0]
    back = judge(model(1.3), model(1.05), HELD, GATE, NAMES)
    assert back.decision == "FAIL"
    assert back.rules[0].high < back.rules[0].wanted
    assert "no improvement worth a change" in back.reasons[0]


def test_the_same_pictures_are_no_improvement() -> None:
    found = judge(model(1.2), model(1.2), HELD, GATE, NAMES)
    assert (found.decision, found.count) == ("FAIL", 128)
    assert found.rules[0].gain == 0


def test_better_at_a_price_is_fail_and_names_the_guard() -> None:
    found = judge(model(1.05, score=40.0), model(1.3, score=60.0), HELD, GATE, NAMES)
    assert found.decision == "FAIL"
    assert {rule.name: rule.state for rule in found.rules}["clip_score"] == "broken"
    assert any(reason.startswith("clip_score_x is ") and "worse by more than" in reason for reason in found.reasons)


def test_what_cannot_be_told_is_inconclusive_and_says_what_would_help() -> None:
    gate = GATE.model_copy(update={"gain": 0.01})
    found = judge(model(1.2, seed=1, rho=0.0), model(1.2, seed=2, rho=0.0), HELD, gate, NAMES)
    assert found.decision == "INCONCLUSIVE"
    assert found.count == found.planned == found.budget == 1024
    assert "gate.count allows 1,024" in found.reasons[-1]


def test_every_picture_is_drawn_once_and_only_as_many_as_the_verdict_needs() -> None:
    asked: list[int] = []
    found = judge(model(1.05, asked=asked), model(1.3), HELD, GATE, NAMES)
    assert asked == list(range(found.count))
    assert found.count < found.budget
    assert [look.count for look in found.looks] == [128 * 2**look for look in range(len(found.looks))]


def test_the_verdict_does_not_depend_on_how_the_parts_were_drawn() -> None:
    def in_pieces(draw: Draw) -> Draw:
        return lambda first, last: draw(first, first + 10).and_then(draw(first + 10, last))

    one, other = model(1.1, seed=1, rho=0.9), model(1.2, seed=2, rho=0.9)
    assert judge(in_pieces(one), in_pieces(other), HELD, GATE, NAMES) == judge(one, other, HELD, GATE, NAMES)


def test_a_measure_that_cannot_be_taken_guards_nothing_and_is_named() -> None:
    def silent(draw: Draw) -> Draw:
        def quiet(first: int, last: int) -> Drawn:
            one = draw(first, last)
            return Drawn(one.features, [""] * (last - first), np.full(last - first, np.nan))

        return quiet

    found = judge(silent(model(1.05)), silent(model(1.3)), HELD, GATE, NAMES)
    assert found.decision == "PASS"
    assert [rule.name for rule in found.rules] == ["frechet", "coverage"]
    assert found.notes == ("clip_score_x guards nothing here: it cannot be taken of these pictures",)


def test_a_primary_measure_that_cannot_be_taken_is_refused() -> None:
    few = Held(np.random.default_rng(3).normal(size=(5, DIMENSIONS)))
    gate = Gate(first=64, count=128, measure="coverage", guards={"precision": 0.1})
    with pytest.raises(RecipeError, match=r"gate\.measure = 'coverage': coverage_x cannot be taken"):
        judge(model(1.0), model(1.2), few, gate, NAMES)
    found = judge(model(1.0), model(1.2), few, Gate(first=64, count=128, guards={"precision": 0.1}), NAMES)
    assert found.notes == ("precision_x guards nothing here: it cannot be taken of these pictures",)


def test_a_gain_that_is_due_to_few_held_out_pictures_is_no_pass() -> None:
    # The truth lies at 0, as the champion does; the challenger fits the mean of the few that are held out.
    few, many = (np.random.default_rng(3).normal(size=(count, DIMENSIONS)) for count in (8, 3000))
    gate = Gate(first=512, count=4096, guards={})
    found = judge(model(1.0, shift=few.mean(axis=0)), model(1.0), Held(few), gate, NAMES)
    assert found.rules[0].state == "held"
    assert found.decision == "INCONCLUSIVE"
    assert found.reasons == ("the gain may be due to these held-out pictures: more of them would tell",)
    assert judge(model(1.0), model(1.0, shift=0.3), Held(many), gate, NAMES).decision == "PASS"


def test_the_numbers_said_do_not_depend_on_the_number_of_threads() -> None:
    random = np.random.default_rng(5)
    mix, every = random.normal(size=(64, 64)) / 8, random.normal(size=(3, 1024, 64))

    def wide(which: int, scale: float) -> Draw:
        return lambda first, last: Drawn(
            every[which, first:last] @ mix * scale, ["a"] * (last - first), every[0, first:last, 0]
        )

    said = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found = judge(wide(1, 1.05), wide(1, 1.1), Held(every[2, :300] @ mix), GATE, NAMES)
            said.append((found.decision, found.count, [rule.words for rule in found.rules]))
    assert said[0] == said[1]


@pytest.mark.parametrize("measure", MEASURES)
def test_any_measure_can_be_the_first(measure: str) -> None:
    gate = Gate(first=128, count=512, measure=measure, guards={})
    found = judge(model(1.0), model(2.5, score=50.0), HELD, gate, NAMES)
    assert found.measure == f"{measure}_x"
    assert found.decision == ("FAIL" if measure == "diversity" else "PASS")  # wider is more varied


def test_equal_models_pass_no_more_often_than_allowed() -> None:
    gate = Gate(first=64, count=256, alpha=0.2, guards={})
    passes = sum(
        judge(
            model(1.2, seed=2 * trial + 1, rho=0.9), model(1.2, seed=2 * trial + 2, rho=0.9), HELD, gate, NAMES
        ).decision
        == "PASS"
        for trial in range(60)
    )
    assert passes <= 20  # 0.2 of 60 and two and a half standard deviations


def test_a_judgement_survives_json() -> None:
    found = judge(model(1.05), model(1.3), HELD, GATE, NAMES)
    assert Judgement.of(json.loads(json.dumps(found.plain()))) == found


def test_the_recipe_is_asked_for_a_budget_that_reaches_the_first_look() -> None:
    build: Callable[..., Gate] = Gate
    with pytest.raises(ValueError, match="first is 256, more than count, 100: lower first or raise count"):
        build(count=100)
