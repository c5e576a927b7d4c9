"""The pipeline that a training starts from: every way to name it, and which weights that is, beyond any doubt.

What is named may move on: a repository gets new commits, an alias another version. So a name is first pinned
(:func:`darkroom.training.parts.pin`) and then found; what is found has an identity that enters every digest after it.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from darkroom.errors import DarkroomError, RecipeError, ServiceUnavailable
from darkroom.settings import Settings

from . import pipelines
from .locate import Weights

CHAMPION = "champion"
# What the hub's client has had below it; their errors have no common ancestor.
BELOW = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")

# Names that people know -> where these models are.
SHORT = {
    "stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stable-diffusion-v1-4": "CompVis/stable-diffusion-v1-4",
    "stable-diffusion-2-1-base": "stabilityai/stable-diffusion-2-1-base",
    "stable-diffusion-2-1": "stabilityai/stable-diffusion-2-1",
    "stable-diffusion-xl-base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
    "stable-diffusion-3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "stable-diffusion-3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
    "stable-diffusion-3.5-large": "stabilityai/stable-diffusion-3.5-large",
    "FLUX.1-dev": "black-forest-labs/FLUX.1-dev",
    "FLUX.1-schnell": "black-forest-labs/FLUX.1-schnell",
}


@dataclass(frozen=True)
class Name:
    """A base as a recipe names it, taken apart."""

    kind: str
    """``champion``, ``registered``, ``folder``, ``file`` or ``hub``."""
    where: str
    """The path, the repository or the reference to a version."""
    revision: str | None = None
    """Of a repository on the hub."""


def read_name(text: str) -> Name:
    """Say what a name means. Raises :class:`RecipeError` for one that means nothing."""
    if text == CHAMPION:
        return Name("champion", text)
    if text.startswith("models:/"):
        return Name("registered", text)
    path = Path(text).expanduser()
    if path.is_dir():
        return Name("folder", str(path.absolute()))
    if path.suffix == ".safetensors" or path.is_file():
        return _file(path, text)
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]*/\d+", text):  # a repository that is called by a number needs its revision
        return Name("registered", text)
    name, _, revision = text.partition("@")
    name = SHORT.get(name, name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Name("hub", name, revision or None)
    if revision and re.fullmatch(r"[\w.-]+", name):
        return Name("registered", text)
    raise RecipeError(
        f"model.base = {text!r} is no folder, file, name on the hub (OWNER/NAME), NAME/VERSION, NAME@ALIAS or "
        f"champion; short names are {', '.join(name for name in SHORT if '/' not in name)}"
    )


def _file(path: Path, text: str) -> Name:
    if path.suffix in pipelines.PICKLES:
        raise RecipeError(
            f"model.base = {text!r} is a pickle, which may run any code: convert it to safetensors, or name the model "
            "on the hub"
        )
    if not path.is_file():
        raise RecipeError(f"model.base = {text!r}: there is no such file")
    if path.suffix != ".safetensors":
        raise RecipeError(f"model.base = {text!r}: of single files only .safetensors can be opened")
    return Name("file", str(path.absolute()))


def locate_base(text: str, family: str) -> Weights:
    """Find the pipeline that a pinned name means, as a local folder.

    Raises :class:`RecipeError` for what is not there or is not a pipeline of this family, and
    :class:`ServiceUnavailable` when the hub or MLflow does not answer.
    """
    name = read_name(text)
    if name.kind == "hub":
        folder, commit = hub_folder(name.where, name.revision, text)
        pipelines.check(folder, family, text)
        return Weights(text, folder, _sha256(f"{name.where}@{commit}"))
    folder = {"registered": _registered, "file": lambda where: converted(Path(where), family)}.get(name.kind, Path)(
        name.where
    )
    pipelines.check(folder, family, text)
    return Weights(text, folder, pipelines.pipeline_digest(folder, pipelines.read_index(folder, text)))


def pinned_hub(name: Name) -> str:
    """A repository with the commit that its name means today."""
    return f"{name.where}@{_commit(name.where, name.revision)}"


def part_of(base: Weights, part: str) -> Weights:
    """One part of a base, with an identity of its own; raises :class:`RecipeError` where the base lacks it."""
    folder = base.path / part
    if not folder.is_dir():
        raise RecipeError(f"model.base = {base.name!r} has no {part}: name one in model.{part}")
    return Weights(base.name, base.path, pipelines.part_digest(folder))


def tokenizer_of(text: str) -> Weights | None:
    """The tokenizer of a base, without its weights; None for what has to be asked of MLflow or converted first.

    Raises :class:`ServiceUnavailable` when the hub does not answer.
    """
    name = read_name(text)
    if name.kind == "hub":
        from huggingface_hub import snapshot_download

        commit = _commit(name.where, name.revision)
        folder = _here(name.where, commit)
        if folder is None or not (folder / "tokenizer").is_dir():
            pattern = "tokenizer/*"
            folder = _ask(
                name.where, lambda: Path(snapshot_download(name.where, revision=commit, allow_patterns=pattern))
            )
    else:
        folder = Path(name.where)
    if name.kind not in ("hub", "folder") or not (folder / "tokenizer").is_dir():
        return None
    return Weights(text, folder, pipelines.part_digest(folder / "tokenizer"))


def _registered(reference: str) -> Path:
    from darkroom.registry import Registry

    settings = Settings()
    place = settings.mlflow_artifacts
    registry = Registry(settings.tracking_uri, place, "darkroom", settings.mlflow_server, settings.mlflow_login)
    return registry.pipeline_folder(registry.resolve(reference))


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


# The hub


def hub_folder(repository: str, revision: str | None, named: str) -> tuple[Path, str]:
    """(folder, commit) of a repository's pipeline; only the files that it is loaded from are downloaded."""
    commit = _commit(repository, revision)
    folder = _here(repository, commit)
    if folder is None or not _whole(folder):
        folder = _download(repository, commit, named)
    return folder, commit


