"""A player's parameters one after the other in rows of memory: an update is a kernel for a row, not one for each.

To call kernels for each of a small network's parameters takes longer than to update them. Each stays what it was, with
its name and shape, as a part of a row; so do its gradient, its average and AdamW's moments.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from darkroom.diffusion.ema import Ema

from .methods import Player

ALIGNED = 16  # numbers of 4 bytes: a part begins where memory of its own would
SMALL = 2**14  # numbers a parameter, above which a kernel for each is as good
MOMENTS = ("exp_avg", "exp_avg_sq")


class Rows:
    """A row for each group of a player's optimiser, and as many for gradients, averages and each of the two moments."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._groups: list[list[torch.nn.Parameter]] = [group["params"] for group in player.optimizer.param_groups]
        rows = {str(index): torch.nn.Parameter(_row(group)) for index, group in enumerate(self._groups)}
        options = [
            {**group, "params": [row]} for group, row in zip(player.optimizer.param_groups, rows.values(), strict=True)
        ]
        ema = None if player.ema is None else Ema(rows, player.ema.decay)
        self._whole = Player(player.name, player.module, rows, torch.optim.AdamW(options), ema)
        self._gradients: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._filled = False
        names = {id(value): name for name, value in player.parameters.items()}
        for group, (index, row) in zip(self._groups, rows.items(), strict=True):
            row.grad = torch.zeros_like(row)
            self._gradients += _parts(row.grad, group)
            for value, part in _parts(row.detach(), group):
                value.data = part
            if player.ema is not None and ema is not None:
                average = player.ema.average
                for value, part in _parts(ema.average[index], group):
                    average[names[id(value)]] = part.copy_(average[names[id(value)]])
        self.fill()

    @staticmethod
    def fit(player: Player) -> bool:
        """Whether AdamW updates it on a CPU in float32, and its parameters are small and have no gaps in memory."""
        listed = [value for group in player.optimizer.param_groups for value in group["params"]]
        return (
            type(player.optimizer) is torch.optim.AdamW
            and not any(group["amsgrad"] for group in player.optimizer.param_groups)
            and {id(value) for value in listed} == {id(value) for value in player.parameters.values()}
            and all((value.device.type, value.dtype) == ("cpu", torch.float32) and _dense(value) for value in listed)
            and sum(value.numel() for value in listed) <= SMALL * len(listed)
        )

    def fill(self) -> None:
        """Take the optimiser's moments into the rows, unless some parameters were left out of some steps."""
        state = self._player.optimizer.state
        states = [[state[value] for value in group] for group in self._groups]
        counts = {float(known["step"]) if known else 0.0 for group in states for known in group}
        self._filled = len(counts) == 1
        if not self._filled:
            for value, _ in self._gradients:
                value.grad = None
            return
        (count,) = counts
        for group, known, row in zip(self._groups, states, self._whole.parameters.values(), strict=True):
            kept = {name: torch.zeros_like(row) for name in MOMENTS} | {"step": torch.tensor(count)}
            for name in MOMENTS:
                for one, (_, part) in zip(known, _parts(kept[name], group), strict=True):
                    one[name] = part.copy_(one[name]) if name in one else part
            for one in known:
                one["step"] = kept["step"]
            self._whole.optimizer.state[row] = kept

    def taken(self) -> Player | None:
        """The player with its rows as parameters, its rates, and all gradients in them; of what has none, zeros.

        None where each parameter has to be updated by itself.
        """
        if not self._filled:
            return None
        for value, part in self._gradients:
            if value.grad is part:
                continue
            if value.grad is None:
                part.zero_()
            else:
                part.copy_(value.grad)
            value.grad = part
        groups = zip(self._whole.optimizer.param_groups, self._player.optimizer.param_groups, strict=True)
        for group, own in groups:
            group["lr"] = own["lr"]
        return self._whole

    def clear(self) -> None:
        """Forget gradients; the next are added where they belong."""
        for row in self._whole.parameters.values():
            assert row.grad is not None
            row.grad.zero_()
        for value, part in self._gradients:
            value.grad = part if self._filled else None


def _row(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """A copy of tensors in the order in which they lie in memory, each filled up with zeros."""
    pieces = []
    for value in tensors:
        pieces += [value.detach().as_strided((value.numel(),), (1,)), value.new_zeros(-value.numel() % ALIGNED)]
    return torch.cat(pieces)


def _parts(row: torch.Tensor, like: Iterable[Any]) -> Iterator[tuple[Any, torch.Tensor]]:
    """Each of the tensors that a row was made of, and its part of the row, laid out as it is."""
    start = 0
    for value in like:
        yield value, row.as_strided(value.shape, value.stride(), start)
        start += value.numel() + -value.numel() % ALIGNED


def _dense(value: torch.Tensor) -> bool:
    """Whether memory holds its numbers and nothing between them."""
    return value.is_contiguous() or value.is_contiguous(memory_format=torch.channels_last)
