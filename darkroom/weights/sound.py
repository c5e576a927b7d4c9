"""Whether a folder of weights is whole: told from names and headers, before anything is loaded from it."""

import json
from pathlib import Path

CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")  # any of them will do
SCHEDULER = "scheduler_config.json"
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit


def part_fault(place: Path, part: str) -> str | None:
    """What a folder lacks to be a recipe's ``model.<part>``: an autoencoder, or a text encoder with its tokenizer.

    It has them at its top or, as a pipeline does, in folders of these names.
    """
    inside = next((place / name for name in (part, part.rstrip("_0123456789")) if (place / name).is_dir()), place)
    if fault := _weights_fault(inside):
        return fault
    words = inside.with_name(inside.name.replace("text_encoder", "tokenizer")) if inside != place else place
    return tokenizer_fault(words) if part.startswith("text_encoder") else None


def _weights_fault(folder: Path) -> str | None:
    if not (folder / CONFIG).is_file():
        return f"{folder} has no {CONFIG}"
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return f"{folder} has no weights in safetensors"
    return next((f"{path} is no whole safetensors file" for path in files if not is_whole(path)), None)


def tokenizer_fault(folder: Path) -> str | None:
    """What a folder lacks to be a tokenizer."""
    if any((folder / name).is_file() for name in TOKENIZERS):
        return None
    return f"{folder} has no tokenizer ({', '.join(TOKENIZERS)})"


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says; a download or copy that broke off is not."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEADER:
                return False
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return bool(path.stat().st_size == 8 + length + max(ends, default=0))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False
