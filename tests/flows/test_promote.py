"""A person's decision, for real: a run that asks, the served flow that waits, its form answered, the alias moved."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from darkroom import history, process
from darkroom.registry import Registry
from darkroom.settings import Settings
from darkroom.tracking import open_registry

SERVE = "from flows.promote import promote; promote.serve(name='people', pause_on_shutdown=False)"
PATIENCE = 240.0


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, prefect_url: str, make_workshop: Any) -> Any:
    """A workshop whose recipe ran with ``promote = "ask"``, and what that run printed."""
    workshop = make_workshop(tmp_path_factory.mktemp("asking") / "workshop", prefect_url)
    done = workshop.command("run", "tiny.toml", "--set", "register.promote=ask")
    assert done.returncode == 0, done.stderr[-4000:]
    return workshop, done.stdout


@pytest.fixture(scope="module")
def form(asking: Any, prefect_api: httpx.Client) -> "Iterator[Form]":
    """The promote flow, served from a process of its own."""
    workshop, _ = asking
    log = workshop.folder / "serve.log"
    environment = workshop.environment | {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "DARKROOM_TEST_TOKEN": workshop.token}
    command = [sys.executable, "-c", SERVE]
    served = process.spawn(command, log=log, env=environment, cwd=workshop.folder)
    try:
        yield Form(prefect_api, served, log)
    finally:
        process.stop(served, 20)


class Form:
    """The flow's runs as Prefect's page sees them."""

    def __init__(self, api: httpx.Client, served: "subprocess.Popen[bytes]", log: Path) -> None:
        self.http, self.served, self.log = api, served, log

    def _until(self, what: str, answer: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := answer()):
            assert self.served.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < end, f"{what}: {self.log.read_text()[-4000:]}"
            time.sleep(0.3)
        return found

    def start(self, version: str) -> str:
        """Ask for a version to be promoted; returns the flow run's id."""

        def deployed() -> Any:
            answer = self.http.get("/deployments/name/promote/people")
            return answer.json()["id"] if answer.status_code == 200 else None

        identity = self._until("it is not served", deployed)
        body = {"parameters": {"model": "tiny", "version": version}}
        answer = self.http.post(f"/deployments/{identity}/create_flow_run", json=body)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def state(self, run: str, *names: str, asked: int = 0) -> dict[str, Any]:
        """The run once it is in one of these states, having asked at least so often."""

        def reached() -> Any:
            found = self.http.get(f"/flow_runs/{run}").json()
            state = found["state"]
            assert state["type"] not in ("FAILED", "CRASHED") or state["name"] in names, state
            keys = found["empirical_policy"].get("pause_keys") or []
            return found if state["name"] in names and len(keys) >= asked else None

        return dict(self._until(f"never {names}", reached))

    def answer(self, run: str, **fields: Any) -> str:
        """Fill in the form; returns what becomes of the answer: ACCEPT or REJECT."""
        answer = self.http.post(f"/flow_runs/{run}/resume", json={"run_input": fields})
        assert answer.is_success, f"{answer.status_code}: {answer.text}"
        return str(answer.json()["status"])

    def question(self, run: str) -> str:
        """The text that the form shows now; the run suspends a moment before it is there."""

        def written() -> Any:
            state = self.http.get(f"/flow_runs/{run}").json()["state"]
            answer = self.http.get(
                f"/flow_runs/{run}/input/{state['state_details']['run_input_keyset']['description']}"
            )
            return answer.json() if answer.status_code == 200 else None

        return str(self._until("no question", written))

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name, once there is one."""
        body = {"filter": {"event": {"name": [name]}}, "limit": 50}
        return list(self._until(name, lambda: self.http.post("/events/filter", json=body).json()["events"]))

    def until_told(self, name: str, payload: dict[str, str]) -> None:
        """Wait for an event of this name with this payload, and for no second one; others tell theirs here, too."""

        def told() -> int:
            return [one["payload"] for one in self.events(name)].count(payload)

        assert self._until(f"{name} {payload}", told) == 1

    def artifacts(self, run: str) -> dict[str, str]:
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "limit": 100}
        return {one["key"]: one["data"] for one in self.http.post("/artifacts/filter", json=body).json()}


def registry_of(workshop: Any) -> Registry:
    return open_registry(Settings(home=workshop.home), "tiny")


def alias(workshop: Any, name: str) -> str | None:
    found = registry_of(workshop).with_alias("tiny", name)
    return found.version if found else None


def test_a_run_that_asks_leaves_a_challenger_and_says_so(asking, form) -> None:
    workshop, printed = asking
    assert (alias(workshop, "champion"), alias(workshop, "challenger")) == (None, "1")
    assert "tiny: challenger - " in printed
    assert "promote tiny 1" in printed
    waiting = [one for one in form.events("darkroom.challenger.waiting") if one["payload"]["model"] == "tiny"]
    assert waiting[0]["resource"]["prefect.resource.id"] == "darkroom.model.tiny"
    assert waiting[0]["payload"]["version"] == "1"
    assert waiting[0]["payload"]["why"].startswith("PASS: ")
    page = waiting[0]["payload"]["page"].removeprefix(Settings(home=workshop.home).reports_url)
    assert "tiny" in (workshop.home / page.lstrip("/")).read_text("utf-8")


def test_an_approval_in_the_form_moves_the_alias(asking, form) -> None:
    workshop, _ = asking
    run = form.start("challenger")
    form.state(run, "Suspended")
    assert "May version 1 of tiny become the first champion?" in form.question(run)
    shown = form.artifacts(run)
    assert shown["promotion-challenger"].startswith("data:image/")
    assert len(shown["promotion-challenger"]) < 200_000
    assert alias(workshop, "champion") is None

    for wrong in ({"decision": "approve"}, {"decision": "maybe", "name": "Ada"}, {}):  # without a name; no such answer
        assert form.answer(run, **wrong) == "REJECT"
    assert form.state(run, "Suspended")
    assert form.answer(run, decision="more_samples", name="Ada") == "ACCEPT"
    form.state(run, "Suspended", asked=2)
    assert "no champion to compare with" in form.question(run)

    assert form.answer(run, decision="approve", name="Ada", reason="sharp enough") == "ACCEPT"
    form.state(run, "Completed")
    assert (alias(workshop, "champion"), alias(workshop, "challenger")) == ("1", None)
    (move,) = history.moves_of(registry_of(workshop).resolve("tiny/1"))
    assert (move.who, move.why, move.against) == ("Ada", "sharp enough", None)
    told = {"model": "tiny", "version": "1", "before": "", "who": "Ada", "why": "sharp enough"}
    form.until_told("darkroom.champion.moved", told)


def test_more_samples_compare_again_and_a_refusal_meanwhile_settles_it(asking, form) -> None:
    workshop, _ = asking
    hardly = ("--set", "train.steps=1", "--set", "train.learning_rate=2e-6", "--set", "register.promote=ask")
    worse = workshop.run(*hardly)
    assert worse["decision"] == "kept_champion"
    number = worse["model"]["version"]
    registry = registry_of(workshop)
    registry.set_alias(registry.resolve(f"tiny/{number}"), "challenger")

    run = form.start(number)
    form.state(run, "Suspended")
    question = form.question(run)
    assert f"May version {number} of tiny replace version 1 as the champion?" in question
    assert "**FAIL**" in question
    assert set(form.artifacts(run)) >= {"promotion", "promotion-challenger", "promotion-champion"}
    assert form.answer(run, decision="more_samples", name="Bo", count=512) == "ACCEPT"
    form.state(run, "Suspended", asked=2)
    assert "compared again, as Bo asked" in form.question(run).replace("\\", "")
    judged = history.judged_of(registry.resolve(f"tiny/{number}"))
    assert [one.against.version for one in judged] == ["1", "1"]

    refused = workshop.command("refuse", "tiny", number, "--why", "blurred")
    assert refused.returncode == 0, refused.stderr
    assert form.answer(run, decision="approve", name="Bo") == "ACCEPT"
    form.state(run, "Completed")
    assert (alias(workshop, "champion"), alias(workshop, "challenger")) == ("1", None)
    again = workshop.run(*hardly)
    assert again["decision"] == "unchanged"
    assert alias(workshop, "challenger") is None
