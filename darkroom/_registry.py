"""What :mod:`darkroom.registry` is made of that needs no MLflow: its values, its settings, and how errors are read."""

import contextlib
import importlib.metadata
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHECKPOINT = "darkroom.checkpoint"

# What the served model needs, each pinned to the version installed here.
REQUIREMENTS = ["mlflow", "diffusers", "transformers", "torch", "safetensors"]
REQUIREMENTS += ["accelerate", "pandas", "numpy", "pillow"]

# Each may be set otherwise in the environment. MLflow's own patience is 7 retries of 120 seconds: about 20 minutes.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else it packs whatever uv project it is started in
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Dataset:
    """The data of a run, as MLflow's page shows it."""

    name: str
    digest: str
    source: str  # a path or an address
    rows: int
    profile: Mapping[str, object]


@dataclass(frozen=True)
class Version:
    """One version of a registered model, as it was when it was asked for."""

    model: str
    version: str
    run_id: str
    tags: dict[str, str]
    description: str
    aliases: tuple[str, ...]
    created: int = 0
    """Milliseconds since 1970."""

    @property
    def uri(self) -> str:
        """MLflow's name for it."""
        return f"models:/{self.model}/{self.version}"

    @property
    def checkpoint(self) -> str:
        """The digest of its checkpoint; empty for a version that darkroom did not register."""
        return self.tags.get(CHECKPOINT, "")


@dataclass(frozen=True)
class RegisteredModel:
    """A model's own page, as it was when it was asked for."""

    name: str
    aliases: dict[str, str]
    """Version by alias."""
    tags: dict[str, str]


def requirements() -> Iterator[str]:
    """The served model's packages as pip takes them."""
    for name in REQUIREMENTS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            # Without the local part (2.15.0+cu130), which no index knows.
            yield f"{name}=={importlib.metadata.version(name).partition('+')[0]}"


def unavailable(error: Exception) -> str | None:
    """What is wrong with the server and what to do, if that is what an exception tells; None for every other one."""
    link: BaseException | None = error
    while link is not None:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if isinstance(status, int) and status < 500:
            return None
        # requests, urllib3 and botocore (S3) each have errors of their own that derive from none of Python's.
        package = type(link).__module__.split(".")[0]
        if isinstance(link, ConnectionError | TimeoutError) or package in ("requests", "urllib3", "botocore"):
            return "does not answer: start it (`darkroom up` starts one), or set DARKROOM_MLFLOW_URI to one that runs"
        link = link.__cause__ or link.__context__
    code = getattr(error, "error_code", "")
    if code == "TEMPORARILY_UNAVAILABLE" or "database is locked" in str(error):
        return "is too busy: wait, or use a server on Postgres where many runs share it"
    if "API request to endpoint" in str(error):  # an answer that is no JSON
        return "does not answer as an MLflow server: check DARKROOM_MLFLOW_URI, and the server's --allowed-hosts"
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return "refuses this user: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    return None


class Allow:
    """``with Allow("RESOURCE_DOES_NOT_EXIST"):`` goes on after an answer of MLflow with one of these error codes."""

    def __init__(self, *codes: str) -> None:
        self.codes = codes

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return getattr(error, "error_code", None) in self.codes


@dataclass(frozen=True)
class Point:
    """One value of one curve."""

    name: str
    step: int
    value: float
    milliseconds: int  # since 1970


def read_events(events: Path) -> tuple[list[Point], dict[int, Path], int]:
    """An events file's points, its grids by step, and how many of its values are not finite.

    Of points with the same name and step the last counts. What follows the last line break is left for later: its
    writer is in the middle of it. Grids whose file is not there are left out.
    """
    points: dict[tuple[str, int], Point] = {}
    grids: dict[int, Path] = {}
    non_finite = 0
    written = events.read_bytes().split(b"\n")[:-1] if events.is_file() else []
    for event in (json.loads(line) for line in written if line.strip()):
        step = int(event["step"])
        for name, number in (event.get("metrics") or {}).items():
            value = math.nan if number is None else float(number)
            if math.isfinite(value):
                points[name, step] = Point(name, step, value, milliseconds(event.get("time")))
            else:
                non_finite += 1
        if event.get("grid") and (events.parent / event["grid"]).is_file():
            grids[step] = events.parent / event["grid"]
    return list(points.values()), grids, non_finite


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Consecutive parts of at most ``size`` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


def plain(value: object) -> Any:
    """A value as JSON has it."""
    return json.loads(json.dumps(value, default=str, ensure_ascii=False))


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """``{"train": {"steps": 8}}`` -> ``{"train.steps": "8"}``, values as JSON but for texts."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def cut(text: str, length: int) -> str:
    """A text, its end replaced by … where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def milliseconds(seconds: float | None) -> int:
    """A time as MLflow takes it; None is now."""
    return round((time.time() if seconds is None else seconds) * 1000)


def read_version(found: Any) -> Version:
    """MLflow's version as ours."""
    return Version(
        found.name,
        str(found.version),
        found.run_id or "",
        dict(found.tags),
        found.description or "",
        tuple(found.aliases),
        int(found.creation_timestamp or 0),
    )
