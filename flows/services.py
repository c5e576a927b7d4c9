"""What `darkroom up` starts, `darkroom down` ends and `darkroom status` looks at: servers, worker, supervisor.

They are daemons: `mlruns/services.json` remembers each by its pid and its start, so that a recycled pid is never taken
for one of them. Whatever is configured to run elsewhere is left alone.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from darkroom import process
from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.settings import Settings
from darkroom.store import write_json
from darkroom.tracking import open_registry

from . import access, prefect_server

SERVERS = ("prefect", "mlflow", "reports")
CREW = ("worker", "supervisor")  # who use the servers, and start when all is registered there
START_SECONDS = 240.0
RECOVER_SECONDS = 75.0  # after its server was away, a worker asks again within a minute
STOP_SECONDS = 15.0
ENTRY = {"pid", "started", "url", "health"}  # what is remembered of each
State = Literal["running", "not answering", "stopped", "elsewhere"]


@dataclass(frozen=True)
class Service:
    """One server: what it is called, where its page is, and how it is."""

    name: str
    url: str
    pid: int | None
    state: State


@dataclass(frozen=True)
class _Plan:
    """How one service is started here."""

    name: str
    port: int
    setting: str  # that names the port; of the crew, whose ports are any free ones, none
    url: str
    health: str
    command: list[str]
    env: dict[str, str]


def up(settings: Settings, say: Callable[[str], None] = print, names: Sequence[str] = SERVERS) -> list[Service]:
    """Start what does not run yet of these, as daemons, and wait until each answers. Safe to repeat.

    When one cannot be started, those that this call started are ended again.
    """
    access.guard(settings)
    with _locked(settings):
        known, begun, clock = _read(settings), [], time.monotonic()
        try:
            for plan in [plan for plan in _plans(settings) if plan.name in names]:
                service = _recovered(settings, plan.name)
                if service.state == "running":
                    say(f"{plan.name}: runs at {service.url} (pid {service.pid})")
                    continue
                if service.pid is not None:  # it runs and does not answer
                    process.stop(service.pid, STOP_SECONDS, started_at=known[plan.name]["started"])
                _begin(settings, plan, known)
                begun.append(plan)
                say(f"{plan.name}: starting (pid {known[plan.name]['pid']})")
            for plan in begun:
                _await(settings, plan, known)
                say(f"{plan.name}: {plan.url} after {time.monotonic() - clock:.0f} s")
        except BaseException:
            _end({plan.name: known.pop(plan.name) for plan in begun if plan.name in known})
            write_json(_file(settings), known)
            raise
        return status(settings)


def revive(settings: Settings, but: str, say: Callable[[str], None] = print) -> None:
    """Start again what `up` started and something killed; what was stopped by `down` stays so."""
    known = _read(settings)
    died = [name for name in known if name != but and not process.alive(known[name]["pid"], known[name]["started"])]
    if died:
        up(settings, say, died)


def down(settings: Settings, say: Callable[[str], None] = print) -> list[Service]:
    """End all that `up` started for this home folder; what runs elsewhere is left alone."""
    with _locked(settings):
        known = _read(settings)
        for name, entry in known.items():
            if process.alive(entry["pid"], entry["started"]):
                say(f"{name}: stopping (pid {entry['pid']})")
        crew = {name: entry for name, entry in known.items() if name in CREW}
        _end(crew)  # while the servers still answer, so that a run's last words are recorded
        _end({name: entry for name, entry in known.items() if name not in crew})
        _file(settings).unlink(missing_ok=True)
        return status(settings)


def end(settings: Settings, names: Sequence[str]) -> None:
    """End some of what `up` started."""
    with _locked(settings):
        known = _read(settings)
        _end({name: known.pop(name) for name in names if name in known})
        write_json(_file(settings), known)


def status(settings: Settings) -> list[Service]:
    """Each service as it is now."""
    return [state_of(settings, name) for name in (*SERVERS, *CREW)]


def state_of(settings: Settings, name: str) -> Service:
    """One service as it is now: its process is looked for and its page asked."""
    entry = _read(settings).get(name)
    if entry and process.alive(entry["pid"], entry["started"]):
        answering = prefect_server.answers(entry["health"], 3)
        return Service(name, entry["url"], entry["pid"], "running" if answering else "not answering")
    if name in CREW:
        return Service(name, pool_page(settings), None, "stopped")
    other = elsewhere(settings, name)
    ports = {"prefect": settings.prefect_port, "mlflow": settings.mlflow_port, "reports": settings.reports_port}
    return Service(name, other or _base(settings, ports[name]), None, "elsewhere" if other else "stopped")


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(there is no log)"


def _plans(settings: Settings) -> list[_Plan]:
    """The services that run here, in the order of the time that they take to start."""
    environment = dict(os.environ) | prefect_server.QUIET
    prefect, reports = _base(settings, settings.prefect_port), settings.reports_port
    python = [sys.executable, "-P", "-m"]  # -P: no module of the current folder takes part
    mlflow = [
        *(*python, "mlflow", "server", "--host", settings.host, "--port", str(settings.mlflow_port), "--workers", "1"),
        *("--default-artifact-root", str(settings.mlflow_artifacts), *access.mlflow_arguments(settings)),
        "--no-serve-artifacts",  # runs write below that folder themselves; nothing is uploaded through the server
    ]
    if settings.host not in ("0.0.0.0", "::"):  # else MLflow's own rule: this machine and private networks
        hosts = dict.fromkeys((settings.host, "localhost", "127.0.0.1"))
        mlflow += ["--allowed-hosts", ",".join(f"{host}:{settings.mlflow_port}" for host in hosts)]
    plans = [
        _Plan(
            "prefect",
            settings.prefect_port,
            "DARKROOM_PREFECT_PORT",
            prefect,
            f"{prefect}/api/health",
            prefect_server.command(settings, settings.host, settings.prefect_port),
            prefect_server.server_environment(settings, f"{prefect}/api"),
        ),
        _Plan(
            "mlflow",
            settings.mlflow_port,
            "DARKROOM_MLFLOW_PORT",
            _base(settings, settings.mlflow_port),
            f"{_base(settings, settings.mlflow_port)}/health",
            mlflow,
            # Job runners are for evaluating language models: two more processes that nothing here uses.
            environment
            | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            | access.mlflow_environment(settings),
        ),
        _Plan(
            "reports",
            reports,
            "DARKROOM_REPORTS_PORT",
            _base(settings, reports),
            f"{_base(settings, reports)}/healthz",
            [*python, "darkroom.report.serve", str(settings.root), settings.host, str(reports)],
            environment | access.reports_environment(settings),
        ),
    ]
    return [plan for plan in plans if elsewhere(settings, plan.name) is None] + [_crew(settings, name) for name in CREW]


def _crew(settings: Settings, name: str) -> _Plan:
    """How the worker or the supervisor starts: both are told everything by their environment."""
    port = process.free_port()
    if elsewhere(settings, "prefect"):
        environment = prefect_server.QUIET | dict(os.environ)
    else:
        environment = prefect_server.client_environment(settings, f"{_base(settings, settings.prefect_port)}/api")
    environment |= settings.environment() | {"PREFECT_WORKER_QUERY_SECONDS": "5"}
    if settings.mlflow_uri is None:
        environment.setdefault("DARKROOM_MLFLOW_SERVER", _base(settings, settings.mlflow_port))
    health = f"http://127.0.0.1:{port}/health"
    command = [sys.executable, "-P", "-m", f"flows.{name}", str(port)]
    return _Plan(name, port, "", pool_page(settings), health, command, environment)


def alone(settings: Settings) -> bool:
    """Whether Prefect's server is the one of `up` on SQLite, which is no good at parallel runs.

    Ask it before a server of a run's own is chosen, which is on the same database.
    """
    return settings.prefect_database_url is None and elsewhere(settings, "prefect") is None


def pool_page(settings: Settings) -> str:
    """The work pool's page."""
    base = elsewhere(settings, "prefect") or _base(settings, settings.prefect_port)
    return f"{base}/work-pools/work-pool/{settings.pool}"


