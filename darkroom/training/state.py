"""All that changes while a model trains, as one thing that is saved and put back."""

import json
from pathlib import Path
from typing import Any

import torch

from darkroom.diffusion.ema import Averaged
from darkroom.errors import RecipeError

from . import checkpoints, compute
from .best import Best, Weights
from .checkpoints import Saved
from .guard import Guard
from .halves import Halves
from .job import Job
from .methods import Method, Player
from .rows import Rows
from .team import Team

BEST = "best"  # the group of a checkpoint that has the best weights
FACTS = "facts"  # the one that has what is no tensor, as JSON


class State:
    """The players with their averages and optimisers, the scales of fp16, the guard's memory and the best weights.

    ``team``: the processes that train together, which have enlisted the players; None: this one alone.
    """

    def __init__(self, task: Method, team: Team | None = None) -> None:
        plan = task.job.train
        self.players, self.team = task.players, team or Team()
        self.guard = Guard(plan.guard, plan.clip_gradient_norm)
        self.best = Best(plan)
        self.of = identity(task.job)
        self.halves = Halves(plan.threads) if self.team.size == 1 and Halves.fit(task) else None
        fit = [player for player in self.players if self.team.size == 1 and Rows.fit(player)]
        self._rows = {player.name: Rows(player) for player in fit}
        self._device, self._plan = task.device, plan
        self._fresh_scalers()

    def _fresh_scalers(self) -> None:
        made = ((player.name, compute.scaler(self._plan, self._device)) for player in self.players)
        self.scalers = {name: scaler for name, scaler in made if scaler is not None}

    def updated(self, player: Player) -> Player:
        """What is to be updated, with the gradients: the player, or its rows."""
        rows = self._rows.get(player.name)
        return (rows.taken() if rows is not None else None) or player

    def clear(self, player: Player) -> None:
        """Forget a player's gradients."""
        rows = self._rows.get(player.name)
        if rows is not None:
            rows.clear()
        else:
            player.optimizer.zero_grad(set_to_none=True)

    def save(self, work: Path, step: int) -> None:
        """Write the state after ``step`` steps as a checkpoint; of step 0, as what training starts from.

        When the first process has written it, all go on.
        """
        tensors = self.team.gathered(checkpoints.state(self.players))
        if self.best.weights:
            tensors[BEST] = self.best.weights
        facts = {
            "of": self.of,
            "optimizers": checkpoints.numbers(self.players),
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "guard": self.guard.facts(),
            "best": self.best.facts(),
        }
        tensors[FACTS] = {"json": torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)}
        if self.team.leads and step:
            checkpoints.save(work, step, tensors)
        elif self.team.leads:
            checkpoints.save_start(work, tensors)
        self.team.any(False)

    def load(self, saved: Saved) -> None:
        """Be as a checkpoint has it; raises :class:`RecipeError` when that is of another training."""
        facts = json.loads(bytes(saved.groups[FACTS]["json"].tolist()))
        if differing := sorted(name for name, value in self.of.items() if facts.get("of", self.of).get(name) != value):
            raise RecipeError(
                f"the checkpoint of step {saved.step} is of another training, whose {', '.join(differing)} "
                "differ: train in an empty folder, or go back to that recipe"
            )
        checkpoints.restore(self.players, self.team.cut(self.players, saved.groups), facts.get("optimizers"))
        for rows in self._rows.values():
            rows.fill()
        self._fresh_scalers()
        for name, scaler in self.scalers.items():
            scaler.load_state_dict(facts["scalers"][name])
        self.guard.set(facts["guard"])
        self.best.set(facts["best"], saved.groups.get(BEST, {}))

    def weights(self) -> Weights:
        """What is kept of the model when it is the best; called with averaged weights, by all processes."""
        values = {**self.players[0].parameters, **dict(self.players[0].module.named_buffers())}
        return {name: self.team.whole(value) for name, value in values.items()}

    @torch.no_grad()
    def take_best(self) -> None:
        """Give the model its best weights, where they are kept."""
        model = self.players[0]
        buffers = dict(model.module.named_buffers())
        for name, value in self.team.cut([model], {model.name: self.best.weights})[model.name].items():
            (model.parameters[name] if name in model.parameters else buffers[name]).copy_(value)
            if model.ema is not None and name in model.ema.average:
                model.ema.average[name].copy_(value)


def identity(job: Job) -> dict[str, Any]:
    """What a checkpoint belongs to: the data, the seed and the fields of the recipe that decide the result."""
    return {"data": job.digests["shards"], "seed": job.seed, "train": job.train.digest_fields()}


def averaged(player: Player) -> Averaged:
    """The context in which a player has its averaged weights."""
    return Averaged(player.module, player.parameters, player.ema)
