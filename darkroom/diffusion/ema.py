"""The average of the weights over training, which draws better pictures than the last weights do."""

import torch


class Ema:
    """Exponential moving average of a model's parameters, warmed up so that early weights are soon forgotten.

    The decay of step n (from 0) is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, parameters: dict[str, torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, torch.Tensor], step: int) -> None:
        """Take in the parameters after step ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [parameters[name] for name in self.average], 1 - decay)
