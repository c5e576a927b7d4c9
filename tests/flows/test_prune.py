"""Keeping house after real runs: what is needed stays usable, and the rest is gone from store, MLflow and Prefect."""

import json
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    """A home of its own with a run and one that failed the gate, and the outcomes of both."""
    first, _ = finished
    workshop = first.copy(tmp_path_factory.mktemp("house") / "workshop")  # others add to the finished one
    outcome = workshop.run()
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
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks import prune as pruning

    ours, foreign = f"prune-{uuid.uuid4().hex}", f"foreign-{uuid.uuid4().hex}"
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    monkeypatch.setattr(pruning, "FLOWS", (ours,))
    with temporary_settings({PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        old, spared, theirs = (_flow_run(client, flow, ended=True) for flow in (ours, ours, foreign))
        going = _flow_run(client, ours, ended=False)

        def after(days: int) -> list[int]:
            monkeypatch.setenv("DARKROOM_PRUNE_PREFECT_DAYS", str(days))
            return [one.count for one in pruning.prune_prefect.__wrapped__.fn([str(spared)], False)]

        assert after(30) == [0, 0]
        assert _what_is_left(client, old) == (True, 1, 1)
        assert after(0) == [1, 1]
        assert _what_is_left(client, old) == (False, 0, 0)
        for run in (spared, theirs, going):
            assert _what_is_left(client, run) == (True, 1, 1)


def _flow_run(client: Any, name: str, *, ended: bool) -> uuid.UUID:
    """A flow run with an artifact and a line of its log."""
    from prefect import flow
    from prefect.client.schemas.actions import ArtifactCreate, LogCreate
    from prefect.states import Completed, Running

    run: uuid.UUID = client.create_flow_run(flow(name=name)(lambda: None), state=Running()).id
    client.create_artifact(ArtifactCreate(key="pruned", type="markdown", data="text", flow_run_id=run))
    line = LogCreate(name="n", level=20, message="m", timestamp=datetime.now(UTC), flow_run_id=run)
    client.create_logs([line])
    if ended:
        client.set_flow_run_state(run, Completed(), force=True)
    return run


def _what_is_left(client: Any, run: uuid.UUID) -> tuple[bool, int, int]:
    """(whether it is there, its artifacts, its lines of log)."""
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        LogFilter,
        LogFilterFlowRunId,
    )
    from prefect.exceptions import ObjectNotFound

    artifacts = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    try:
        client.read_flow_run(run)
        there = True
    except ObjectNotFound:
        there = False
    return there, len(client.read_artifacts(artifact_filter=artifacts)), len(client.read_logs(log_filter=logs))


def test_every_flow_is_known_to_pruning() -> None:
    import ast

    names = set()
    for path in (Path(__file__).parents[2] / "flows").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "flow":
                names |= {word.value.value for word in node.keywords if word.arg == "name"}
    assert {"retrain", "prune"} <= names <= set(FLOWS)
