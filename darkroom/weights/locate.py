"""Where the weights that a recipe names lie, and which they are."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import RecipeError, ServiceUnavailable

from .pipelines import known_digest

BUILTIN = "builtin:"


@dataclass(frozen=True)
class Weights:
    """A local folder of weights and configuration, and the sha256 over its files."""

    name: str
    path: Path
    sha256: str


def locate(name: str) -> Weights:
    """Find ``builtin:NAME``, a local folder, or a name on the hub (downloaded once into the hub's own cache).

    Raises :class:`RecipeError` for a name that is nowhere and :class:`ServiceUnavailable` when the hub does not answer.
    """
    if name.startswith(BUILTIN):
        path = Path(__file__).parent / name.removeprefix(BUILTIN)
        if not path.is_dir():
            known = sorted(
                folder.name for folder in Path(__file__).parent.iterdir() if (folder / "config.json").is_file()
            )
            raise RecipeError(f"{name} is not shipped with darkroom: there are {', '.join(BUILTIN + n for n in known)}")
    elif Path(name).expanduser().is_dir():
        path = Path(name).expanduser().absolute()
    else:
        path = _download(name)
    return Weights(name, path, folder_digest(path))


def folder_digest(folder: Path) -> str:
    """sha256 over the relative names and contents of a folder's files, hidden ones left out."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            total.update(f"{name.as_posix()}\0{known_digest(path)}\n".encode())
    return total.hexdigest()


def _first_line(error: Exception) -> str:
    """What an error says first; the hub's go on with advice for those who know its library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.jinja", "*.safetensors"]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise RecipeError(f"{name} is neither a local folder nor a name on the hub: {error}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ServiceUnavailable(
            f"{name} is not on this machine and the hub did not answer: {_first_line(error)}"
        ) from None
    if not any(folder.rglob("*.safetensors")):
        raise RecipeError(f"{name} has no weights in safetensors, and nothing else is opened: name a model that has")
    return folder
