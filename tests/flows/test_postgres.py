"""With PostgreSQL in the settings, Prefect's server uses it and the shipped automations resume what was lost."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom import process

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = """
from time import sleep
from prefect import flow
from prefect.runtime import flow_run

@flow
def sleeper():
    if flow_run.run_count == 1:
        sleep(600)
"""


def program(name: str) -> str | None:
    """Where one of PostgreSQL's own programs is: Debian keeps them out of the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A cluster of its own on a loopback port, which goes with the test. It refuses to run as root."""
    if not program("initdb"):
        pytest.skip("PostgreSQL is not installed: infra/test_services.sh installs it where that is possible")
    folder = Path(tempfile.mkdtemp(prefix="darkroom-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    port, data = process.free_port(), folder / "data"
    quiet = {"check": True, "capture_output": True, "cwd": folder}
    initdb, server = str(program("initdb")), str(program("postgres"))
    subprocess.run([*as_user, initdb, "-D", str(data), "-U", "darkroom", "-A", "trust", "--no-sync"], **quiet)
    command = [*as_user, server, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    running = process.spawn(command, log=folder / "log", env=dict(os.environ), cwd=folder)
    try:
        createdb = [*as_user, str(program("createdb")), "-h", "127.0.0.1", "-p", str(port), "-U", "darkroom", "prefect"]
        for _ in range(100):
            made = subprocess.run(createdb, capture_output=True, text=True, cwd=folder, check=False)
            if made.returncode == 0:
                break
            time.sleep(0.1)
        assert made.returncode == 0, made.stderr + (folder / "log").read_text()
        yield f"postgresql://darkroom:planted-password@127.0.0.1:{port}/prefect"
    finally:
        process.stop(running, 10)
        shutil.rmtree(folder, ignore_errors=True)


def test_automations_resume_a_run_whose_worker_was_killed(
    database: str, bring_up: Callable[..., Any], wait_for: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sleeper.py").write_text(SLEEPER)
    settings = {
        "DARKROOM_PREFECT_DATABASE_URL": database,
        "DARKROOM_MLFLOW_URI": "http://mlflow.invalid",  # which nothing here needs
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path / "modules"))),
    }
    with bring_up(tmp_path / "workshop", **settings) as house:
        assert not (house.workshop.home / "prefect" / "prefect.db").exists()
        assert house.ask("GET", "/work_pools/darkroom")["concurrency_limit"] is None, "runs may go side by side"
        shipped = {one["name"]: one for one in house.ask("POST", "/automations/filter", limit=200)}
        silent = shipped["darkroom: a run without heartbeats has crashed"]
        assert silent["trigger"]["within"] == 90
        hasty = {**silent, "trigger": {**silent["trigger"], "within": 50}}  # heartbeats come every 30 s
        wanted = {key: hasty[key] for key in ("name", "description", "enabled", "trigger", "actions")}
        house.ask("PUT", f"/automations/{silent['id']}", **wanted)

        flow = house.ask("POST", "/flows/", name="sleeper")
        deployment = {"flow_id": flow["id"], "name": "sleeper", "entrypoint": "sleeper.sleeper", "tags": ["darkroom"]}
        house.ask("POST", "/deployments/", **deployment, work_pool_name="darkroom", pull_steps=[])
        run = house.start("sleeper/sleeper")
        beats = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
        wait_for(lambda: house.ask("POST", "/events/filter", filter=beats)["events"] or None, 120)
        os.kill(house.pid("worker"), signal.SIGKILL)
        done = house.reach(run, "Completed")
        assert done["run_count"] == 2
        states = house.api.get("/flow_run_states/", params={"flow_run_id": run}).json()
        messages = [state["message"] for state in states if state["name"] in ("Crashed", "AwaitingRetry")]
        assert [message.partition(" ")[0] for message in messages] == ["Crashed:", "It"], messages
        assert "fell silent" in messages[0], "by the automation, not by the supervisor"
        written = [path for path in house.workshop.home.rglob("*") if path.is_file()]
        assert not [path for path in written if b"planted-password" in path.read_bytes()]
