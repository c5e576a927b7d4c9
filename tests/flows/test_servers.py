"""Which Prefect API a run uses, that nothing is lost when its server ends, and that `up` and `down` are exact."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkroom import process
from darkroom.errors import ServiceUnavailable
from darkroom.settings import Settings
from flows import prefect_server, servers

ROOT = Path(__file__).resolve().parents[2]
TASKS = 30

# A run, as `darkroom run` makes one: the server starts while prefect is imported.
TOY = f"""
import sys
from pathlib import Path
from darkroom.settings import Settings
from flows import servers
with servers.start(Settings(home=Path(sys.argv[1]))) as pending:
    from prefect import flow, get_run_logger, task
    from prefect.artifacts import create_markdown_artifact
    @task
    def count(number):
        get_run_logger().info("task %s", number)
    @flow
    def toy():
        for number in range({TASKS}):
            count(number)
        create_markdown_artifact("text", key="page")
        get_run_logger().info("last words")
    pending.wait()
    toy()
"""


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if prefect were not imported, nothing were configured and the current folder held no settings."""
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-of-the-user"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder in which a toy run was recorded by a server of its own, which has ended."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home / "nobody")}
    run = subprocess.run(
        [sys.executable, "-c", TOY, str(home)], capture_output=True, text=True, env=environment, cwd=home, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert "had recorded" not in run.stderr
    return home


@pytest.fixture
def home(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it: making Prefect's tables takes ten seconds."""
    return shutil.copytree(recorded, tmp_path / "home")


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def ask(url: str, body: object) -> Any:
    """POST to Prefect's API."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


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


def test_a_run_is_recorded_whole_and_a_second_server_shows_it(home: Path, recorded: Path) -> None:
    assert not processes_with(str(recorded)), "the run's server ended with it"
    before = dict(os.environ)
    with servers.prefect_api(Settings(home=home)) as url:
        assert os.environ["PREFECT_API_URL"] == url
        (flow_run,) = ask(f"{url}/flow_runs/filter", {})
        states = Counter(run["state_type"] for run in ask(f"{url}/task_runs/filter", {}))
        logs = [log["message"] for log in ask(f"{url}/logs/filter", {})]
        (artifact,) = ask(f"{url}/artifacts/filter", {})
    assert flow_run["state_type"] == "COMPLETED"
    assert states == {"COMPLETED": TASKS}
    assert sum(message.startswith("task ") for message in logs) == TASKS
    assert "last words" in logs
    assert artifact["key"] == "page"
    assert dict(os.environ) == before
    assert not processes_with(str(home))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_run_leaves_no_server(home: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from darkroom.settings import Settings; from flows import servers\n"
        "pending = servers.start(Settings(home=Path(sys.argv[1]))); print('started', flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(home)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"started\n"
    words = str(home / "prefect")
    assert until(lambda: bool(processes_with(words)))
    run.kill()
    run.communicate()
    assert until(lambda: not processes_with(words))


def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server, "command", lambda *_: [sys.executable, "-c", "raise SystemExit('this is why')"])
    with (
        pytest.raises(ServiceUnavailable, match=r"(?s)ended with status 1.*this is why"),
        servers.prefect_api(Settings(home=tmp_path)),
    ):
        pass


def test_two_runs_start_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may be making the tables; the second waits for its server to answer, not for its end."""
    monkeypatch.setattr(prefect_server, "command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(prefect_server, "answers", lambda *_: True)
    url = "http://127.0.0.1:1/api"
    with (
        servers.Pending(Settings(home=tmp_path), url, "own") as first,
        servers.Pending(Settings(home=tmp_path), url, "own") as second,
    ):
        first.begin()
        second.begin()
        assert (first.starting, second.starting) == (True, False)
        first.wait()
        second.wait()
        assert (first.starting, second.starting) == (True, True)


def test_a_configured_api_that_is_away_is_named_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{process.free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    begun = time.monotonic()
    with (
        pytest.raises(ServiceUnavailable, match="unset PREFECT_API_URL") as caught,
        servers.prefect_api(Settings(home=tmp_path)),
    ):
        pass
    assert url in str(caught.value)
    assert caught.value.exit_status == 4
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("prefect-of-the-user/profiles.toml", 'active = "x"\n[profiles.x]\nPREFECT_API_URL = "http://there/api/"\n'),
        ("prefect.toml", '[api]\nurl = "http://there/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://there/api"\n'),
        (".env", "PREFECT_API_URL=http://there/api\n"),
    ],
)
def test_every_way_to_configure_an_api_counts(tmp_path: Path, file: str, text: str) -> None:
    assert prefect_server.configured() is None
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert prefect_server.configured() == "http://there/api"
    assert servers.choose(Settings(home=tmp_path)) == ("http://there/api", "configured")
