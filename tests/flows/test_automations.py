"""The shipped files of infra/: what they name exists, and what they say becomes what Prefect takes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
import yaml
from jinja2.sandbox import SandboxedEnvironment

from darkroom.settings import Settings
from flows import automations, deployments
from tasks.events import Name

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = 'the "best"\nof {{ 7 * 7 }} \\ and </script> ümläut'


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Those that are made for two recipes, with a webhook and mail; alone or not."""
    names = [("retrain", "cats"), ("retrain", "dogs"), ("promote", "promote"), ("quality", "cats")]
    known = [SimpleNamespace(entrypoint=f"flows.{flow}.{flow}", name=name, id=uuid4()) for flow, name in names]
    monkeypatch.setattr(automations, "ours", lambda client: known)

    def make(alone: bool, **blocks: UUID) -> dict[str, Any]:
        monkeypatch.setattr(automations, "_notifiers", lambda settings: blocks)
        found = automations.automations(None, Settings(home=tmp_path), alone)
        return {one.name: one for one in found}

    return make


def test_every_event_that_is_waited_for_is_told_by_somebody(made: Any) -> None:
    waited = {event for one in made(False, webhook=uuid4()).values() for event in one.trigger.expect}
    ours = {event for event in waited if event.startswith("darkroom.")}
    assert ours == set(get_args(Name)) - {"darkroom.champion.moved"}  # which asks for nothing


def test_each_recipe_has_its_own_and_sqlite_has_none_that_watch_every_run(made: Any) -> None:
    alone, beside = made(True), made(False)
    assert "darkroom: train cats on new data" in alone
    assert alone["darkroom: train cats on new data"].trigger.match.root == {
        "prefect.resource.id": "darkroom.recipe.cats"
    }
    assert not [name for name in alone if "crashed" in name]
    assert len([name for name in beside if "crashed" in name]) == 3
    assert "darkroom: say that a champion drifted" not in alone, "nobody is to be told"


def test_a_person_is_told_in_valid_json_whatever_the_reason_holds(made: Any) -> None:
    hook = made(True, webhook=uuid4())["darkroom: pause cats when its data is refused"].actions[1]
    event = SimpleNamespace(event="darkroom.data.refused", payload={"why": HOSTILE})
    told = json.loads(SandboxedEnvironment().from_string(hook.payload).render(event=event))
    assert told["subject"] == "cats: the data was refused"
    assert told["text"].startswith(HOSTILE + "\n\nRetraining")
    assert told["event"] == "darkroom.data.refused"


def test_the_promote_flow_is_given_what_the_event_says(made: Any) -> None:
    action = made(True)["darkroom: ask about a challenger"].actions[0]
    assert action.parameters == {"model": "{{ event.payload.model }}", "version": "{{ event.payload.version }}"}


def test_each_recipe_has_every_deployment_of_the_file() -> None:
    found = list(deployments.specs({"cats": "/cats.toml", "digits": "digits"}))
    names = [spec.full_name for spec in found]
    assert len(set(names)) == len(names)
    assert {"retrain/cats", "retrain/digits", "quality/cats"} <= set(names)
    assert all(spec.parameters["recipe"] == "/cats.toml" for spec in found if spec.name == "cats")
    for entry in yaml.safe_load((ROOT / "infra/prefect.yaml").read_text())["deployments"]:
        assert entry["work_pool"]["work_queue_name"] in deployments.QUEUES
        for one in entry["schedules"]:
            assert deployments.schedule(one).active is False


def test_a_worker_in_any_folder_finds_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cats.toml").write_text((ROOT / "recipes/digits.toml").read_text().replace('"digits"', '"cats"', 1))
    monkeypatch.chdir(tmp_path)
    assert deployments.reference("cats.toml")[1] == str(tmp_path / "cats.toml")
    monkeypatch.chdir(ROOT)
    assert deployments.reference("digits") == ("digits", "digits")


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes/worker.yaml"])
def test_what_servers_are_given_is_well_formed_and_names_files_that_are_there(name: str) -> None:
    documents = list(yaml.safe_load_all((ROOT / "infra" / name).read_text()))
    assert all(isinstance(one, dict) for one in documents)
    builds = [one["build"] for one in documents[0].get("services", {}).values() if "build" in one]
    assert all((ROOT / "infra" / one["context"] / one["dockerfile"]).resolve().is_file() for one in builds)
