"""The monitor, run for real on a champion: healthy, then with new data, then damaged."""

import json
import shutil
import time
from itertools import islice
from typing import Any

import httpx
import pytest

from darkroom.collect import digits
from darkroom.monitoring import run_of
from darkroom.settings import Settings
from darkroom.tracking import open_registry

NEW = 40
DRIFTED, DUE = "darkroom.champion.drifted", "darkroom.retraining.due"


def monitored(workshop: Any, *arguments: str) -> dict[str, Any]:
    done = workshop.command("monitor", "tiny.toml", "--json", *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def events_of(api: httpx.Client, run: str, *wanted: str) -> dict[str, dict[str, Any]]:
    """What a flow run told, by the events' names, once it told those that are wanted."""
    body = {"filter": {"event": {"prefix": ["darkroom."]}, "related": {"id": [f"prefect.flow-run.{run}"]}}, "limit": 50}
    end = time.monotonic() + 30  # the server writes them by and by
    while True:
        answer = api.post("/events/filter", json=body)
        answer.raise_for_status()
        told = {one["event"]: one["payload"] for one in answer.json()["events"]}
        if told.keys() >= set(wanted) or time.monotonic() > end:
            return told
        time.sleep(0.3)


@pytest.fixture(scope="module")
def healthy(finished: Any) -> dict[str, Any]:
    workshop, _ = finished
    return monitored(workshop)


def test_a_fresh_champion_is_healthy_and_measured_from_the_store(finished, healthy, prefect_api) -> None:
    _, outcome = finished
    assert (healthy["decision"], healthy["drifted"], healthy["due"]) == ("healthy", [], [])
    assert healthy["same"].startswith("first")
    assert healthy["new_rows"] == 0
    assert healthy["digests"]["evaluation"] == outcome["digests"]["evaluation"]
    assert set(healthy["reused"]) >= {"collect", "check", "preprocess", "evaluate"}
    assert [one["worse"] for one in healthy["watched"]] == [0.0] * len(healthy["watched"])
    assert healthy["watched"]
    assert events_of(prefect_api, healthy["run"]["id"]) == {}
    body = {"artifacts": {"flow_run_id": {"any_": [healthy["run"]["id"]]}}}
    artifacts = {one["key"]: one["data"] for one in prefect_api.post("/artifacts/filter", json=body).json()}
    assert artifacts["monitor-pictures"].startswith("data:image/")
    assert "at registration" in artifacts["monitor"]


def test_new_data_make_retraining_due_and_the_pictures_stay_the_same_bytes(finished, healthy, prefect_api) -> None:
    workshop, _ = finished
    more = workshop.folder / "more"
    shutil.copytree(workshop.photos, more)
    lines = (more / "metadata.jsonl").read_text().splitlines()
    for item in islice(digits.items(), 150, 150 + NEW):
        (more / item.path).write_bytes(item.read())
        line = {"file_name": item.path, "text": item.caption, "label": item.label, "license": item.licence}
        lines.append(json.dumps(line, ensure_ascii=False))
    (more / "metadata.jsonl").write_text("\n".join(lines))
    # A data set of its own: other tests of the session count on the versions of the first.
    found = monitored(workshop, "--set", "collect.path=more", "--set", "collect.dataset=more")
    assert found["same"].startswith("bytes")
    assert found["new_rows"] == NEW
    assert f"{NEW} accepted pictures are new since it was trained on" in found["reason"]
    told = events_of(prefect_api, found["run"]["id"], DUE)[DUE]
    assert (told["model"], told["version"], told["recipe"]) == ("tiny", "1", "tiny.toml")
    assert "pictures are new" in told["why"]


def test_a_damaged_champion_has_drifted(finished, healthy, prefect_api) -> None:
    workshop, _ = finished
    registry = open_registry(Settings(home=workshop.home), "tiny")
    folder = registry.pipeline_folder(registry.resolve("tiny@champion"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    damaged = bytearray(whole)
    damaged[-200:] = bytes(200)
    weights.write_bytes(damaged)
    try:
        found = monitored(workshop)
    finally:
        weights.write_bytes(whole)
    assert found["decision"] == "drifted"
    assert "unet/diffusion_pytorch_model.safetensors has not the bytes that it was registered with" in found["reason"]
    told = events_of(prefect_api, found["run"]["id"], DRIFTED, DUE)
    assert set(told) == {DRIFTED, DUE}
    assert told[DRIFTED]["page"] == found["run"]["url"]
    points = registry._client.get_metric_history(run_of(registry, "tiny"), "monitor/champion")
    assert [point.value for point in points][-1] == 1.0
    assert len({point.step for point in points}) == len(points) >= 2
    assert registry.run(run_of(registry, "tiny"))["info"]["status"] == "FINISHED"


def test_a_model_without_a_champion_is_a_mistake_that_is_explained(finished) -> None:
    workshop, _ = finished
    done = workshop.command("monitor", "tiny.toml", "--set", 'name="nobody"')
    assert done.returncode == 2
    assert "nobody has no champion to monitor" in done.stderr