def _recovered(settings: Settings, name: str) -> Service:
    """A service as it is; a worker or supervisor whose server was away is given the time to notice that it is back."""
    service, end = state_of(settings, name), time.monotonic() + RECOVER_SECONDS
    while name in CREW and service.state == "not answering" and time.monotonic() < end:
        time.sleep(1)
        service = state_of(settings, name)
    return service


def elsewhere(settings: Settings, name: str) -> str | None:
    """The address of a service that is configured to run elsewhere."""
    if name == "mlflow" and urlsplit(settings.mlflow_uri or "").scheme in ("http", "https"):
        return settings.mlflow_uri
    if name == "prefect" and (url := prefect_server.configured()):
        parts = urlsplit(url)  # a profile that names the very server that `up` starts is no other server
        ours = parts.hostname in (settings.host, "localhost", "127.0.0.1") and parts.port == settings.prefect_port
        return None if ours else url.removesuffix("/api")
    return None


def _begin(settings: Settings, plan: _Plan, known: dict[str, Any]) -> None:
    """Start one daemon and remember it before anything else can go wrong."""
    if plan.setting and not process.port_is_free(settings.host, plan.port):
        raise RecipeError(
            f"port {plan.port} on {settings.host} is taken by something else, so {plan.name} cannot start there: "
            f"end that program, or set {plan.setting} to another port"
        )
    if plan.name == "mlflow":
        access.prepare_mlflow(settings)
        open_registry(settings, "darkroom").ping()  # makes a database that survives a kill, where there is none
    pid = process.daemon(plan.command, log=_log(settings, plan.name), env=plan.env)
    started = process.started(pid) or "ended"
    known[plan.name] = {"pid": pid, "started": started, "url": plan.url, "health": plan.health}
    write_json(_file(settings), known)


