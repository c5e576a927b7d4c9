"""What is installed, reachable and missing on this machine: the lines of `darkroom doctor`.

It looks and never changes anything, and a home folder that is half made, damaged or not there is a finding like any
other. Packages are looked up, not imported, so that it answers at once.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import darkroom
from darkroom.errors import RecipeError
from darkroom.settings import Settings

from . import doctor_aliases, notices, prefect_server
from .servers import choose
from .services import state_of

PYTHON = (3, 11)
REQUIRED = (
    *("torch", "torchvision", "diffusers", "transformers", "prefect", "mlflow"),
    *("great_expectations", "pandas", "pyarrow", "pillow"),
)
# What more can be done with each, and nothing that is needed without.
OPTIONAL = {
    "bitsandbytes": "8-bit optimisers",
    "prodigyopt": "the Prodigy optimiser",
    "lpips": "LPIPS distances",
    "datasets": "data sets of the hub as sources",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FREE_DISK, FREE_MEMORY = 5e9, 2e9  # bytes below which a run of the built-in recipe may fail


@dataclass(frozen=True)
class Line:
    """One finding: a sentence, and what to do about it where something can be done."""

    state: Literal["ok", "missing", "warning"]
    sentence: str
    remedy: str = ""
    optional: bool = False


def doctor(settings: Settings, weights: Path | None = None) -> tuple[list[Line], bool]:
    """Every finding, and whether nothing that is required is missing. Takes seconds at most and writes nothing."""
    shipped = weights or Path(darkroom.__file__).parent / "weights"
    checks: list[tuple[str, Callable[[], Iterable[Line]]]] = [
        ("Python and packages", _packages),
        ("the machine", lambda: _machine(settings)),
        ("GPUs", _gpus),
        ("Prefect", lambda: _prefect(settings)),
        ("MLflow", lambda: _mlflow(settings)),
        ("what aliases need", lambda: (Line("warning", *found) for found in doctor_aliases.lost(settings))),
        ("notifications", lambda: _notifications(settings)),
        ("the shipped weights", lambda: _weights(shipped)),
        ("optional packages", _optional),
    ]
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:  # servers that do not answer are waited for together
        findings = list(pool.map(lambda check: _examined(*check), checks))
    lines = [line for finding in findings for line in finding]
    return lines, not any(line.state == "missing" and not line.optional for line in lines)


def _examined(what: str, check: Callable[[], Iterable[Line]]) -> list[Line]:
    """A check's lines; one that fails is a finding itself."""
    try:
        return list(check())
    except Exception as error:  # whatever is wrong with this machine, the other lines still help
        return [Line("warning", f"{what} could not be examined: {type(error).__name__}: {error}")]


def _packages() -> Iterator[Line]:
    version = platform.python_version()
    if sys.version_info[:2] >= PYTHON:
        yield Line("ok", f"Python {version}, darkroom {darkroom.__version__}")
    else:
        yield Line("missing", f"Python {version} is too old", "install Python {}.{} or later".format(*PYTHON))
    found = {name: _version(name) for name in REQUIRED}
    if present := [f"{name} {number}" for name, number in found.items() if number]:
        yield Line("ok", ", ".join(present))
    if absent := [name for name, number in found.items() if not number]:
        yield Line("missing", f"not installed: {', '.join(absent)}", "run `make install`")


def _optional() -> Iterator[Line]:
    for name, use in OPTIONAL.items():
        if number := _version(name):
            yield Line("ok", f"{name} {number}: {use}")
        else:
            yield Line("missing", f"optional: {name}, for {use}", f"pip install {name}", optional=True)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser:
        yield Line("ok", f"{Path(browser).name}: pictures of pages")
    else:
        remedy = "install it with the system's packages"
        yield Line("missing", "optional: chromium, for pictures of pages", remedy, optional=True)


def _notifications(settings: Settings) -> Iterator[Line]:
    try:
        found = notices.routes(settings)
    except RecipeError as error:
        yield Line("missing", str(error), "set it anew, and try it by `darkroom notify`")
        return
    if found:
        yield Line("ok", f"people are told by {' and by '.join(found)}: `darkroom notify` tries it")
    else:
        remedy = "set DARKROOM_NOTIFY_MAIL or DARKROOM_NOTIFY_WEBHOOK (docs/schedules.md)"
        yield Line("missing", "optional: nobody is told what a person should know", remedy, optional=True)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(settings: Settings) -> Iterator[Line]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Line("ok", f"{cores} CPU core{'s' if cores > 1 else ''}")
    memory = _free_memory()
    if memory is not None:
        few = memory < FREE_MEMORY
        remedy = "end other programs" if few else ""
        yield Line("warning" if few else "ok", f"{memory / 1e9:.1f} GB of memory free", remedy)
    folder = next(path for path in (settings.root, *settings.root.parents) if path.is_dir())
    disk = shutil.disk_usage(folder).free
    few = disk < FREE_DISK
    remedy = "make room, or set DARKROOM_HOME to a larger disk" if few else ""
    yield Line("warning" if few else "ok", f"{disk / 1e9:.1f} GB of disk free at {settings.root}", remedy)
    if not os.access(folder, os.W_OK):
        yield Line("missing", f"{folder} cannot be written to", "set DARKROOM_HOME to a folder of yours")


