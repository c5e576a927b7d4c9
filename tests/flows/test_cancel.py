"""A run that is cancelled on Prefect's page saves, stops within seconds, and can be resumed."""

import time
from pathlib import Path

import pytest

from darkroom.errors import Interrupted
from darkroom.store import file_digest


@pytest.mark.parametrize("asked", ["CANCELLING", "CANCELLED"])
def test_a_flow_that_hears_of_its_cancellation_ends_cancelled(prefect_api, prefect_url: str, asked: str) -> None:
    from prefect import flow
    from prefect.runtime import flow_run
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.retrain import end_cancelled
    from tasks.train import Cancellation

    seen = []

    def state(of: str) -> str:
        return str(prefect_api.get(f"/flow_runs/{of}").json()["state"]["type"])

    @flow(on_failure=[end_cancelled], on_cancellation=[end_cancelled], persist_result=False)
    def long_one() -> None:
        seen.append(flow_run.id)
        cancelled = Cancellation(interval=0.0)
        cancelled.raise_if_asked()  # not yet
        answer = prefect_api.post(f"/flow_runs/{flow_run.id}/set_state", json={"state": {"type": asked}})
        answer.raise_for_status()
        assert state(flow_run.id) == asked
        cancelled.raise_if_asked()
        raise AssertionError("it was not heard")

    settings = {PREFECT_API_URL: prefect_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(settings), pytest.raises(Interrupted, match="was cancelled in Prefect"):
        long_one()
    assert state(seen[0]) == "CANCELLED"


@pytest.mark.slow
def test_a_cancelled_run_stops_and_resumes(finished, prefect_api, tmp_path: Path) -> None:
    workshop, outcome = finished
    victim = workshop.copy(tmp_path / "victim")
    steps = ("--set", "train.steps=5000", "--set", "train.grid_every=5000", "--set", "train.validate_every=5000")
    running = victim.start("run", "tiny.toml", *steps)
    deadline = time.monotonic() + 300
    while not list((victim.home / "store/.work").glob("checkpoint-*/checkpoints/step-*")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = prefect_api.post(
        "/flow_runs/filter",
        json={"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}, "sort": "START_TIME_DESC", "limit": 1},
    ).json()[0]
    asked = prefect_api.post(
        f"/flow_runs/{found['id']}/set_state", json={"state": {"type": "CANCELLING"}, "force": False}
    )
    asked.raise_for_status()
    begin = time.monotonic()
    _, words = running.communicate(timeout=120)
    print(f"stopped {time.monotonic() - begin:.1f} s after it was cancelled")
    assert running.returncode == 130, words[-3000:]
    assert "was cancelled in Prefect" in words
    state = prefect_api.get(f"/flow_runs/{found['id']}").json()["state"]
    assert state["type"] == "CANCELLED"
    (work,) = (victim.home / "store/.work").glob("checkpoint-*")
    saved = sorted(path.name for path in (work / "checkpoints").glob("step-*"))
    assert saved
    assert not victim.left_over()
    again = victim.run("--set", "train.steps=24")
    assert again["digests"]["checkpoint"] == outcome["digests"]["checkpoint"]
    name = "unet/diffusion_pytorch_model.safetensors"
    assert file_digest(Path(again["paths"]["pipeline"]) / name) == file_digest(
        Path(outcome["paths"]["pipeline"]) / name
    )
