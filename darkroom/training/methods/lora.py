"""Low-rank adapters: the base stays as it is, and each adapted layer learns W + (alpha / rank) B A (Hu et al. 2021).

DoRA (Liu et al. 2024) also learns the magnitude of each of the sum's columns. What is left behind is an ordinary
pipeline with the adapters fused in, and the adapters alone in ``lora/``, in the form that ``load_lora_weights`` reads.
"""

import json
from pathlib import Path
from typing import Any

import torch

from darkroom.errors import RecipeError
from darkroom.randomness import seed_of

from .base import Batch, Loss, Player
from .denoise import Denoise

# The projections of attention, as diffusers names them; the second row are those of the text in joint attention.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FILE = "pytorch_lora_weights.safetensors"
FOLDER = "lora"


class Lora(Denoise):
    """Only adapters of the denoiser are trained, kept and averaged."""

    def player(self) -> Player:
        """The adapters, freshly injected; they change nothing until they are trained."""
        self.denoiser.requires_grad_(False)
        plan = self.job.train.lora
        targets = found_targets(self.denoiser, plan.targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.job.seed, "weights"))
            self.config = adapt(self.denoiser, plan, targets)
        self.denoiser.train()
        trained = {name: value for name, value in self.denoiser.named_parameters() if value.requires_grad}
        return self.playing(self.denoiser, trained)

    def loss(self, player: Player, batch: Batch, step: int) -> Loss:
        """As of all denoisers; what dropout leaves out follows from (seed, step) and the rows."""
        if self.job.train.lora.dropout:
            torch.manual_seed(seed_of(self.job.seed, "dropout", step, batch.ids[0]))
        return super().loss(player, batch, step)

    def save(self, folder: Path) -> None:
        """The adapters beside the pipeline, then the pipeline with them fused in; training cannot go on after it."""
        save_adapter(self.pipeline, self.family.denoiser, self.config, folder.parent / FOLDER)
        fuse(self.denoiser)
        super().save(folder)


def adapt(denoiser: Any, plan: Any, targets: list[str]) -> Any:
    """Inject adapters into the layers whose names end so; returns peft's configuration of them."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.rank if plan.alpha is None else plan.alpha,
        lora_dropout=plan.dropout,
        use_dora=plan.dora,
        target_modules=targets,
        init_lora_weights="gaussian",
    )
    if hasattr(denoiser, "add_adapter"):
        denoiser.add_adapter(config)
    else:
        inject_adapter_in_model(config, denoiser)
    for value in denoiser.parameters():
        if value.requires_grad:
            value.data = value.data.float()  # few, and small steps: half precision would lose them
    return config


def found_targets(denoiser: Any, asked: tuple[str, ...]) -> list[str]:
    """The ends of names to adapt: those that were asked for, else the attention layers that this denoiser has.

    Raises :class:`RecipeError` for one that no linear or convolutional layer has.
    """
    names = [name for name, layer in denoiser.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]

    def there(end: str) -> bool:
        return any(name == end or name.endswith(f".{end}") for name in names)

    if lacking := [end for end in asked if not there(end)]:
        raise RecipeError(
            f"train.lora.targets: no layer's name ends in {', '.join(lacking)}; there are {', '.join(endings(names))}"
        )
    found = list(asked) or [end for end in ATTENTION if there(end)]
    if not found:
        raise RecipeError(
            "train.lora.targets: this denoiser has no attention to adapt: name the ends of some of its layers, of "
            f"{', '.join(endings(names))}"
        )
    return found


def endings(names: list[str]) -> list[str]:
    """The last words of layers' names, with what comes before a number."""
    found = {".".join(name.split(".")[-2:]) if name.split(".")[-1].isdigit() else name.split(".")[-1] for name in names}
    return sorted(found)


def save_adapter(pipeline: Any, denoiser: str, config: Any, folder: Path) -> None:
    """Write the adapters as diffusers does, with peft's configuration in the metadata."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    module = getattr(pipeline, denoiser)
    layers = {name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(module).items()}
    if hasattr(pipeline, "save_lora_weights"):
        told = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
        type(pipeline).save_lora_weights(
            folder, **{f"{denoiser}_lora_layers": layers, f"{denoiser}_lora_adapter_metadata": told}
        )
        settle_metadata(folder / FILE)
    else:  # pipelines that read no adapters: for other tools, by the same names
        folder.mkdir(parents=True, exist_ok=True)
        save_file({f"{denoiser}.{name}": value for name, value in layers.items()}, folder / FILE, {"format": "pt"})


def settle_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in the order of its names: the library writes them in a random one."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the same entries take the same room"
        file.seek(8)
        file.write(text.ljust(size))


@torch.no_grad()
def fuse(denoiser: Any) -> None:
    """Add every adapter to its layer and take the adapters away: an ordinary denoiser again, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, layer) for name, layer in denoiser.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(denoiser.get_submodule(parent), last, layer.get_base_layer())
    for left in ("peft_config", "_hf_peft_config_loaded"):
        if hasattr(denoiser, left):
            delattr(denoiser, left)
    denoiser.requires_grad_(True)


METHOD = Lora
