"""What a folder or a repository must hold to be a pipeline that training can start from, and which of its files count.

A name on the hub often offers each weight several times: in half precision, as averages, for other frameworks, as one
file for other programs. Training wants one of them, in full precision, in safetensors, and nothing else.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from darkroom.errors import RecipeError

from . import sound

INDEX = "model_index.json"
# Parts that only look at finished pictures; training and drawing do without them.
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
WANTED = (".json", ".txt", ".model", ".jinja")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
PLAIN = re.compile(r"(?:diffusion_pytorch_)?model(?:-\d{5}-of-\d{5})?\.safetensors")

# The pipeline class of each family in a recipe; the families themselves take seconds to import.
CLASSES = {
    "stable-diffusion": "StableDiffusionPipeline",
    "stable-diffusion-xl": "StableDiffusionXLPipeline",
    "stable-diffusion-3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "dit": "DiTPipeline",
    "unconditional": "DDIMPipeline",
}


def components(index: dict[str, Any]) -> dict[str, str]:
    """The parts of a pipeline that are used, with their classes, by ``model_index.json``."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: str(value[1]) for name, value in pairs.items() if value[1] is not None and name not in LEFT_OUT}


def wanted(names: Iterable[str], index: dict[str, Any]) -> list[str]:
    """Of all files of a repository, those that its pipeline is loaded from."""
    parts = components(index)
    found = [INDEX]
    for name in names:
        path = PurePosixPath(name)
        if len(path.parts) == 2 and path.parts[0] in parts and _counts(path.name):
            found.append(name)
    return sorted(found)


def _counts(name: str) -> bool:
    if ".index." in name:  # the table of contents of weights in several files
        return PLAIN.fullmatch(name.replace(".index.json", "")) is not None
    return name.endswith(WANTED) or PLAIN.fullmatch(name) is not None


def read_index(folder: Path, named: str) -> dict[str, Any]:
    """What ``model_index.json`` says. Raises :class:`RecipeError` where there is none, or none that can be read."""
    try:
        found: dict[str, Any] = json.loads((folder / INDEX).read_text("utf-8"))
        return found
    except FileNotFoundError:
        raise RecipeError(
            f"model.base = {named!r}: {folder} has no {INDEX}, so it is not a diffusers pipeline: name the folder that "
            "has one, or a .safetensors file"
        ) from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.base = {named!r}: its {INDEX} cannot be read: {error}") from None


def check(folder: Path, family: str, named: str) -> None:
    """Raise :class:`RecipeError`, in one sentence, unless this folder is a whole pipeline of this family."""
    index = read_index(folder, named)
    its = str(index.get("_class_name"))
    if its != CLASSES[family]:
        known = {kind: name for name, kind in CLASSES.items()}
        remedy = f"set model.family = {known[its]!r}" if its in known else f"darkroom knows {', '.join(known)}"
        raise RecipeError(
            f"model.base = {named!r} is a {its}, and model.family = {family!r} a {CLASSES[family]}: {remedy}"
        )
    for part in components(index):
        if fault := fault_of(folder / part, part):
            raise RecipeError(f"model.base = {named!r}: {fault}")


def fault_of(folder: Path, part: str) -> str | None:
    """What is wrong with one part's folder; None: nothing."""
    if not folder.is_dir():
        return f"its {INDEX} names {part}, but the folder {part}/ is not there"
    if part.startswith("tokenizer"):
        return f"{part}/ has no vocabulary" if sound.tokenizer_fault(folder) else None
    if part == "scheduler":
        return None if (folder / sound.SCHEDULER).is_file() else f"{part}/ has no {sound.SCHEDULER}"
    if not (folder / sound.CONFIG).is_file():
        return f"{part}/ has no {sound.CONFIG}"
    names = [path.name for path in folder.iterdir() if path.is_file()]
    if not any(PLAIN.fullmatch(name) for name in names):
        if any(name.endswith(PICKLES) for name in names):
            return f"{part}/ holds pickles only, which may run any code: convert it to safetensors"
        others = sorted(name for name in names if name.endswith(".safetensors"))
        return f"{part}/ holds no weights in full precision" + (f", only {', '.join(others)}" if others else "")
    for table in folder.glob("*.safetensors.index.json"):
        if not _counts(table.name):
            continue
        pieces = set(json.loads(table.read_text("utf-8"))["weight_map"].values())
        if lacking := sorted(pieces - set(names)):
            return f"{part}/ lacks {', '.join(lacking)}"
    broken = sorted(name for name in names if PLAIN.fullmatch(name) and not sound.is_whole(folder / name))
    return f"{part}/{broken[0]} is no whole safetensors file: copy or download it again" if broken else None


def pipeline_digest(folder: Path, index: dict[str, Any]) -> str:
    """sha256 over the files that a pipeline is loaded from."""
    names = (path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file())
    return files_digest(folder, wanted(names, index))


def configuration_digest(folder: Path) -> str:
    """sha256 over all that a pipeline's folder says beside its weights."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in WANTED)
    return files_digest(folder, sorted(names))


def part_digest(folder: Path) -> str:
    """sha256 over the files that one part is loaded from: equal for the same part of two pipelines."""
    return files_digest(folder, sorted(path.name for path in folder.iterdir() if path.is_file() and _counts(path.name)))


def files_digest(folder: Path, names: Iterable[str]) -> str:
    """sha256 over names and contents; where a configuration was loaded from does not count."""
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\0{_content_digest(folder / name)}\n".encode())
    return total.hexdigest()


def _content_digest(path: Path) -> str:
    if path.name == "config.json":
        content = json.loads(path.read_text("utf-8"))
        kept = {key: value for key, value in content.items() if key not in ("_name_or_path", "_diffusers_version")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return known_digest(path)


def known_digest(path: Path) -> str:
    """sha256 of a file's bytes, which are read again only after it changed: weights are large, and asked for often."""
    found = path.stat()
    return _digest(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@lru_cache(maxsize=1024)
def _digest(path: Path, *_stamp: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