def _free_memory() -> int | None:
    """Bytes that a new program can have: of the machine, or of the container when that allows less."""
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(free) if free else None


def _gpus() -> Iterator[Line]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Line("ok", "no NVIDIA GPU: training runs on the CPU")
        return
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=2.5, check=False)
    if answer.returncode:
        said = (answer.stdout or answer.stderr).strip()[:200]
        yield Line("warning", f"nvidia-smi fails: {said}", "look at the driver")
        return
    for line in answer.stdout.splitlines():
        yield Line("ok", f"GPU: {line}; use it with DARKROOM_DEVICE=cuda")


def _prefect(settings: Settings) -> Iterator[Line]:
    url, mode = choose(settings)
    if mode == "own":
        yield Line("ok", "Prefect: each run starts its own server; `darkroom up` starts one with pages and schedules")
    elif mode == "up":
        yield Line("ok", f"Prefect: `darkroom up` runs at {url}")
    elif prefect_server.answers(f"{url}/health", 2):
        yield Line("ok", f"Prefect: the configured API at {url} answers")
    else:
        yield Line("missing", f"Prefect's API at {url} does not answer", "start it, or unset PREFECT_API_URL")


def _mlflow(settings: Settings) -> Iterator[Line]:
    uri = urlsplit(settings.tracking_uri)
    if uri.scheme in ("http", "https"):
        if prefect_server.answers(f"{settings.tracking_uri.rstrip('/')}/health", 2):
            yield Line("ok", f"MLflow: the server at {settings.tracking_uri} answers")
        else:
            remedy = "start it, or unset DARKROOM_MLFLOW_URI"
            yield Line("missing", f"MLflow's server at {settings.tracking_uri} does not answer", remedy)
        return
    if (service := state_of(settings, "mlflow")).state == "running":
        yield Line("ok", f"MLflow: `darkroom up` shows it at {service.url}")
    if uri.scheme != "sqlite":
        yield Line("ok", f"MLflow: a {uri.scheme or 'local'} store, not examined")
        return
    path = Path(settings.tracking_uri.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_file():
        yield Line("ok", f"MLflow: no database yet; the first run makes {path}")
        return
    try:
        places = _artifact_places(path)
    except sqlite3.Error as error:
        remedy = "run `darkroom run` once, or put a backup of the file there"
        yield Line("warning", f"MLflow's database {path} cannot be read: {error}", remedy)
        return
    yield Line("ok", f"MLflow: {path}, {len(places)} experiment{'' if len(places) == 1 else 's'}")
    yield from _moved(places, settings)
    yield from _removed(path)


def _artifact_places(database: Path) -> dict[str, str]:
    """Where each experiment that is in use keeps its artifacts."""
    query = "SELECT name, artifact_location FROM experiments WHERE lifecycle_stage = 'active'"
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as store:
        return {str(name): str(place or "") for name, place in store.execute(query)}


def _removed(database: Path) -> Iterator[Line]:
    """Say which versions with an alias were trained on pictures that were removed since."""
    from darkroom.versions import marks

    query = (
        "SELECT a.name, a.alias, t.value FROM registered_model_aliases a JOIN model_version_tags t "
        "ON t.name = a.name AND t.version = a.version WHERE t.key = ?"
    )
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as store:
        try:
            found = [*store.execute(query, (marks.TAG,))]
        except sqlite3.OperationalError:  # no model was ever registered there
            return
    for name, alias, value in found:
        if said := marks.read({marks.TAG: str(value)}):
            yield Line("warning", f"{name}@{alias}: {marks.words(said)}", f"darkroom run {name}")


def _moved(places: dict[str, str], settings: Settings) -> Iterator[Line]:
    """Say which experiments look for their artifacts where this checkout no longer is.

    An experiment without a run has no folder yet; so what must exist is the folder that all of them are in.
    """
    for name, place in places.items():
        parts = urlsplit(place)
        if parts.scheme not in ("", "file"):
            continue
        folder = Path(unquote(parts.path))
        if not folder.exists() and not folder.parent.exists() and folder.parent != settings.mlflow_artifacts:
            yield Line(
                "warning",
                f"MLflow looks for the artifacts of experiment {name} in {folder}, which does not exist: was this "
                "checkout moved? Its models cannot be loaded",
                f"move it back, or link {folder.parent} to {settings.mlflow_artifacts}",
            )


def _weights(folder: Path) -> Iterator[Line]:
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        yield Line("ok", "no list of checksums of shipped weights")
        return
    wrong, count = [], 0
    for line in sums.read_text("utf-8").splitlines():
        expected, _, name = line.partition(" ")
        name = name.strip().removeprefix("*").removeprefix("./")
        if not name:
            continue
        count += 1
        try:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected.lower():
                    wrong.append(f"{name} (changed)")
        except OSError:
            wrong.append(f"{name} (not there)")
    if wrong:
        remedy = "install darkroom again, or check the files out again"
        yield Line("missing", f"shipped weights: {', '.join(wrong)}", remedy)
    else:
        yield Line("ok", f"{count} shipped weight files are what they should be")
