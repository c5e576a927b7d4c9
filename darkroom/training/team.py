"""The processes that train together, as the loop sees them. Here the usual case: one, which shares with nobody.

Several are in :mod:`darkroom.training.distributed`, which a training by one process never imports.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .events import Events
from .methods import Batch, Method, Player
from .methods.base import Loss

Groups = dict[str, dict[str, torch.Tensor]]


class Team:
    """One process, that does all by itself."""

    rank, size = 0, 1
    """Which of the processes this is, and how many there are."""
    leads = True
    """Whether this process writes: events, grids, checkpoints, the model."""
    looks = True
    """Whether it takes part in validating and drawing."""

    def first(self) -> contextlib.AbstractContextManager[None]:
        """The context of what the first process does before the others, which find what it left in files."""
        return contextlib.nullcontext()

    def enlist(self, players: Sequence[Player]) -> None:
        """Get the players ready, before anything is restored; their parameters may be others afterwards."""

    def gathered(self, groups: Groups) -> Groups:
        """What the first process is to save of the tensors that all hold; all must ask."""
        return groups

    def cut(self, players: Sequence[Player], saved: Groups) -> Groups:  # noqa: ARG002
        """What this process holds of the tensors that were saved, to restore players from."""
        return saved

    def events(self, work: Path, step: int) -> Events:
        """What is said of this training, which goes on from ``step``."""
        return Events(work, step)

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a step's batch."""
        return batch

    def loss(self, task: Method, player: Player, part: Batch, step: int, last: bool) -> Loss:  # noqa: ARG002
        """The loss of a part; ``last``: the gradients are complete after its ``backward``."""
        return task.loss(player, part, step)

    def whole(self, value: torch.Tensor) -> torch.Tensor:
        """A tensor of which each process may hold a share; all must ask."""
        return value

    def mean(self, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Means over the processes of what each tells, by the same names."""
        return told

    def heard(self, found: Any) -> Any:
        """What the first process found, in all of them."""
        return found

    def any(self, asked: bool) -> bool:
        """Whether any process says so. None goes on before all were asked."""
        return asked

    def part(self) -> None:
        """Wait until all are about to leave: one that leaves early fails what the others still exchange."""

    def collect(self, player: Player) -> None:
        """Give the first process the whole weights, to save them. Nothing can be trained afterwards."""
