"""Several processes that train together: one model, the batch shared out among them.

Each process draws the whole batch's randomness from (seed, step) and works on its rows, and gradients are averaged: the
number of processes changes results by rounding alone, and a training goes on with another number of them.
Two ways: :class:`Copies` (torch's DistributedDataParallel, Li et al. 2020) and :class:`Shards` (torch's
``fully_shard``, after ZeRO-3, Rajbhandari et al. 2020). :mod:`darkroom.training.launch` starts the processes.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from darkroom.errors import DarkroomError, RecipeError

from .events import Events
from .job import Job
from .methods import Batch, Method, Player
from .methods.base import Loss
from .team import Groups, Team

PARTING_SECONDS = 0.01
TIMEOUT = timedelta(hours=1)  # others wait while the first validates; one that died is seen by the launcher, at once


@contextlib.contextmanager
def joined(job: Job) -> Iterator[tuple[Job, Team]]:
    """Join the processes that :mod:`launch` started; (the job with this process's device, the team)."""
    job = replace(job, device=_own_device(job.device))
    backend = "cpu:gloo,cuda:nccl" if job.device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield job, TEAMS[job.train.distributed.strategy](torch.device(job.device))
    finally:
        dist.destroy_process_group()


def _own_device(device: str) -> str:
    if device == "cpu":
        return device
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device != "cuda":
        raise RecipeError(
            f"DARKROOM_DEVICE={device} is one device, or of a kind that cannot be shared: several processes "
            "(train.distributed.processes) work on cuda or on cpu"
        )
    if (found := torch.cuda.device_count()) < here:
        raise RecipeError(
            f"train.distributed.processes asks for {here} processes here, where {found} devices are: lower it"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


class _Heard(Events):
    """The events that the first process has, to know what was said; this process says nothing."""

    def __init__(self, kept: list[dict[str, Any]], step: int) -> None:
        self.kept, self._step = kept, step

    def close(self) -> None:
        """Nothing is open."""

    def say(self, step: int, **content: Any) -> None:
        """Keep silent."""


class Processes(Team):
    """What both ways have in common."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.rank, self.size = device, dist.get_rank(), dist.get_world_size()
        self.leads = self.rank == 0

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """The others wait; where the first fails, they fail for want of it."""
        if not self.leads:
            self.any(False)
        yield
        if self.leads:
            self.any(False)

    def events(self, work: Path, step: int) -> Events:
        """The first process's file; raises :class:`DarkroomError` where processes see different checkpoints."""
        steps: list[Any] = [None] * self.size
        dist.all_gather_object(steps, step)
        if len(set(steps)) > 1:
            raise DarkroomError(
                f"the processes go on from different steps ({', '.join(map(str, steps))}): let all machines see the "
                f"same {work}"
            )
        events = Events(work, step) if self.leads else None
        kept = self.heard(events.kept if events else [])
        return events or _Heard(kept, step)

    def share(self, batch: Batch) -> Batch:
        """Equal consecutive parts, in the order of the processes."""
        size = len(batch) // self.size
        return batch.part(self.rank * size, (self.rank + 1) * size)

    def mean(self, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Means of scalars, in one exchange; on the CPU."""
        values = torch.stack([value.detach().cpu().double() for value in told.values()])
        dist.all_reduce(values)
        return dict(zip(told, (values / self.size).unbind(), strict=True))

    def heard(self, found: Any) -> Any:
        """What the first process found, so that all decide alike."""
        objects = [found]
        dist.broadcast_object_list(objects, src=0, device=torch.device("cpu"))
        return objects[0]

    def any(self, asked: bool) -> bool:
        """Whether any was asked: all end after the same step."""
        flag = torch.tensor(int(asked))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def part(self) -> None:
        """Wait for all, by other means than the connections that are about to close."""
        self.any(False)  # the first may have been writing
        store = dist.distributed_c10d._get_default_store()
        store.add("ready", 1)
        while store.add("ready", 0) < self.size:
            time.sleep(PARTING_SECONDS)
        store.add("gone", 1)
        while self.leads and store.add("gone", 0) < self.size:  # it may be the one that keeps the store
            time.sleep(PARTING_SECONDS)


class _Asked(torch.nn.Module):
    """A player's loss as a module's ``forward``, which is what DistributedDataParallel can wrap.

    It owns the player's parameters and nothing else: so any method works that leaves gradients in them, also one whose
    loss runs through another player.
    """

    def __init__(self, task: Method, player: Player) -> None:
        super().__init__()
        self.trained = torch.nn.ParameterList(player.parameters.values())
        self.ask = lambda part, step: task.loss(player, part, step)
        self.found: Loss | None = None

    def forward(self, part: Batch, step: int) -> torch.Tensor:
        self.found = self.ask(part, step)
        return self.found.value


class Copies(Processes):
    """Each process holds the whole model; gradients are averaged while ``backward`` works."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.looks = self.leads
        self._wrapped: dict[str, DistributedDataParallel] = {}

    def loss(self, task: Method, player: Player, part: Batch, step: int, last: bool) -> Loss:
        """Gradients are exchanged in the last part's ``backward``."""
        if player.name not in self._wrapped:  # parts of a model that a batch leaves out have no gradients: unused
            self._wrapped[player.name] = DistributedDataParallel(_Asked(task, player), find_unused_parameters=True)
        wrapped = self._wrapped[player.name]
        with contextlib.nullcontext() if last else wrapped.no_sync():
            value = wrapped(part, step)
        asked: Any = wrapped.module
        return Loss(value, asked.found.metrics)


class Shards(Processes):
    """Each process holds its share of all weights, averages and moments, and gathers a block when it is needed.

    So all take part wherever the model is asked. The model is built whole on each process, then cut.
    """

    def enlist(self, players: Sequence[Player]) -> None:
        """Cut the model: each block by itself, the rest with the root."""
        if len(players) > 1:
            raise RecipeError(
                'train.distributed.strategy = "fsdp" cannot train two networks against each other: set it to "ddp"'
            )
        (player,) = players
        module = player.module
        self._classes = [(part, type(part)) for part in module.modules()]
        names = {id(value): name for name, value in module.named_parameters()}
        for value in module.parameters():
            value.data = value.data.contiguous()  # shards have no memory format
        mesh = init_device_mesh(self.device.type, (self.size,))
        for child in module.children():
            for block in child if isinstance(child, torch.nn.ModuleList) else ():
                fully_shard(block, mesh=mesh)
        # By default the root stays whole after a forward pass, and would not see the averaged weights come and go.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)

        cut = dict(module.named_parameters())
        for group in player.optimizer.param_groups:
            group["params"] = [cut[names[id(value)]] for value in group["params"]]
        player.parameters = {name: cut[names[id(value)]] for name, value in player.parameters.items()}
        if player.ema is not None:
            player.ema.average = {name: value.detach().clone() for name, value in player.parameters.items()}

    def cut(self, players: Sequence[Player], saved: Groups) -> Groups:
        """Cut as the model is cut; any number of processes may have saved it."""
        cut: Groups = {}
        for player in players:
            listed = [value for group in player.optimizer.param_groups for value in group["params"]]
            like = {name: value for suffix in ("", "-ema") for name, value in _keyed(player, suffix)}
            like |= {f"{player.name}-optimizer/{index}": value for index, value in enumerate(listed)}
            for group, tensors in saved.items():
                if group.partition("-")[0] != player.name:
                    continue
                for name, value in tensors.items():
                    key = f"{group}/{name.split('.', 1)[0] if group.endswith('-optimizer') else name}"
                    cut.setdefault(group, {})[name] = _cut(value, like.get(key))
        return cut

    def whole(self, value: torch.Tensor) -> torch.Tensor:
        """Gathered from all processes, which must all ask."""
        return value.full_tensor() if isinstance(value, DTensor) else value

    def gathered(self, groups: Groups) -> Groups:
        """Whole tensors on the first process, none on the others."""
        return {
            group: {name: kept for name, value in tensors.items() if (kept := self._kept(value)) is not None}
            for group, tensors in groups.items()
        }

    def _kept(self, value: torch.Tensor) -> torch.Tensor | None:
        """On the first process the whole tensor, out of the device's memory; elsewhere nothing is kept."""
        whole = self.whole(value)
        return whole.cpu() if self.leads else None

    @torch.no_grad()
    def collect(self, player: Player) -> None:
        """The model of the first process becomes an ordinary one on the CPU, with the weights it has now."""
        for name, value in list(player.module.named_parameters()):
            whole = self._kept(value)
            if whole is not None:
                owner, _, leaf = name.rpartition(".")
                setattr(player.module.get_submodule(owner), leaf, torch.nn.Parameter(whole, value.requires_grad))
        for part, kind in self._classes:  # fully_shard gave them classes of its own, whose names would be saved
            part.__class__ = kind


def _keyed(player: Player, suffix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in player.parameters.items():
        yield f"{player.name}{suffix}/{name}", value


def _cut(value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    """This process's share, cut as ``like`` is; a scalar such as a step count stays whole."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    here = value.to(like.device)
    return distribute_tensor(here, like.device_mesh, like.placements, src_data_rank=None)


TEAMS: dict[str, type[Processes]] = {"ddp": Copies, "fsdp": Shards}
