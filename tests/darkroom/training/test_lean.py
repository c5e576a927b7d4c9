"""Leaner layers compute the same."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.upsampling import Upsample2D
from peft import LoraConfig

from darkroom.training.lean import LEANER, LeanConvolution, LeanUpsample, lean

SIDE = 6  # odd once halved: what is enlarged again must fit what was kept
LEVELS: dict[str, Any] = {"layers_per_block": 1, "norm_num_groups": 4, "block_out_channels": (8, 16)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small for two to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def conditional(**options: Any) -> UNet2DConditionModel:
    downs, ups = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    blocks = {"down_block_types": downs, "up_block_types": ups, "attention_head_dim": 2, "cross_attention_dim": 8}
    return UNet2DConditionModel(sample_size=SIDE, in_channels=2, out_channels=2, **blocks, **LEVELS, **options)


def unconditional() -> UNet2DModel:
    downs, ups = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    return UNet2DModel(SIDE, 2, 2, down_block_types=downs, up_block_types=ups, attention_head_dim=4, **LEVELS)


def with_adapter() -> UNet2DConditionModel:
    unet, layers = conditional(), ["to_q", "conv_shortcut", "proj_in", "upsamplers.0.conv", "ff.net.0.proj"]
    unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=layers))
    return unet


def autoencoder() -> AutoencoderKL:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(2, 2, latent_channels=2, sample_size=SIDE, **blocks, **LEVELS)


def answer(network: Any, rows: int, side: int = SIDE) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What a network says to fixed pictures, and the gradients of its parameters."""
    torch.manual_seed(0)
    picture = torch.randn(rows, 2, side, side, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    if isinstance(network, AutoencoderKL):
        said = network(picture).sample
    elif isinstance(network, UNet2DConditionModel):
        texts = torch.randn(rows, 3, 8, dtype=torch.float64)
        said = network(picture, torch.arange(rows), encoder_hidden_states=texts).sample
    else:
        said = network(picture, torch.arange(rows)).sample
    (said * torch.randn_like(said)).sum().backward()
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return said.detach(), gradients


@pytest.mark.parametrize("rows", [3, 64])  # from 64 on diffusers enlarges in the other layout
@pytest.mark.parametrize(
    "make", [conditional, lambda: conditional(use_linear_projection=True), unconditional, with_adapter, autoencoder]
)
def test_answers_and_gradients_are_the_same(make: Any, rows: int) -> None:
    torch.manual_seed(1)
    usual = make().double().to(memory_format=torch.channels_last).train()
    leaner = copy.deepcopy(usual)
    lean(leaner)
    assert leaner.state_dict().keys() == usual.state_dict().keys()
    (said, gradients), (expected, usual_gradients) = answer(leaner, rows), answer(usual, rows)
    torch.testing.assert_close(said, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, usual_gradients, rtol=1e-8, atol=1e-8)


def test_sides_that_are_not_doubled() -> None:
    """5 is halved to 3, and enlarged to 5 again."""
    torch.manual_seed(1)
    usual = conditional().double().to(memory_format=torch.channels_last).train()
    leaner = copy.deepcopy(usual)
    lean(leaner)
    (said, gradients), (expected, usual_gradients) = answer(leaner, 3, 5), answer(usual, 3, 5)
    torch.testing.assert_close(said, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, usual_gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("side", "kernels"), [(SIDE, 0), (20, 4)])  # among captions they stay few
def test_attention_among_many_takes_the_kernel(side: int, kernels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, kernel = [], torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        taken.append(arguments)
        return kernel(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    network = conditional()
    lean(network)
    network(torch.randn(1, 2, side, side), torch.tensor(1), encoder_hidden_states=torch.randn(1, 3, 8))
    assert len(taken) == kernels


def test_pictures_stay_in_their_layout() -> None:
    unet = conditional().to(memory_format=torch.channels_last).train()
    lean(unet)
    seen = []
    for layer in unet.modules():
        if type(layer) in LEANER.values():
            layer.register_forward_hook(lambda layer, _, made: seen.append((type(layer).__name__, made)))
    unet(torch.randn(64, 2, SIDE, SIDE), 1, encoder_hidden_states=torch.randn(64, 3, 8))
    pictures = [(name, made[0] if isinstance(made, tuple) else made) for name, made in seen]
    assert {name for name, _ in pictures} == {kind.__name__ for kind in LEANER.values()}
    assert all(made.is_contiguous(memory_format=torch.channels_last) for _, made in pictures if made.ndim == 4)


@pytest.mark.parametrize(
    ("layer", "leaner"),
    [(torch.nn.Conv2d(4, 6, 1), LeanConvolution), (Upsample2D(4, use_conv=True, out_channels=6), LeanUpsample)],
)
def test_gradients_have_the_layout_of_their_weights(layer: torch.nn.Module, leaner: type) -> None:
    """Else DDP and the optimiser copy them."""
    layer = layer.to(memory_format=torch.channels_last)
    lean(layer)
    assert type(layer) is leaner
    layer(torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)).sum().backward()
    weight = next(value for value in layer.parameters() if value.ndim == 4)
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


def test_layers_with_other_options_are_left_alone() -> None:
    for layer in (torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 1, stride=2), torch.nn.Conv2d(4, 4, 1, groups=2)):
        lean(layer)
        assert type(layer) is torch.nn.Conv2d
