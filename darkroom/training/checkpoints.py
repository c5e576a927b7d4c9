"""Checkpoints that survive a kill at any moment: written beside, flushed, moved into place, verified before use."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.store import file_digest, write_json

if TYPE_CHECKING:
    import torch

    from .methods import Player

KEEP = 2  # the newest and the one before it, should the newest prove damaged


def state(players: "Sequence[Player]") -> "dict[str, dict[str, torch.Tensor]]":
    """All that changes while players train, in named groups of tensors."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for player in players:
        groups[player.name] = {name: value.detach() for name, value in player.parameters.items()}
        groups[f"{player.name}-buffers"] = dict(player.module.named_buffers())
        groups[f"{player.name}-ema"] = player.ema.average if player.ema is not None else {}
        groups[f"{player.name}-optimizer"] = optimizer_tensors(player.optimizer)
    return {name: group for name, group in groups.items() if group}


def restore(players: "Sequence[Player]", groups: "dict[str, dict[str, torch.Tensor]]") -> None:
    """Put players where :func:`state` found them."""
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
            restore_optimizer(player.optimizer, groups.get(f"{player.name}-optimizer", {}))


def room(players: "Sequence[Player]") -> int:
    """Bytes that training needs: weights, averages and two moments in each checkpoint that is kept and in one being
    written, and the finished model.
    """
    total = 0
    for player in players:
        size = sum(value.numel() * value.element_size() for value in player.parameters.values())
        whole = sum(value.numel() * value.element_size() for value in player.module.parameters())
        total += size * 4 * (KEEP + 1) + whole
    return total


def save(work: Path, step: int, tensors: "dict[str, dict[str, torch.Tensor]]") -> None:
    """Write the state after ``step`` steps, each named group in a safetensors file of its own; then drop old ones."""
    from safetensors.torch import save_file

    folder = work / "checkpoints"
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    digests = {}
    for name, group in tensors.items():
        path = temporary / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in group.items()}, path)
        digests[path.name] = file_digest(path)
    write_json(temporary / "state.json", {"step": step, "files": digests})
    for path in [*temporary.iterdir(), temporary]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for old in found(work)[KEEP:]:
        shutil.rmtree(old)


def found(work: Path) -> list[Path]:
    """The checkpoint folders of a work folder, newest first."""
    folders = [path for path in (work / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d{8}", path.name)]
    return sorted(folders, reverse=True)


def newest(work: Path) -> "tuple[int, dict[str, dict[str, torch.Tensor]]] | None":
    """(step, groups) of the newest checkpoint whose files are what was written; damaged ones are passed over."""
    from safetensors.torch import load_file

    for folder in found(work):
        try:
            state: dict[str, Any] = json.loads((folder / "state.json").read_text("utf-8"))
            if all(file_digest(folder / name) == digest for name, digest in state["files"].items()):
                groups = {Path(name).stem: load_file(folder / name) for name in state["files"]}
                return int(state["step"]), groups
        except (OSError, ValueError, KeyError):
            pass
        print(f"checkpoint {folder.name} is damaged and is not used", flush=True)
    return None


def optimizer_tensors(optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    """The optimiser's state as flat tensors, ``"<parameter>.<name>"``."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: "torch.optim.Optimizer", tensors: "dict[str, torch.Tensor]") -> None:
    """The reverse of :func:`optimizer_tensors`.

    Moments get their parameters' memory layout back: fused AdamW walks raw memory, and moments in another order than
    their channels-last weights would meet the wrong ones.
    """
    import torch

    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
