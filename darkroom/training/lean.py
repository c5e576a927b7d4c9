"""Layers of diffusers' UNets that compute the same with less passing over memory, on a CPU and in channels-last.

diffusers' own convert to the other layout and back where a residual block changes its channels, where a batch of 64 or
more is enlarged, and after attention, and divide by scales that are 1; a convolution of 1 x 1 is faster as the matrix
product that it is, attention among few and a gated layer as two of them, and enlarging with the convolution after it
as one transposed convolution. Results differ by rounding alone.

A layer gets another class and keeps its parameters and their names: what is saved is what it was.
"""

import math
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

SUMS = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))  # what each of 4 positions in a row of a doubling kernel adds of 3
FEW = 64 * 64  # query times key positions up to which matrix products are faster than the kernel that keeps no scores


def lean(network: nn.Module, attention: bool = True) -> None:
    """Exchange the layers of a network, in place, where there is a leaner one and the layer has no unusual option.

    ``attention``: also how attention is computed.
    """
    for layer in network.modules():
        leaner = LEANER.get(type(layer))
        if leaner is not None and leaner.fits(layer):
            layer.__class__ = leaner
        if attention and isinstance(layer, Attention) and LeanAttention.fits(layer):
            layer.set_processor(LeanAttention())


class LeanConvolution(nn.Conv2d):
    """A convolution of 1 x 1 as what it is: one matrix for every pixel."""

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether it looks at single pixels, all of them."""
        plain = (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
        return plain and layer.padding in ((0, 0), 0, "valid")

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's own name
        """NCHW -> NCHW."""
        if not _channels_last(input):
            return super().forward(input)
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # O I 1 1 -> OI; so its gradient is in channels-last, too
        return functional.linear(input.permute(0, 2, 3, 1), matrix, self.bias).permute(0, 3, 1, 2)


class LeanResidual(ResnetBlock2D):
    """A residual block that keeps its layout, and does not divide by 1."""

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether it is the usual block."""
        usual = layer.upsample is None and layer.downsample is None and layer.output_scale_factor == 1
        return usual and layer.time_embedding_norm == "default" and not layer.skip_time_act

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor | None, *_: Any, **__: Any) -> torch.Tensor:
        """NCHW and the time's embedding -> NCHW."""
        hidden: torch.Tensor = self.conv1(self.nonlinearity(self.norm1(input_tensor)))
        if self.time_emb_proj is not None:
            assert temb is not None
            hidden = hidden + self.time_emb_proj(self.nonlinearity(temb))[:, :, None, None]
        hidden = self.conv2(self.dropout(self.nonlinearity(self.norm2(hidden))))
        skipped = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return skipped + hidden


class LeanUpsample(Upsample2D):
    """Doubles each side by repeating pixels, and convolves, in the layout that it is given.

    Repeating is a transposed convolution of ones, 2 x 2 with stride 2; with a convolution of 3 x 3 after it, it is one
    transposed convolution of 4 x 4, which takes 4/9 of the products and repeats nothing.
    """

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether it repeats pixels and convolves."""
        usual = layer.interpolate and layer.use_conv and layer.norm is None and not layer.use_conv_transpose
        return usual and layer.name == "conv"

    def forward(self, hidden_states: torch.Tensor, output_size: Any = None, *_: Any, **__: Any) -> torch.Tensor:
        """NCHW -> NCHW."""
        conv, doubled = self.conv, tuple(2 * side for side in hidden_states.shape[2:])
        if not _channels_last(hidden_states):
            usual: torch.Tensor = super().forward(hidden_states, output_size)
            return usual
        if not _plain(conv) or tuple(output_size or doubled) != doubled:
            enlarged: torch.Tensor = conv(functional.interpolate(hidden_states, output_size or doubled, mode="nearest"))
            return enlarged
        enlarged = functional.conv_transpose2d(hidden_states, _doubling(conv.weight), stride=2, padding=1)
        if conv.bias is not None:  # within, its gradient takes as long as half of the kernel's
            enlarged = enlarged + conv.bias[:, None, None]
        return enlarged


def _doubling(weight: torch.Tensor) -> torch.Tensor:
    """OI33 -> IO44, in channels-last: each of 16 positions is a sum of some of the 9, which is a matrix product."""
    outputs, inputs = weight.shape[:2]
    nine = weight.permute(1, 2, 3, 0).contiguous().view(inputs, 9, outputs)
    sums = torch.tensor(SUMS, dtype=weight.dtype, device=weight.device)
    with torch.autocast(weight.device.type, enabled=False):  # half precision rounds the sums, and not what they add
        sixteen = torch.kron(sums, sums) @ nine
    return sixteen.view(inputs, 4, 4, outputs).permute(0, 3, 1, 2)


def _plain(conv: nn.Module) -> bool:
    """Whether a layer is a convolution of 3 x 3 that keeps the size, with zeros around, and not an adapter's."""
    return type(conv) is nn.Conv2d and (
        (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode) == (1, "zeros")
    )


class LeanTransformer(Transformer2DModel):
    """Attention over pixels that ends in the layout that it began in."""

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether it works on pictures."""
        return bool(layer.is_input_continuous)

    def _get_output_for_continuous_inputs(
        self, hidden_states: torch.Tensor, residual: torch.Tensor, batch_size: int, height: int, width: int,
        inner_dim: int,
    ) -> torch.Tensor:  # fmt: skip
        rows = self.proj_out(hidden_states) if self.use_linear_projection else hidden_states
        picture = rows.view(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)  # a view in channels-last
        return residual + (picture if self.use_linear_projection else self.proj_out(picture))


class LeanGeglu(GEGLU):
    """A gated layer whose two sides are products of their own, so that neither is cut out of what both wrote."""

    @staticmethod
    def fits(_layer: Any) -> bool:
        """Always: whether there is an adapter is seen each time."""
        return True

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """[..., C] -> [..., D]."""
        proj = self.proj
        if type(proj) is not nn.Linear:
            usual: torch.Tensor = super().forward(hidden_states)
            return usual
        biases = (None, None) if proj.bias is None else proj.bias.chunk(2)
        value, gate = (
            functional.linear(hidden_states, weight, bias)
            for weight, bias in zip(proj.weight.chunk(2), biases, strict=True)
        )
        gated: torch.Tensor = value * self.gelu(gate)
        return gated


class LeanAttention:
    """Attention by plain matrix products where the scores are few, else by torch's kernel."""

    def __init__(self) -> None:
        self.few, self.many = AttnProcessor(), AttnProcessor2_0()

    @staticmethod
    def fits(layer: Any) -> bool:
        """Whether both ways are of the same precision, and no other was chosen."""
        return type(layer.processor) is AttnProcessor2_0 and not (layer.upcast_attention or layer.upcast_softmax)

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, temb: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Rows, or NCHW -> the same shape."""
        queries = math.prod(hidden_states.shape[2:]) if hidden_states.ndim == 4 else hidden_states.shape[1]
        keys = queries if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        chosen = self.few if queries * keys <= FEW else self.many
        attended: torch.Tensor = chosen(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return attended


LEANER: dict[type, Any] = {
    GEGLU: LeanGeglu,
    nn.Conv2d: LeanConvolution,
    ResnetBlock2D: LeanResidual,
    Upsample2D: LeanUpsample,
    Transformer2DModel: LeanTransformer,
}


def _channels_last(picture: torch.Tensor) -> bool:
    return picture.ndim == 4 and picture.is_contiguous(memory_format=torch.channels_last)
