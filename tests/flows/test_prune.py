"""Keeping house after real runs: what is needed stays usable, and the rest is gone from store, MLflow and Prefect."""

import json
import shutil
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from darkroom.explain import explain
from darkroom.pruning.prune import prune
from darkroom.settings import Settings
from darkroom.store import Store
from darkroom.tracking import open_registry
from darkroom.versions import log
from darkroom.versions.restore import restore
from tasks.prune import FLOWS

FAILS = "gate.limits.fd_clip_digits_ratio={max=0.0}"
ANY_AGE = {"DARKROOM_PRUNE_AGE_HOURS": "0", "DARKROOM_PRUNE_UNFINISHED_DAYS": "0"}
TAGS = ("manifest", "checked", "shards", "checkpoint", "evaluation")


def last_json(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def house(finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A home of its own with the finished run and one that failed the gate, and the outcomes of both."""
    first, outcome = finished
    workshop = first.copy(tmp_path_factory.mktemp("house") / "workshop")
    shutil.copytree(first.home, workshop.home, ignore=shutil.ignore_patterns("services.json"))
    worse = workshop.run("--set", "train.steps=1", "--set", "train.learning_rate=1e-6", "--set", FAILS)
    assert worse["decision"] == "kept_champion"
    return workshop, outcome, worse


def test_what_is_needed_stays_and_works_and_the_rest_is_gone(house, tmp_path: Path) -> None:
    workshop, outcome, worse = house
    store = workshop.home / "store"
    registry = open_registry(Settings(home=workshop.home), "tiny")
    left = {f"darkroom.{kind}": f"{kind}-of-a-killed-run" for kind in TAGS}
    registry.close_run(registry.open_run("killed", "tiny-killed", {}, left), "KILLED")
    assert len(registry.attempts()) == 1

    dry = prune(Settings(home=workshop.home, prune_age_hours=0, prune_unfinished_days=0), 0, dry_run=True)
    assert (store / "checkpoint" / worse["digests"]["checkpoint"]).is_dir()
    done = last_json(workshop.command("prune", "--keep", "0", "--json", **ANY_AGE))
    counts = {row["what"]: row["count"] for row in done["freed"]}
    assert {one.kind: one.count for one in dry.freed}.items() <= counts.items()
    assert done["bytes"] > 1_000_000
    for kind in ("checkpoint", "evaluation", "verdict"):
        assert not (store / kind / worse["digests"][kind]).exists()
    assert registry.attempts() == []

    again = workshop.run()
    assert again["decision"] == "unchanged"
    assert set(again["reused"]) >= {"check", "preprocess", "train", "evaluate", "compare"}
    assert explain(registry, "tiny@champion", Settings(home=workshop.home))["missing"] == []
    made = last_json(workshop.command("run", outcome["model"]["uri"], "--json"))
    assert made["reproduced"]
    assert "train" in made["reused"]
    kept = Store(store)
    restored = restore(log.checked_of(log.resolve("tiny", "1", kept), kept), tmp_path / "one", kept)
    assert restored.written > 0
    assert restored.lost == []
    for version in registry.versions("tiny"):  # also the one whose store artifacts are gone
        assert (registry.pipeline_folder(version) / "model_index.json").is_file()


def test_old_flow_runs_of_darkroom_go_with_their_artifacts_and_logs(
    prefect_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, foreign = f"prune-{uuid.uuid4().hex}", f"foreign-{uuid.uuid4().hex}"
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    with httpx.Client(base_url=prefect_url, timeout=30) as api:
        runs = {
            name: [_flow_run(api, flow, state) for flow, state in ((ours, state), (foreign, state))]
            for name, state in (("ended", "COMPLETED"), ("going", "RUNNING"))
        }
        spared = _flow_run(api, ours, "COMPLETED")
        for run in (*runs["ended"], *runs["going"], spared):
            _artifact_and_log(api, run)

        def there(run: str) -> tuple[int, int, int]:
            wanted = {"flow_run_id": {"any_": [run]}}
            found = api.post("/artifacts/filter", json={"artifacts": wanted}).json()
            logs = api.post("/logs/filter", json={"logs": wanted}).json()
            return api.get(f"/flow_runs/{run}").status_code, len(found), len(logs)

        pruned = _prune_prefect(prefect_url, (ours,), [spared], 30)
        assert there(runs["ended"][0]) == (200, 1, 1)
        assert [one.count for one in pruned] == [0, 0]
        assert [one.count for one in _prune_prefect(prefect_url, (ours,), [spared], 0)] == [1, 1]
        assert there(runs["ended"][0]) == (404, 0, 0)
        for run in (runs["ended"][1], *runs["going"], spared):
            assert there(run) == (200, 1, 1)


def _flow_run(api: httpx.Client, flow: str, state: str) -> str:
    flow_id = api.post("/flows/", json={"name": flow}).json()["id"]
    run: str = api.post("/flow_runs/", json={"flow_id": flow_id, "state": {"type": "PENDING"}}).json()["id"]
    for one in ("RUNNING", state):
        body = {"state": {"type": one, "timestamp": datetime.now(UTC).isoformat()}, "force": True}
        assert api.post(f"/flow_runs/{run}/set_state", json=body).is_success
    return run


def _artifact_and_log(api: httpx.Client, run: str) -> None:
    body = {"key": "pruned", "type": "markdown", "data": "text", "flow_run_id": run}
    assert api.post("/artifacts/", json=body).is_success
    line = {"name": "n", "level": 20, "message": "m", "timestamp": datetime.now(UTC).isoformat(), "flow_run_id": run}
    assert api.post("/logs/", json=[line]).is_success


def _prune_prefect(url: str, flows: tuple[str, ...], spared: list[str], days: int) -> Any:
    """What the task does, in this process, upon these flows alone."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks import prune

    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: url}):
        patch.setattr(prune, "FLOWS", flows)
        patch.setenv("DARKROOM_PRUNE_PREFECT_DAYS", str(days))
        return prune.prune_prefect.__wrapped__.fn(spared, False)


def test_every_flow_is_known_to_pruning() -> None:
    import ast

    names = set()
    for path in (Path(__file__).parents[2] / "flows").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "flow":
                names |= {word.value.value for word in node.keywords if word.arg == "name"}  # type: ignore[attr-defined]
    assert {"retrain", "prune"} <= names <= set(FLOWS)
