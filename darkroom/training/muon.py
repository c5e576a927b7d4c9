"""Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), beside AdamW in one optimiser.

The momentum of each inner matrix is replaced by the nearest matrix with orthonormal rows or columns. A convolution
[out, in, h, w] is the matrix [out, in h w], as Jordan et al. train theirs: it is applied to unfolded patches. Biases,
norms, embeddings, and the first and last convolution are not such matrices, and are left to AdamW.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim._muon import muon
from torch.optim.adamw import adamw

OUTER = ("conv_in", "conv_out", "proj_out", "embed")  # in the names of layers that are not hidden ones
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic's coefficients, as Jordan et al. give them


class Muon(torch.optim.Optimizer):
    """Muon where it fits, AdamW elsewhere, at one rate.

    Updates are scaled to AdamW's usual size, 0.2 sqrt(max(rows, columns)) (Liu et al. 2025, "Muon is scalable for LLM
    training"), so that a learning rate that suits AdamW suits both.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        rate: float,
        weight_decay: float,
        momentum: float,
        betas: tuple[float, float],
    ) -> None:
        hidden = {name for name, value in parameters.items() if is_hidden(name, value)}
        rest = {name: value for name, value in parameters.items() if name not in hidden}
        groups = [
            {"params": [parameters[name] for name in parameters if name in hidden], "matrices": True},
            {"params": [value for value in rest.values() if value.ndim > 1], "matrices": False},
            {"params": [value for value in rest.values() if value.ndim <= 1], "matrices": False, "weight_decay": 0.0},
        ]
        defaults = {"lr": rate, "weight_decay": weight_decay, "momentum": momentum, "betas": betas}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on all parameters that have a gradient; there is no closure to ask again."""
        assert closure is None
        for group in self.param_groups:
            with_gradient = [value for value in group["params"] if value.grad is not None]
            (self._orthogonal if group["matrices"] else self._adamw)(group, with_gradient)

    def _orthogonal(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        for value in parameters:
            state = self.state[value]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(value)
        muon(
            [_matrix(value, value) for value in parameters],
            [_matrix(value, value.grad) for value in parameters],  # type: ignore[arg-type]
            [_matrix(value, self.state[value]["momentum_buffer"]) for value in parameters],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=True,
            ns_coefficients=NEWTON_SCHULZ,
            ns_steps=5,
            eps=1e-7,
            adjust_lr_fn="match_rms_adamw",
            has_complex=False,
        )

    def _adamw(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        for value in parameters:
            state = self.state[value]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=value.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)
        if not parameters:
            return
        adamw(
            parameters,
            [value.grad for value in parameters if value.grad is not None],
            [self.state[value]["exp_avg"] for value in parameters],
            [self.state[value]["exp_avg_sq"] for value in parameters],
            [],
            [self.state[value]["step"] for value in parameters],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def is_hidden(name: str, value: torch.Tensor) -> bool:
    """Whether a parameter is a matrix between hidden features."""
    return value.ndim >= 2 and not any(word in name for word in OUTER)


def _matrix(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of a parameter's shape as [rows, columns]; of the parameter itself and of its momentum, a view.

    In channels-last memory the columns come in another order, the same for all: orthogonalisation does not mind.
    """
    if parameter.is_contiguous():
        return tensor.reshape(len(tensor), -1)
    return tensor.movedim(1, -1).reshape(len(tensor), -1)
