"""How a Prefect server is found, started and spoken to, without importing prefect.

Importing it takes seconds, and the environment must be right before that: Prefect reads its settings then.
"""

import os
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError
from darkroom.settings import Settings

from . import access

# Nothing is told to anybody, and the pages advertise nothing.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

# How often a run says that it lives: Prefect's own 180 seconds would let a lost one go unnoticed for ten minutes.
HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}

# A server that lives for one run leaves to `darkroom up` what only that needs: schedules, automations, the page and its
# blocks. It keeps what records the run: events and task states are written five times a second, many at once, so that
# the last ones are soon there.
OF_ONE_RUN = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    # Prefect cuts this one to whole seconds: with 0.2 it would flush without a pause, on a whole core.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
}


def configured() -> str | None:
    """The API that the user chose, by PREFECT_API_URL, a settings file or the active profile; None when none."""
    if "prefect" in sys.modules:  # its settings may have been changed in this process, as in tests
        from prefect.settings import get_current_settings

        return get_current_settings().api.url
    files = (Path("prefect.toml"), ("api", "url")), (Path("pyproject.toml"), ("tool", "prefect", "api", "url"))
    in_files = (_lookup(_toml(path), keys) for path, keys in files)
    choices = (os.environ.get("PREFECT_API_URL"), _dotenv("PREFECT_API_URL"), *in_files, _from_profile())
    return next((choice.rstrip("/") for choice in choices if choice), None)


def profiles() -> Path:
    """The file of the user's Prefect profiles."""
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    return Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()


def database(settings: Settings) -> Path:
    """Prefect's database in the home folder."""
    return settings.prefect_home / "prefect.db"


def connection(settings: Settings) -> str:
    """The address of the database of Prefect's server: the PostgreSQL of the settings, or SQLite in the home folder."""
    if settings.prefect_database_url is None:
        return f"sqlite+aiosqlite:///{database(settings)}"
    scheme, separator, rest = settings.prefect_database_url.get_secret_value().partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+asyncpg") or not separator:
        raise RecipeError("DARKROOM_PREFECT_DATABASE_URL is no address of PostgreSQL: postgresql://USER@HOST/DATABASE")
    return f"postgresql+asyncpg://{rest}"


def command(settings: Settings, host: str, port: int) -> list[str]:
    """Prefect's server as one process. ``-P`` and ``--app-dir``: no module of the current folder takes part."""
    return [
        *(sys.executable, "-P", "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--app-dir", str(settings.prefect_home), "--host", host, "--port", str(port)),
        *("--log-level", "error", "--lifespan", "on", "--timeout-graceful-shutdown", "5"),
    ]


def server_environment(settings: Settings, url: str) -> dict[str, str]:
    """The environment of a server that answers at ``url`` and keeps everything in the home folder."""
    return {
        **client_environment(settings, url),
        **access.prefect_server(settings),
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": connection(settings),
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # several servers may write this file: let them wait for each other
        # Who holds a limit's places is kept on disk: a server that forgot it would keep them taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(settings.prefect_home / "ui"),  # site-packages may be read-only
    }


def client_environment(settings: Settings, url: str) -> dict[str, str]:
    """Our environment, such that Prefect speaks to ``url`` and keeps its own files in the home folder."""
    ours = {"PREFECT_API_URL": url, "PREFECT_HOME": str(settings.prefect_home), **access.prefect_client(settings)}
    # Links to runs lead to where `darkroom up` shows them, also when a server without pages records the run.
    page = {"PREFECT_UI_URL": f"http://{settings.host}:{settings.prefect_port}"}
    environment = QUIET | HEARTBEATS | page | dict(os.environ) | ours
    if profiles().is_file():  # what else the user's profile says still counts
        environment["PREFECT_PROFILES_PATH"] = str(profiles())
    return environment


def answers(url: str, seconds: float = 2.0) -> bool:
    """Whether a server answers there; one that asks who we are does."""
    loopback = url.startswith(("http://127.", "http://localhost", "http://[::1]"))
    proxies = [urllib.request.ProxyHandler({})] if loopback else []
    try:
        with urllib.request.build_opener(*proxies).open(url, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False


def _from_profile() -> str | None:
    content = _toml(profiles())
    active = os.environ.get("PREFECT_PROFILE") or _lookup(content, ("active",))
    return _lookup(content, ("profiles", active, "PREFECT_API_URL")) if active else None


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # Prefect itself complains about a file that it cannot read


def _lookup(content: Any, keys: tuple[str, ...]) -> str | None:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, str) else None


def _dotenv(name: str) -> str | None:
    if not Path(".env").is_file():
        return None
    from dotenv import dotenv_values

    return dotenv_values(".env").get(name)