@lru_cache(maxsize=64)
def _commit(repository: str, revision: str | None) -> str:
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def asked() -> str:
        found = str(HfApi().model_info(repository, revision=revision).sha)
        with contextlib.suppress(EntryNotFoundError):  # by its name, not by its commit: so that the cache knows both
            hf_hub_download(repository, pipelines.INDEX, revision=revision)
        return found

    try:
        return str(_ask(repository, asked))
    except ServiceUnavailable:
        # Without the hub, what was downloaded last goes by the same name.
        folder = _here(repository, revision or "main")
        if folder is None or not _whole(folder):
            raise
        return folder.name


def _here(repository: str, revision: str) -> Path | None:
    """The snapshot in the hub's own cache, if there is one, however much of it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        # Whether it is whole, :func:`_whole` says: the hub's client would miss the files that are never downloaded.
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[]))
    return None


def _whole(folder: Path) -> bool:
    """Whether a snapshot has all that its index names; a killed download leaves some of it."""
    try:
        parts = pipelines.components(json.loads((folder / pipelines.INDEX).read_text("utf-8")))
        return not any(pipelines.fault_of(folder / part, part) for part in parts)
    except (OSError, ValueError, KeyError):
        return False


def _download(repository: str, commit: str, named: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    def fetch() -> Path:
        files = HfApi().list_repo_files(repository, revision=commit)
        if pipelines.INDEX not in files:
            raise RecipeError(
                f"model.base = {named!r}: the repository has no {pipelines.INDEX}, so it is not a diffusers pipeline; "
                "look for its '-diffusers' twin, or download its .safetensors file and name that"
            )
        first = hf_hub_download(repository, pipelines.INDEX, revision=commit)
        index = json.loads(Path(first).read_text("utf-8"))
        return Path(snapshot_download(repository, revision=commit, allow_patterns=pipelines.wanted(files, index)))

    found: Path = _ask(repository, fetch)
    return found


def _ask(repository: str, question: Callable[[], Any]) -> Any:
    """Put a question to the hub; what goes wrong becomes one sentence."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return question()
    except RecipeError:
        raise
    except GatedRepoError:
        raise RecipeError(
            f"model.base: {repository} has a licence to accept: do so at https://huggingface.co/{repository}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise RecipeError(f"model.base: {repository} has no such revision on the hub") from None
    except (HFValidationError, RepositoryNotFoundError):
        raise RecipeError(
            f"model.base: {repository} is not on the hub, or is private: check the spelling, or log in with "
            "`hf auth login`"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise ServiceUnavailable(
            f"{repository} is not whole on this machine and the hub did not answer: {error}"
        ) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in BELOW:
            raise
        raise ServiceUnavailable(
            f"{repository} is not whole on this machine and the hub did not answer: {error}"
        ) from None


# Single files


def converted(file: Path, family: str) -> Path:
    """A checkpoint in one file as a pipeline's folder, converted once and kept beside the store's artifacts.

    The configuration and the tokenizer are those of the folder beside it that is called as the file, without its
    suffix, where there is one; else diffusers recognises the file by its keys and takes them from the hub.
    """
    beside, known = file.with_suffix(""), pipelines.known_digest(file)
    told: dict[str, Any] = {}
    if (beside / pipelines.INDEX).is_file():
        told = {"config": str(beside), "local_files_only": True}
        known = _sha256(f"{known} {pipelines.configuration_digest(beside)}")
    place = Settings().store / "bases" / known
    if (place / pipelines.INDEX).is_file():
        return place
    import diffusers
    import torch

    kind = getattr(diffusers, pipelines.CLASSES[family])
    if not hasattr(kind, "from_single_file"):
        raise RecipeError(f"model.base = {str(file)!r}: a {kind.__name__} cannot be read from one file: name a folder")
    try:
        extra = {"safety_checker": None} if "safety_checker" in kind._optional_components else {}
        pipeline = kind.from_single_file(str(file), torch_dtype=torch.float32, **extra, **told)
    except Exception as error:
        raise _unreadable(file, kind.__name__, error) from error
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as folder:
        new = Path(folder) / "pipeline"
        pipeline.save_pretrained(new, safe_serialization=True)
        with contextlib.suppress(OSError):  # another process was faster
            os.replace(new, place)
    return place


def _unreadable(file: Path, kind: str, error: Exception) -> DarkroomError:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    away = (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, away):
            return ServiceUnavailable(
                f"model.base = {str(file)!r}: diffusers takes the configuration of a single file from the hub, which "
                "did not answer: run it once with the hub in reach, put a pipeline's folder without its weights beside "
                f"the file as {file.stem}/, or name the model's folder instead"
            )
        cause = cause.__cause__ or cause.__context__
    return RecipeError(f"model.base = {str(file)!r} cannot be read as a {kind}: {str(error).splitlines()[0][:300]}")
