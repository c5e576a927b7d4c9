"""`darkroom up` for real: its deployments run, its schedules come, and what is killed comes back. One `up` for all."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from flows.supervisor import processes

ROOT = Path(__file__).resolve().parents[2]
FLOWS = {path.stem for path in (ROOT / "flows").glob("*.py")}
Told = tuple[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """A webhook's address, and what it was told."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hidden-path", heard
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def house(bring_up: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, told: Told) -> Iterator[Any]:
    with bring_up(tmp_path_factory.mktemp("up") / "workshop", DARKROOM_NOTIFY_WEBHOOK=told[0]) as made:
        yield made


def states(house: Any, run_id: str) -> list[str]:
    """The names of a flow run's states, in their order."""
    found = house.api.get("/flow_run_states/", params={"flow_run_id": run_id}).json()
    return [state["name"] for state in found]


def test_nothing_runs_by_itself_until_a_schedule_is_turned_on(house: Any) -> None:
    shown = house.workshop.command("status").stdout
    for row in ("prefect", "mlflow", "reports", "worker", "supervisor"):
        assert re.search(rf"^{row} +running ", shown, re.M), shown
    assert re.search(r"worker +online +\S+ \(here\), last heard of", shown), shown
    assert "0 of" in shown
    assert not house.runs("retrain/tiny")
    assert not house.runs("quality/tiny")


def test_up_again_changes_nothing_that_a_person_set(house: Any) -> None:
    before = {name: house.pid(name) for name in ("prefect", "mlflow", "reports", "worker", "supervisor")}
    deployment = house.deployment("retrain/tiny")
    changed = {**deployment["parameters"], "overrides": {"train": {"batch": 8}}}
    house.ask("PATCH", f"/deployments/{deployment['id']}", parameters=changed)
    house.ask("PATCH", f"/deployments/{deployment['id']}/schedules/{deployment['schedules'][0]['id']}", active=True)
    done = house.workshop.command("up")
    assert done.returncode == 0, done.stderr
    assert before == {name: house.pid(name) for name in before}
    after = house.deployment("retrain/tiny")
    assert after["parameters"] == changed
    assert after["schedules"][0]["active"]
    assert [one["id"] for one in after["schedules"]] == [one["id"] for one in deployment["schedules"]]
    house.ask("PATCH", f"/deployments/{deployment['id']}", parameters=deployment["parameters"])
    house.ask("PATCH", f"/deployments/{deployment['id']}/schedules/{deployment['schedules'][0]['id']}", active=False)


