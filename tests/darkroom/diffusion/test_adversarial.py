"""Opponents: their losses as the papers have them, gradients where they belong, and that they learn to tell."""

import pytest
import torch
from torch.nn import functional

from darkroom.diffusion.adversarial import (
    FeatureDiscriminator,
    Features,
    PatchDiscriminator,
    adaptive_weight,
    frozen,
    hinge,
    load_perceptual,
    resized,
)
from darkroom.errors import RecipeError
from darkroom.weights.locate import locate


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patches(layers: int = 1) -> PatchDiscriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PatchDiscriminator(3, 8, layers)


def test_the_hinge_asks_for_a_margin_of_one() -> None:
    assert hinge(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -9.0])) == 0
    assert hinge(torch.tensor([0.0]), torch.tensor([0.0])) == 1
    assert hinge(torch.tensor([-1.0]), torch.tensor([2.0])) == 0.5 * (2 + 3)


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    layer = random(4, 3).requires_grad_()
    given = random(5, 4, seed=1)
    kept, sharp = (given @ layer).square().mean(), (given @ layer).sin().sum()
    found = adaptive_weight(kept, sharp, layer)
    by_hand = 2 * given.T @ (given @ layer) / 15  # d mean((XW)^2) / dW
    towards_sharp = given.T @ (given @ layer).cos()
    assert torch.isclose(found, by_hand.norm() / (towards_sharp.norm() + 1e-6))
    assert not found.requires_grad
    assert layer.grad is None
    # Weighed so, both losses pull equally hard.
    (pull,) = torch.autograd.grad(found * (given @ layer).sin().sum(), layer)
    assert torch.isclose(pull.norm(), by_hand.norm(), rtol=1e-4)
    # An opponent that says nothing does not make it infinite.
    assert adaptive_weight((given @ layer).sum(), 0 * (given @ layer).sum(), layer) == 1e4


def test_nothing_is_left_in_a_frozen_opponent_though_gradients_pass_it() -> None:
    opponent, picture = patches(), random(2, 3, 8, 8).requires_grad_()
    with frozen(opponent):
        opponent(picture).mean().backward()
    assert picture.grad is not None
    assert float(picture.grad.abs().sum()) > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in opponent.parameters())


def test_the_discriminators_gradients_are_those_of_finite_differences() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = FeatureDiscriminator([4], 4).double()
    opponent = patches().double()
    picture = random(1, 3, 8, 8).double().requires_grad_()
    features = random(2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(opponent, (picture,))
    assert torch.autograd.gradcheck(lambda some: heads([some]), (features,))


def test_a_patch_is_judged_by_its_own_picture_alone() -> None:
    opponent, pictures = patches(layers=2), random(5, 3, 16, 16)
    alone = torch.cat([opponent(picture[None]) for picture in pictures])
    assert alone.shape == (5, 1, 2, 2)
    torch.testing.assert_close(opponent(pictures), alone)
    assert opponent(random(1, 3, 12, 12)).shape[2:] == (1, 1)  # the least that two layers take


def test_an_opponent_learns_to_tell_smooth_pictures_from_noise() -> None:
    opponent = patches()
    optimizer = torch.optim.Adam(opponent.parameters(), 2e-3)
    losses = []
    for step in range(40):
        noise = random(16, 3, 8, 8, seed=step)
        smooth = functional.interpolate(random(16, 3, 2, 2, seed=1000 + step), (8, 8), mode="bilinear")
        loss = hinge(opponent(smooth), opponent(noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 0.9
    assert sum(losses[-5:]) / 5 < 0.3


def test_resizing_is_torchs_own() -> None:
    pictures = random(2, 3, 12, 20)
    wanted = functional.interpolate(pictures, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(pictures, 8), wanted)
    assert torch.equal(resized(wanted, 8), wanted)


def test_the_perceptual_distance_grows_with_what_is_seen() -> None:
    measure = load_perceptual(locate("builtin:clip-digits").path, torch.device("cpu"))
    pictures = random(4, 3, 16, 16).clamp(-1, 1)
    assert float(measure(pictures, pictures)) == 0
    near, far = (pictures + share * random(4, 3, 16, 16, seed=1) for share in (0.05, 0.5))
    assert 0 < float(measure(pictures, near)) < float(measure(pictures, far)) < 4
    near.requires_grad_()
    measure(pictures, near).backward()
    assert float(near.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in measure.tower.parameters())


def test_features_are_those_of_evenly_chosen_blocks() -> None:
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        add_attention=False,
    )
    listener = Features(unet, 3)
    assert listener.blocks == [unet.down_blocks[0], unet.mid_block, unet.up_blocks[1]]
    assert Features(unet, 1).blocks == [unet.up_blocks[1]]
    with listener.listening() as heard:
        unet(random(2, 1, 8, 8), torch.tensor([10]))
    assert [tuple(some.shape) for some in heard] == [(2, 16, 8), (2, 16, 16), (2, 64, 8)]
    unet(random(2, 1, 8, 8), torch.tensor([10]))
    assert len(heard) == 3  # nobody listens any more
    with pytest.raises(RecipeError, match="5 blocks"):
        Features(unet, 6)
