"""What the loop needs to know of a way to train."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from darkroom.diffusion.ema import Ema

from ..job import Job

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Batch:
    """A step's pictures with all that is random about them: rows of tensors, and whose rows they are."""

    ids: list[str]
    """sha256 of each picture's bytes, in the order of the rows."""
    tensors: dict[str, torch.Tensor]
    """Each [N, ...]."""

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, end: int) -> "Batch":
        """Some consecutive rows."""
        return Batch(self.ids[start:end], {name: value[start:end] for name, value in self.tensors.items()})


@dataclass
class Player:
    """Parameters that have a loss and an optimiser of their own. Most methods have one; adversaries are a second."""

    name: str
    module: Any
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema | None = None
    rate: float = 1.0
    """Its learning rate as a factor of the recipe's."""
    start: int = 0
    """The first step that it takes part in."""


@dataclass
class Loss:
    """A mean over a batch, and what else is worth telling."""

    value: torch.Tensor
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)


class Method(ABC):
    """A model, its data and its losses. Everything random follows from (seed, step)."""

    players: list[Player]
    """The first is the model; each is trained in every step, in this order."""
    halves = False
    """Whether two threads may ask for the loss of parts at once: it draws nothing and changes nothing but gradients."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device

    @property
    @abstractmethod
    def pictures(self) -> int:
        """How many pictures it learns from."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """The whole batch of a step, on the device."""

    @abstractmethod
    def loss(self, player: Player, batch: Batch, step: int) -> Loss:
        """The loss of one player on a batch or a part of one, ready for ``backward``."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Measures on the validation side; the first is the one that is to fall. Called with averaged weights."""

    @abstractmethod
    def sheet(self) -> "Image.Image":
        """Pictures on fixed noise and prompts. Called with averaged weights."""

    def networks(self) -> list[Any]:
        """What computes in each step, to be compiled and to recompute its activations where the recipe says so."""
        return [self.players[0].module]

    def largest(self) -> Batch:
        """A batch that takes as much memory as any: what is rehearsed before training."""
        return self.batch(0)

    def rehearse(self) -> None:
        """As much of :meth:`validate` as takes as much memory as all of it."""
        self.validate()

    def remarks(self) -> list[str]:
        """What its user should know before training, one sentence each."""
        return []

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the finished model into a new folder. Called with averaged weights."""