def _await(settings: Settings, plan: _Plan, known: dict[str, Any]) -> None:
    """Wait until a service answers."""
    entry, end = known[plan.name], time.monotonic() + START_SECONDS
    while not prefect_server.answers(plan.health):
        running = process.alive(entry["pid"], entry["started"])
        if not running or time.monotonic() > end:
            log = _log(settings, plan.name)
            what = "does not answer" if running else "ended while it started"
            raise ServiceUnavailable(f"{plan.name} {what}; the end of {log}:\n{tail(log)}")
        time.sleep(0.1)


def _end(entries: dict[str, Any]) -> None:
    """Stop these, all at once: each may take its seconds to finish."""

    def stop(entry: dict[str, Any]) -> None:
        process.stop(entry["pid"], STOP_SECONDS, started_at=entry["started"])

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(stop, entries.values()))


def _base(settings: Settings, port: int) -> str:
    """The address of a page here, as a browser on this machine opens it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{host}:{port}"


def _log(settings: Settings, name: str) -> Path:
    return settings.root / "logs" / f"{name}.log"


def _file(settings: Settings) -> Path:
    return settings.root / "services.json"


def _read(settings: Settings) -> dict[str, Any]:
    """What is remembered; what cannot be read counts as nothing."""
    try:
        content = json.loads(_file(settings).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and entry.keys() >= ENTRY}


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One `up` or `down` of a home folder at a time."""
    for folder in (settings.root, settings.prefect_home):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        (settings.root / ".services.lock").open("w") as file,
        (settings.prefect_home / "start.lock").open("w") as start,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(start, fcntl.LOCK_EX)  # a run's own server may be making the tables
        yield
