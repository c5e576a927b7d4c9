"""SIGKILL at any moment, then the same command: the same weights, byte for byte, and no process left over."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from darkroom.store import file_digest


def weights(outcome: dict[str, Any]) -> dict[str, str]:
    folder = Path(outcome["paths"]["pipeline"])
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*.safetensors")}


def reached(home: Path) -> str:
    """How far a run had come when it was killed."""
    store = home / "store"
    made = [
        kind
        for kind in ("manifest", "checked", "shards", "checkpoint", "evaluation", "verdict")
        if list(store.glob(f"{kind}/*"))
    ]
    working = (
        sorted(path.name.split("-")[0] for path in (store / ".work").glob("*")) if (store / ".work").exists() else []
    )
    return f"made {made[-1] if made else 'nothing'}, working on {working}"


def kill_and_resume(finished, folder: Path, share: float) -> None:
    """Kill a run after this share of an undisturbed one's time, finish it, and compare."""
    workshop, outcome = finished
    victim = workshop.copy(folder)
    running = victim.start("run", "tiny.toml", "--json")
    time.sleep(share * outcome["wall_seconds"])
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    print(f"killed at {share:.0%}: {reached(victim.home)}")
    deadline = time.monotonic() + 10
    while left := victim.left_over():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    again = victim.run()
    assert weights(again) == weights(outcome)
    assert again["digests"] == outcome["digests"]
    assert again["decision"] in ("promoted", "unchanged")
    assert again["model"]["version"] == "1"
    assert not victim.left_over()


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_killed_and_resumed(finished, tmp_path: Path, share: float) -> None:
    kill_and_resume(finished, tmp_path / "victim", share)


@pytest.mark.slow
@pytest.mark.parametrize("share", [(index + 0.5) / 24 for index in range(24)])
def test_killed_anywhere(finished, tmp_path: Path, share: float) -> None:
    kill_and_resume(finished, tmp_path / "victim", share)


def test_killed_while_training_with_a_server_of_its_own(finished, tmp_path: Path) -> None:
    workshop, outcome = finished
    victim = workshop.copy(tmp_path / "victim")
    del victim.environment["PREFECT_API_URL"]
    running = victim.start("run", "tiny.toml", "--json")
    deadline = time.monotonic() + 180
    while not list((victim.home / "store/.work").glob("checkpoint-*/checkpoints/step-*")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert any("uvicorn" in line for line in victim.left_over())
    assert any("darkroom.training" in line for line in victim.left_over())
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    deadline = time.monotonic() + 10
    while left := victim.left_over():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    saved = {path.name for path in (victim.home / "store/.work").glob("checkpoint-*/checkpoints/step-*")}
    assert saved  # it goes on from here, and not from the start
    again = victim.run()
    assert weights(again) == weights(outcome)
    assert not victim.left_over()
