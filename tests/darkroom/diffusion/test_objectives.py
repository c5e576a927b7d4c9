"""The paths and their targets: what is predicted gives the picture back, and a scheduler tells its objective."""

import pytest
import torch

from darkroom.diffusion.objectives import STEPS, Ddpm, make, of_scheduler, perturbed
from darkroom.errors import RecipeError
from darkroom.randomness import generator
from darkroom.recipe import Overrides, load
from darkroom.recipe_training import Objective

KINDS = ("flow", "epsilon", "v", "x0")


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = generator("objectives")
    return torch.randn(6, 3, 4, 4, generator=random), torch.randn(6, 3, 4, 4, generator=random)


@pytest.mark.parametrize("kind", KINDS)
def test_a_true_prediction_gives_the_picture_back(kind: str, pair) -> None:
    clean, noise = pair
    objective = make(Objective(kind=kind), kind)
    times = objective.fixed_times(6)
    noisy = objective.noisy(clean, noise, times)
    again = objective.clean(noisy, objective.target(clean, noise, times), times)
    torch.testing.assert_close(again, clean, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("betas", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_the_path_is_that_of_diffusers(kind: str, betas: str, pair) -> None:
    clean, noise = pair
    objective = make(Objective(kind=kind, betas=betas), kind)
    times = objective.draw_times(6, 0, 1, generator("times"))
    scheduler = objective.scheduler()
    torch.testing.assert_close(objective.noisy(clean, noise, times), scheduler.add_noise(clean, noise, times))
    if kind == "v":
        torch.testing.assert_close(objective.target(clean, noise, times), scheduler.get_velocity(clean, noise, times))


@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduler_tells_its_objective(kind: str, pair) -> None:
    clean, noise = pair
    ours = make(Objective(kind=kind, **({} if kind == "flow" else {"betas": "linear"})), kind)
    found = of_scheduler(ours.scheduler())
    assert found.kind == kind
    times = ours.fixed_times(6)
    assert torch.equal(found.fixed_times(6), times)
    torch.testing.assert_close(found.noisy(clean, noise, times), ours.noisy(clean, noise, times))


def test_zero_terminal_snr_ends_in_noise_alone() -> None:
    assert make(Objective(kind="v"), "v").alphas[-1] > 1e-3
    assert make(Objective(kind="v", zero_terminal_snr=True), "v").alphas[-1] < 1e-6


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("zero", [False, True])
def test_min_snr_weights_agree_in_terms_of_the_picture(kind: str, zero: bool) -> None:
    """A weight w on one target's error is w times that target's sensitivity to x_0 (Hang et al. 2023, section 3.4)."""
    if zero and kind == "epsilon":
        return  # refused in the recipe
    objective = make(Objective(kind=kind, min_snr_gamma=5, zero_terminal_snr=zero), kind)
    assert isinstance(objective, Ddpm)
    times = torch.arange(STEPS)
    weights = objective.weights(times)
    assert weights is not None
    assert torch.isfinite(weights).all()
    snr = objective.alphas / (1 - objective.alphas)
    least = snr.clamp(max=5)
    sensitivity = {"epsilon": snr, "x0": torch.ones_like(snr), "v": snr + 1}[kind]
    torch.testing.assert_close(weights * sensitivity, least)


def test_losses_know_weights_and_masks(pair) -> None:
    clean, noise = pair
    times = torch.full((6,), 500)
    plain = make(Objective(kind="epsilon"), "epsilon")
    torch.testing.assert_close(plain.error(clean, noise, times), (clean - noise).square().mean())
    half = torch.zeros(6, 1, 4, 4)
    half[..., :2, :] = 1
    expected = (clean - noise)[..., :2, :].square().mean()
    torch.testing.assert_close(plain.error(clean, noise, times, half), expected)
    far = make(Objective(kind="epsilon", loss="huber", huber_delta=1e-4), "epsilon")
    torch.testing.assert_close(far.error(clean, noise, times), (clean - noise).abs().mean(), atol=1e-3, rtol=1e-3)


def test_noise_is_perturbed_in_the_input_alone() -> None:
    noise = torch.zeros(4, 3, 8, 8)
    assert perturbed(noise, Objective(), generator("none"))[0] is noise
    learnt, added = perturbed(noise, Objective(input_perturbation=0.5), generator("input"))
    assert torch.equal(learnt, noise)
    assert 0.4 < float(added.std()) < 0.6
    learnt, added = perturbed(noise, Objective(noise_offset=0.5), generator("offset"))
    assert torch.equal(learnt, added)
    assert float(learnt.std(dim=(2, 3)).max()) == 0, "constant over each channel"
    assert float(learnt.std()) > 0.1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"train.objective.kind": "flow", "train.objective.min_snr_gamma": 5},
            "min_snr_gamma belongs to the DDPM path",
        ),
        ({"train.objective.kind": "epsilon", "train.objective.zero_terminal_snr": True}, "kind = 'v'"),
        ({"train.objective.kind": "velocity"}, "train.objective.kind"),
    ],
)
def test_what_cannot_go_together_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load("digits", Overrides(fields=fields))