def test_the_form_shows_the_recipes_fields_with_what_they_mean(house: Any) -> None:
    schema = house.deployment("retrain/tiny")["parameter_openapi_schema"]
    defined = schema["definitions"]
    train = defined["TrainOverrides"]["properties"]
    assert "Optimiser steps" in train["steps"]["description"]
    assert train["steps"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    assert "gain" in defined["GateOverrides"]["properties"]
    refused = house.api.post(
        f"/deployments/{house.deployment('retrain/tiny')['id']}/create_flow_run",
        json={"parameters": {"overrides": {"train": {"steps": 0}}}},
    )
    assert refused.status_code == 409
    assert "less than the minimum" in refused.text


def test_prefects_own_command_deploys_the_same_file(house: Any, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "infra/prefect.yaml").read_text())
    content["deployments"] = [one for one in content["deployments"] if one["entrypoint"].split(".")[1] in FLOWS]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [*(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml")],
        cwd=tmp_path,
        env={**house.workshop.environment, "PREFECT_API_URL": str(house.api.base_url).rstrip("/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made, ours = house.deployment("retrain/digits"), house.deployment("retrain/tiny")
    for same in ("entrypoint", "work_pool_name", "work_queue_name", "concurrency_options", "parameter_openapi_schema"):
        assert made[same] == ours[same]
    assert [one["active"] for one in made["schedules"]] == [False]
    house.ask("DELETE", f"/deployments/{made['id']}")


def test_a_cron_schedule_in_a_time_zone_makes_runs(house: Any, wait_for: Callable[..., Any]) -> None:
    done = house.workshop.command("schedule", "tiny", "--cron", "30 2 * * *", "--timezone", "Asia/Taipei")
    assert done.returncode == 0, done.stderr
    runs = wait_for(lambda: house.runs("retrain/tiny") or None)
    for run in runs:
        local = datetime.fromisoformat(run["expected_start_time"]).astimezone(ZoneInfo("Asia/Taipei"))
        assert (local.hour, local.minute) == (2, 30)
    assert len({run["expected_start_time"] for run in runs}) == len(runs) > 1
    assert re.search(r"retrain/tiny +30 2 \* \* \* +Asia/Taipei +on", done.stdout), done.stdout
    off = house.workshop.command("schedule", "tiny", "--off")
    assert re.search(r"retrain/tiny +30 2 \* \* \* +Asia/Taipei +off", off.stdout), off.stdout + off.stderr
    wait_for(lambda: True if not house.runs("retrain/tiny") else None)


def test_a_killed_worker_comes_back_and_its_run_goes_on(house: Any, wait_for: Callable[..., Any]) -> None:
    run = house.start("retrain/tiny")
    house.reach(run, "Running")
    wait_for(lambda: run in processes() or None)
    worker = house.pid("worker")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: run not in processes() or None, 10)  # it never outlives its worker
    done = house.reach(run, "Completed")
    assert done["run_count"] == 2
    assert house.pid("worker") != worker
    names = states(house, run)
    assert [name for name in names if name in ("Crashed", "AwaitingRetry")] == ["Crashed", "AwaitingRetry"]


def test_what_did_not_change_is_known_at_once(house: Any, wait_for: Callable[..., Any], told: Told) -> None:
    """Of a retrained recipe there is nothing to announce; one refused batch is told once, and pauses the schedule."""
    again, quality = house.start("retrain/tiny"), house.start("quality/tiny")
    house.reach(again, "Completed")
    house.reach(quality, "Completed")
    assert len(house.runs("retrain/tiny")) == 2, "no event asked for another one"
    broken = {path: path.read_bytes() for path in sorted(house.workshop.photos.glob("*.png"))[:120]}
    for path in broken:
        path.write_bytes(b"broken")
    refused = house.start("quality/tiny")
    assert wait_for(lambda: house.run(refused)["state_name"] == "Failed" or None, 120)
    wait_for(lambda: house.deployment("retrain/tiny")["paused"] or None)
    wait_for(lambda: told[1] or None)
    assert [one["event"] for one in told[1]] == ["darkroom.data.refused"]
    assert told[1][0]["subject"] == "tiny: the data was refused"
    for path, content in broken.items():
        path.write_bytes(content)
    assert told[0] not in "".join(path.read_text() for path in (house.workshop.home / "logs").iterdir())


def test_a_server_elsewhere_needs_nothing_but_settings(house: Any, another: Any, wait_for: Callable[..., Any]) -> None:
    """Another machine's `up`: it registers and works there, and starts no server of its own."""
    there = {
        "PREFECT_API_URL": str(house.api.base_url).rstrip("/"),
        "DARKROOM_MLFLOW_URI": "http://mlflow.invalid",
        "DARKROOM_POOL": "others",
    }
    with another("small", **there) as workshop:
        assert json.loads((workshop.home / "services.json").read_text()).keys() == {"reports", "worker", "supervisor"}
        assert house.deployment("retrain/small")["work_pool_name"] == "others"
        assert house.deployment("retrain/tiny")["work_pool_name"] == "darkroom", "what was there stays as it was"
        run = house.start("quality/small")
        house.reach(run, "Completed")
        assert (workshop.home / "store" / "checked").exists()
        assert workshop.command("schedule", "small", "--remove").returncode == 0
    assert house.pid("prefect") in {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}


def test_an_overlap_is_refused_and_down_leaves_nothing_of_a_training(house: Any, wait_for: Callable[..., Any]) -> None:
    refuse = house.workshop.command("schedule", "tiny", "--flow", "retrain", "--overlap", "refuse")
    assert refuse.returncode == 0, refuse.stderr
    long = {"train": {"steps": 5000, "checkpoint_every": 5000, "validate_every": 5000, "grid_every": 5000}}
    run = house.start("retrain/tiny", overrides=long)
    house.reach(run, "Running")
    house.reach(house.start("retrain/tiny"), "Cancelled")
    work = house.workshop.home / "store" / ".work"
    wait_for(lambda: [one for one in work.glob("checkpoint-*/events.jsonl") if one.stat().st_size] or None, 120)
    done = house.workshop.command("down")
    assert done.returncode == 0, done.stderr
    assert not house.workshop.left_over()
    with contextlib.closing(sqlite3.connect(house.workshop.home / "prefect" / "prefect.db")) as database:
        ((state,),) = database.execute("SELECT state_type FROM flow_run WHERE id = ?", (run,)).fetchall()
    assert state in ("CRASHED", "RUNNING", "SCHEDULED"), "which the next `up` resumes"
