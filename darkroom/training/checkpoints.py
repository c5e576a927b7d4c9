"""Checkpoints that survive a kill at any moment: written beside, flushed, moved into place, verified before use."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from darkroom.store import file_digest, write_json

if TYPE_CHECKING:
    import torch

    from .methods import Player

KEEP = 2  # the newest and the one before it, should the newest prove damaged
START = "start"  # the state before the first step, until there is a later one


class Saved(NamedTuple):
    """A checkpoint that was read back."""

    step: int
    groups: "dict[str, dict[str, torch.Tensor]]"
    damaged: tuple[str, ...] = ()
    """Newer checkpoints, whose files are not what was written."""


def state(players: "Sequence[Player]") -> "dict[str, dict[str, torch.Tensor]]":
    """All that changes while players train, in named groups of tensors."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for player in players:
        groups[player.name] = {name: value.detach() for name, value in player.parameters.items()}
        groups[f"{player.name}-buffers"] = dict(player.module.named_buffers())
        groups[f"{player.name}-ema"] = player.ema.average if player.ema is not None else {}
        groups[f"{player.name}-optimizer"] = optimizer_tensors(player.optimizer)
    return {name: group for name, group in groups.items() if group}


def numbers(players: "Sequence[Player]") -> dict[str, Any]:
    """What their optimisers remember that is no tensor, such as Prodigy's estimate of the rate."""
    return {player.name: optimizer_numbers(player.optimizer) for player in players}


def restore(
    players: "Sequence[Player]",
    groups: "dict[str, dict[str, torch.Tensor]]",
    numbers: dict[str, Any] | None = None,
) -> None:
    """Put players where :func:`state` and :func:`numbers` found them."""
    import torch

    with torch.no_grad():
        for player in players:
            places = {"": player.parameters, "-buffers": dict(player.module.named_buffers())}
            if player.ema is not None:
                places["-ema"] = player.ema.average
            for suffix, tensors in places.items():
                saved = groups.get(player.name + suffix, {})
                for name, value in tensors.items():
                    value.copy_(saved[name])
            remembered = (numbers or {}).get(player.name)
            restore_optimizer(player.optimizer, groups.get(f"{player.name}-optimizer", {}), remembered)


def room(players: "Sequence[Player]", best: bool = False) -> int:
    """Bytes that training needs: weights, averages and two moments in each checkpoint that is kept and in one being
    written, with ``best`` the best weights too, and the finished model.
    """
    total = 0
    copies = 5 if best else 4
    for player in players:
        size = sum(value.numel() * value.element_size() for value in player.parameters.values())
        whole = sum(value.numel() * value.element_size() for value in player.module.parameters())
        total += size * copies * (KEEP + 1) + whole
    return total


def save(work: Path, step: int, tensors: "dict[str, dict[str, torch.Tensor]]") -> None:
    """Write the state after ``step`` steps, each named group in a safetensors file of its own; then drop old ones."""
    write(work, f"step-{step:08d}", step, tensors)
    for old in [*found(work)[KEEP:], work / "checkpoints" / START]:
        shutil.rmtree(old, ignore_errors=True)


def save_start(work: Path, tensors: "dict[str, dict[str, torch.Tensor]]") -> None:
    """Write the state before the first step: what is gone back to before there is another."""
    write(work, START, 0, tensors)


def write(work: Path, name: str, step: int, tensors: "dict[str, dict[str, torch.Tensor]]") -> None:
    """Write one checkpoint: beside, flushed, moved into place."""
    from safetensors.torch import save_file

    folder = work / "checkpoints"
    final = folder / name
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    digests = {}
    for group, values in tensors.items():
        path = temporary / f"{group}.safetensors"
        save_file(_apart(values), path)
        digests[path.name] = file_digest(path)
    write_json(temporary / "state.json", {"step": step, "files": digests})
    for path in [*temporary.iterdir(), temporary]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)


def _apart(values: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Contiguous tensors that share no memory, as safetensors wants them (8-bit moments share their code book)."""
    seen: set[int] = set()
    apart = {}
    for name, value in values.items():
        made = value.contiguous()
        apart[name] = made.clone() if made.data_ptr() in seen else made
        seen.add(made.data_ptr())
    return apart


def found(work: Path) -> list[Path]:
    """The checkpoint folders of a work folder, newest first."""
    folders = [path for path in (work / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d{8}", path.name)]
    return sorted(folders, reverse=True)


def newest(work: Path) -> Saved | None:
    """The newest checkpoint whose files are what was written; damaged ones are passed over."""
    from safetensors.torch import load_file

    damaged: list[str] = []
    for folder in [*found(work), work / "checkpoints" / START]:
        if not folder.is_dir():
            continue
        try:
            state: dict[str, Any] = json.loads((folder / "state.json").read_text("utf-8"))
            if all(file_digest(folder / name) == digest for name, digest in state["files"].items()):
                groups = {Path(name).stem: load_file(folder / name) for name in state["files"]}
                return Saved(int(state["step"]), groups, tuple(damaged))
        except (OSError, ValueError, KeyError):
            pass
        print(f"checkpoint {folder.name} is damaged and is not used", flush=True)
        damaged.append(folder.name)
    return None


def optimizer_tensors(optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    """The tensors of the optimiser's state, ``"<parameter>.<name>"``."""
    return {name: value for name, value in _state_of(optimizer) if _is_tensor(value)}


def optimizer_numbers(optimizer: "torch.optim.Optimizer") -> dict[str, Any]:
    """The numbers of the optimiser's state, and those of its groups."""
    groups = [
        {name: value for name, value in group.items() if isinstance(value, int | float)}
        for group in optimizer.param_groups
    ]
    return {
        "groups": groups,
        "state": {name: value for name, value in _state_of(optimizer) if isinstance(value, int | float)},
    }


def restore_optimizer(
    optimizer: "torch.optim.Optimizer", tensors: "dict[str, torch.Tensor]", numbers: dict[str, Any] | None = None
) -> None:
    """The reverse of :func:`optimizer_tensors` and :func:`optimizer_numbers`.

    Moments get their parameters' memory layout back: fused AdamW walks raw memory, and moments in another order than
    their channels-last weights would meet the wrong ones.
    """
    import torch

    numbers = numbers or {"groups": [{} for _ in optimizer.param_groups], "state": {}}
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *numbers["state"].items()]:
        index, *names, name = key.split(".")
        place = state.setdefault(int(index), {})
        for outer in names:
            place = place.setdefault(outer, {})
        place[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if _is_tensor(value) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    for group, known in zip(optimizer.param_groups, numbers["groups"], strict=True):
        group.update(known)


def _state_of(optimizer: "torch.optim.Optimizer") -> "list[tuple[str, Any]]":
    return _flat(optimizer.state_dict()["state"])


def _flat(table: dict[Any, Any], prefix: str = "") -> "list[tuple[str, Any]]":
    """Nested tables as one with dotted names; bitsandbytes nests its moments."""
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)
