"""The best weights so far, and when to stop because none are better any more."""

import math
from collections.abc import Callable
from typing import Any

import torch

from darkroom.recipe import Train

Weights = dict[str, torch.Tensor]


class Best:
    """Follows the validation loss, or the distance of drawn pictures.

    Its weights, on the CPU, and what it counted are part of every checkpoint.
    """

    def __init__(self, plan: Train) -> None:
        self.keeps = plan.keep == "best"
        self.stop = plan.early_stop
        self.loss, self.step = math.inf, 0
        self.mark, self.since = math.inf, 0  # the loss to beat by ``least_gain``, and validations that did not
        self.weights: Weights = {}

    @property
    def decides(self) -> bool:
        """Whether validation has a say in what is trained."""
        return self.keeps or self.stop is not None

    @property
    def exhausted(self) -> bool:
        """Whether training ends early."""
        return self.stop is not None and self.since >= self.stop.patience

    def take(self, step: int, loss: float, weights: Callable[[], Weights]) -> None:
        """A validation after ``step`` steps; ``weights`` are asked for when they are the best."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            if self.keeps:
                self.weights = {name: value.detach().to("cpu", copy=True) for name, value in weights().items()}
        least = self.stop.least_gain * abs(self.mark) if self.stop and not math.isinf(self.mark) else 0.0
        if loss < self.mark - least:  # a kernel distance may be below 0
            self.mark, self.since = loss, 0
        else:
            self.since += 1

    def facts(self) -> dict[str, Any]:
        """All but the weights, for a checkpoint; before the first validation there are none."""
        if math.isinf(self.loss) and not self.since:
            return {}
        return {"loss": self.loss, "step": self.step, "mark": self.mark, "since": self.since}

    def set(self, facts: dict[str, Any], weights: Weights) -> None:
        """The reverse of :meth:`facts`."""
        self.loss, self.step = float(facts.get("loss", math.inf)), int(facts.get("step", 0))
        self.mark, self.since = float(facts.get("mark", math.inf)), int(facts.get("since", 0))
        self.weights = weights
