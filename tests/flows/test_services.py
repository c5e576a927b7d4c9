"""`up` starts each service once, `down` leaves nothing, and neither touches what is not ours."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkroom import process
from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.settings import Settings
from flows import prefect_server, servers, services

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if prefect were not imported, nothing were configured and the current folder held no settings."""
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-of-the-user"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings by which only the reports are served here: quick to start."""
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.invalid/api")

    def settings(home: Path, **fields: Any) -> Settings:
        defaults = {"mlflow_uri": "http://mlflow.invalid", "reports_port": process.free_port()}
        return Settings(home=home, **{**defaults, **fields})

    return settings


@pytest.fixture
def tidy() -> Iterator[list[Settings]]:
    """Whatever a test starts for these settings is ended."""
    started: list[Settings] = []
    yield started
    for settings in started:
        servers.down(settings, quiet)


def quiet(_: str) -> None:
    """Say nothing."""


def processes_with(words: str) -> list[str]:
    """The command lines of running processes that hold these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if words in line:
                found.append(line)
    return found


def test_up_is_safe_to_repeat_and_down_leaves_nothing(
    tmp_path: Path, elsewhere: Callable[..., Settings], tidy: list[Settings]
) -> None:
    settings = elsewhere(tmp_path / "home")
    tidy.append(settings)
    first = servers.up(settings, quiet)
    assert [(service.name, service.state) for service in first] == [
        ("prefect", "elsewhere"),
        ("mlflow", "elsewhere"),
        ("reports", "running"),
        ("worker", "stopped"),
        ("supervisor", "stopped"),
    ]
    assert servers.up(settings, quiet) == first == servers.status(settings)
    assert prefect_server.answers(first[2].url)
    servers.down(settings, quiet)
    assert not processes_with(str(settings.root))
    assert servers.status(settings)[2].state == "stopped"
    assert not (settings.root / "services.json").exists()
    servers.down(settings, quiet)


def test_a_service_that_was_killed_is_started_again(
    tmp_path: Path, elsewhere: Callable[..., Settings], tidy: list[Settings]
) -> None:
    settings = elsewhere(tmp_path / "home")
    tidy.append(settings)
    pid = servers.up(settings, quiet)[2].pid
    assert pid is not None
    process.stop(pid, 5)
    assert servers.status(settings)[2].state == "stopped"
    assert servers.up(settings, quiet)[2].state == "running"


def test_a_recycled_pid_is_no_service(tmp_path: Path, elsewhere: Callable[..., Settings]) -> None:
    settings = elsewhere(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    entry = {"pid": other.pid, "started": "another-boot/1", "url": "http://127.0.0.1:1", "health": "http://127.0.0.1:1"}
    (tmp_path / "services.json").write_text(json.dumps({"reports": entry}))
    assert servers.status(settings)[2].state == "stopped"
    servers.down(settings, quiet)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_taken_port_is_named_and_what_was_started_ends(tmp_path: Path, elsewhere: Callable[..., Settings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = elsewhere(
            tmp_path / "home",
            mlflow_uri=None,
            mlflow_port=process.free_port(),
            reports_port=taken.getsockname()[1],
        )
        with pytest.raises(RecipeError, match="DARKROOM_REPORTS_PORT"):
            servers.up(settings, quiet)
    assert [service.state for service in servers.status(settings)] == ["elsewhere"] + 4 * ["stopped"]
    assert not processes_with(str(settings.root))


def test_a_service_that_ends_at_once_shows_its_log(
    tmp_path: Path, elsewhere: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = elsewhere(tmp_path / "home")
    plan = services._plans(settings)[0]
    broken = [sys.executable, "-c", "raise SystemExit('this is why')"]
    monkeypatch.setattr(
        services,
        "_plans",
        lambda _: [replace(plan, command=broken)],
    )
    with pytest.raises(ServiceUnavailable, match="this is why"):
        servers.up(settings, quiet)
    assert servers.status(settings)[2].state == "stopped"


def test_a_profile_that_names_what_up_starts_is_not_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, prefect_port=4321)
    monkeypatch.setenv("PREFECT_API_URL", "http://localhost:4321/api")
    assert servers.status(settings)[0].state == "stopped"
    monkeypatch.setenv("PREFECT_API_URL", "http://localhost:4322/api")
    assert servers.status(settings)[0].state == "elsewhere"


@pytest.mark.slow
def test_up_starts_prefect_mlflow_and_the_reports(tmp_path: Path, tidy: list[Settings]) -> None:
    ports = {f"{name}_port": process.free_port() for name in ("prefect", "mlflow", "reports")}
    settings = Settings(home=tmp_path / "home", **ports)
    tidy.append(settings)
    lines: list[str] = []
    first = servers.up(settings, lines.append)
    assert [service.state for service in first] == ["running"] * 3 + ["stopped"] * 2
    assert len(lines) == 6
    assert servers.up(settings, quiet) == first
    with servers.prefect_api(settings) as url:
        assert url == f"{first[0].url}/api", "a run uses it"
        assert Settings().mlflow_server == first[1].url, "and asks it what is registered"
        assert prefect_server.answers(f"{url}/health")
    with urllib.request.urlopen(first[0].url, timeout=10) as page:
        assert b"<html" in page.read()
    assert Settings().mlflow_server is None
    begun = time.monotonic()
    servers.down(settings, quiet)
    assert time.monotonic() - begun < 2 * services.STOP_SECONDS
    assert not processes_with(str(settings.root))
