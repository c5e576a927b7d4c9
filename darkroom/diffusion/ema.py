"""The average of the weights over training, which draws better pictures than the last weights do."""

from collections.abc import Mapping
from typing import Any

import torch


class Ema:
    """Exponential moving average of a model's parameters, warmed up so that early weights are soon forgotten.

    The decay of step n (from 0) is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, torch.Tensor], step: int) -> None:
        """Take in the parameters after step ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [parameters[name] for name in self.average], 1 - decay)


class Averaged:
    """Within it a model has its averaged weights, if there are any, and is set to evaluate."""

    def __init__(self, model: Any, parameters: Mapping[str, torch.Tensor], ema: Ema | None) -> None:
        self.model, self.parameters, self.ema = model, parameters, ema

    def __enter__(self) -> None:
        if self.ema is not None:
            self._own = {name: value.detach().clone() for name, value in self.parameters.items()}
            self._set(self.ema.average)
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        if self.ema is not None:
            self._set(self._own)
        self.model.train()

    @torch.no_grad()
    def _set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
