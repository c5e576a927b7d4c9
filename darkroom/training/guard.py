"""The guard against steps that would spoil a model: what is not finite, or leaps out of what was usual."""

import math
from statistics import median
from typing import Any

from darkroom.recipe_training import Guard as Plan

RECENT = 100  # steps whose gradient norms are remembered
LEAST = 20  # of them, before one can leap


class Guard:
    """Judges steps before they are applied. It changes with what it saw and returns, both part of every checkpoint."""

    def __init__(self, plan: Plan, clip: float | None) -> None:
        self.plan, self.clip = plan, clip or 0.0
        self.refusals: list[dict[str, Any]] = []  # those that were answered by going back, as events tell them
        self.norms: dict[str, list[float]] = {}

    @property
    def returns(self) -> int:
        """How often it was gone back."""
        return len(self.refusals)

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by."""
        return self.plan.rate_factor**self.returns

    def objection(self, player: str, loss: float, norm: float) -> str | None:
        """Why a step must not be applied, or None.

        A norm that leaps is one above ``spike`` times the median of the player's last norms and above the norm that
        gradients are clipped to: below that it is what the recipe calls a usual size.
        """
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        recent = self.norms.setdefault(player, [])
        if self.plan.spike is not None and len(recent) >= LEAST:
            usual = median(recent)
            if norm > max(self.plan.spike * usual, self.clip):
                return f"the gradient's norm is {norm:.3g}, {norm / max(usual, 1e-30):.0f} times its recent median"
        recent.append(norm)
        del recent[:-RECENT]
        return None

    def facts(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"refusals": self.refusals, "norms": {name: list(norms) for name, norms in self.norms.items()}}

    def set(self, facts: dict[str, Any]) -> None:
        """The reverse of :meth:`facts`."""
        self.refusals = list(facts["refusals"])
        self.norms = {name: list(norms) for name, norms in facts["norms"].items()}
