"""Each measure's value is the known one, its standard error that of repeated drawing, and common noise narrows it."""

import numpy as np
import pytest

from darkroom.evaluation.contrasts import MEASURES, Drawn, Held, contrast, worth
from darkroom.evaluation.frechet import frechet
from darkroom.evaluation.sets import diversity, kernel_distance, manifolds

DIMENSIONS, COUNT, BLOCK = 4, 240, 120
HELD = np.random.default_rng(0).normal(size=(BLOCK, DIMENSIONS))
PROMPTS = ["a", "b", "c"] * (COUNT // 3)


def drawn(random: np.random.Generator, scale: float = 1.0, noise: np.ndarray | None = None) -> Drawn:
    noise = random.normal(size=(COUNT, DIMENSIONS)) if noise is None else noise
    return Drawn(noise * scale + 0.2, PROMPTS, 50 + 5 * noise[:, 0] * scale)


def test_values_are_those_of_the_measures() -> None:
    one, held = drawn(np.random.default_rng(1), 1.2), Held(HELD)
    value = {name: measure.of(one, held, BLOCK)[0] for name, measure in MEASURES.items()}
    assert value["frechet"] == pytest.approx(frechet(one.features, HELD))
    assert value["kernel"] == pytest.approx(kernel_distance(one.features, HELD))
    blocks = [manifolds(one.features[start : start + BLOCK], HELD) for start in (0, BLOCK)]
    for name in ("precision", "density", "coverage"):
        assert value[name] == pytest.approx(np.mean([getattr(block, name) for block in blocks]))
    assert value["diversity"] == pytest.approx(diversity(one.features, PROMPTS))
    assert value["clip_score"] == pytest.approx(one.scores.mean())


@pytest.mark.parametrize("name", MEASURES)
def test_the_error_is_that_of_drawing_again(name: str) -> None:
    random, held, gains, errors = np.random.default_rng(2), Held(HELD), [], []
    for _ in range(150):
        noise = random.normal(size=(COUNT, DIMENSIONS))
        found = contrast(MEASURES[name], drawn(random, 1.0, noise), drawn(random, 1.25, noise), held, BLOCK)
        gains.append(found.gain)
        errors.append(found.error)
    # 150 gains know their own deviation to a twentieth or so; the jackknife of coverage is known to be generous.
    assert 0.8 < np.mean(errors) / np.std(gains) < (1.6 if name == "coverage" else 1.25)


@pytest.mark.parametrize("name", MEASURES)
def test_the_sign_is_that_of_better(name: str) -> None:
    random, held = np.random.default_rng(3), Held(HELD)
    noise = random.normal(size=(COUNT, DIMENSIONS))
    good, bad = drawn(random, 1.0, noise), drawn(random, 3.0, noise)
    found = contrast(MEASURES[name], good, bad, held, BLOCK)
    back = contrast(MEASURES[name], bad, good, held, BLOCK)
    assert found.gain == pytest.approx(-back.gain)
    if name not in ("diversity", "clip_score"):  # these only know more from less
        assert found.beyond(0) > 3
    assert found.challenger == back.champion


def test_common_noise_narrows_the_error() -> None:
    random, held = np.random.default_rng(4), Held(HELD)
    noise = random.normal(size=(COUNT, DIMENSIONS))
    paired = contrast(MEASURES["frechet"], drawn(random, 1.0, noise), drawn(random, 1.05, noise), held, BLOCK)
    apart = contrast(MEASURES["frechet"], drawn(random, 1.0), drawn(random, 1.05, noise), held, BLOCK)
    assert paired.error < apart.error / 3


def test_other_held_out_pictures_would_move_it_as_said() -> None:
    random = np.random.default_rng(5)
    noise = random.normal(size=(COUNT, DIMENSIONS))
    new, old = drawn(random, 1.0, noise), drawn(random, 1.4, noise)
    found = [
        contrast(MEASURES["frechet"], new, old, Held(random.normal(size=(BLOCK, DIMENSIONS))), BLOCK)
        for _ in range(150)
    ]
    said = np.mean([one.error_of_real for one in found])
    assert 0.8 < said / np.std([one.gain for one in found]) < 1.25


def test_pictures_without_prompts_have_no_score() -> None:
    random = np.random.default_rng(6)
    one = drawn(random)
    silent = Drawn(one.features, [""] * COUNT, np.full(COUNT, np.nan))
    assert np.isnan(contrast(MEASURES["clip_score"], silent, silent, Held(HELD), BLOCK).gain)
    half = Drawn(one.features, PROMPTS, np.where(np.arange(COUNT) % 2, np.nan, one.scores))
    assert contrast(MEASURES["clip_score"], half, half, Held(HELD), BLOCK).champion == np.mean(one.scores[::2])


def test_a_share_of_a_distance_is_of_its_unbiased_size() -> None:
    random, held = np.random.default_rng(7), Held(np.random.default_rng(8).normal(size=(4000, 40)))
    few = Drawn(random.normal(size=(120, 40)) * 1.2, ["a"] * 120, np.full(120, np.nan))
    truth = frechet(random.normal(size=(60_000, 40)) * 1.2, held.features)
    biased = MEASURES["frechet"].of(few, held, 120)[0]
    size = worth(MEASURES["frechet"], few, held, 120)
    assert abs(size - truth) < abs(biased - truth) / 3
