"""Which runs the supervisor takes for lost, and which of them it starts again."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Completed, Crashed, Pending, Running

from darkroom.settings import Settings
from flows import supervisor
from flows.supervisor import Supervisor
from flows.worker import name_of

DEPLOYMENT = uuid4()


@dataclass
class Api:
    """What the supervisor asks of Prefect's API, over a dictionary of runs."""

    runs: dict[UUID, FlowRun] = field(default_factory=dict)
    history: dict[UUID, list[State]] = field(default_factory=dict)
    heard: set[UUID] = field(default_factory=set)

    def read_flow_runs(self, *, flow_run_filter: Any, offset: int = 0, **_: Any) -> list[FlowRun]:
        types = flow_run_filter.state.type.any_
        found = [run for run in self.runs.values() if run.state and run.state.type in types]
        if flow_run_filter.deployment_id:
            found = [run for run in found if run.deployment_id in flow_run_filter.deployment_id.any_]
        return sorted(found, key=lambda run: run.expected_start_time, reverse=True)[offset:]

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        return self.runs[run_id]

    def read_flow_run_states(self, run_id: UUID) -> list[State]:
        return self.history[run_id]

    def read_deployments(self, *, offset: int = 0, **_: Any) -> list[Any]:
        return [SimpleNamespace(id=DEPLOYMENT)][offset:]

    def set_flow_run_state(self, run_id: UUID, state: State, force: bool) -> None:
        assert force
        kept = state.model_copy(update={"id": uuid4(), "timestamp": datetime.now(UTC)})
        self.runs[run_id] = self.runs[run_id].model_copy(update={"state": kept})
        self.history[run_id].append(kept)

    def request(self, method: str, path: str, json: Any) -> Any:
        said = [str(run) for run in self.heard]
        (wanted,) = json["filter"]["resource"]["id"]
        events = [one for one in said if wanted.endswith(one)]
        return SimpleNamespace(json=lambda: {"events": events})

    def add(self, settings: Settings, state: State, age: float = 300, deployment: bool = True, **more: Any) -> FlowRun:
        """A run in this state since ``age`` seconds, by default of our worker."""
        begun = datetime.now(UTC) - timedelta(seconds=age)
        state = state.model_copy(update={"timestamp": begun, "id": uuid4()})
        fields: dict[str, Any] = {"labels": {"prefect.worker.name": name_of(settings)}, "parameters": {"recipe": "x"}}
        run = FlowRun(
            flow_id=uuid4(),
            deployment_id=DEPLOYMENT if deployment else None,
            work_pool_name="darkroom" if deployment else None,
            state=state,
            expected_start_time=begun,
            **{**fields, **more},
        )
        self.runs[run.id], self.history[run.id] = run, [state]
        return run

    def named(self, run: FlowRun) -> str:
        state = self.runs[run.id].state
        assert state is not None
        return str(state.name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, crash_retries=2)


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The runs that have a process here."""
    found: set[str] = set()
    monkeypatch.setattr(supervisor, "processes", lambda: set(found))
    return found


def test_a_run_whose_process_is_gone_goes_on_and_one_that_lives_is_left_alone(
    settings: Settings, present: set[str]
) -> None:
    api, watch = Api(), Supervisor(settings)
    lost, alive = api.add(settings, Running()), api.add(settings, Running(), parameters={"recipe": "y"})
    present.add(str(alive.id))
    watch.look(api)
    assert api.named(lost) == "Running", "seen once: it may just be ending"
    watch.look(api)
    assert [state.name for state in api.history[lost.id]] == ["Running", "Crashed", "AwaitingRetry"]
    assert api.named(alive) == "Running"


def test_it_goes_on_a_bounded_number_of_times(settings: Settings, present: set[str]) -> None:
    api, watch = Api(), Supervisor(settings)
    run = api.add(settings, Running())
    for _ in range(5):
        watch.look(api)
        watch.look(api)
        if api.named(run) == "AwaitingRetry":
            api.set_flow_run_state(run.id, Running(), force=True)
    names = [state.name for state in api.history[run.id]]
    assert names.count("AwaitingRetry") == settings.crash_retries
    assert names[-1] == "Crashed"


def test_a_run_that_ends_between_two_looks_keeps_its_end(settings: Settings, present: set[str]) -> None:
    api, watch = Api(), Supervisor(settings)
    run = api.add(settings, Running())
    watch.look(api)
    api.set_flow_run_state(run.id, Completed(), force=True)
    watch.look(api)
    assert api.named(run) == "Completed"


@pytest.mark.parametrize(("age", "name"), [(5, "Pending"), (300, "AwaitingRetry")])
def test_a_run_that_never_began_goes_on_when_it_had_its_time(
    settings: Settings, present: set[str], age: float, name: str
) -> None:
    api, watch = Api(), Supervisor(settings)
    run = api.add(settings, Pending(), age=age, labels={})
    watch.look(api)
    watch.look(api)
    assert api.named(run) == name


def test_a_run_that_was_being_cancelled_ends_cancelled(settings: Settings, present: set[str]) -> None:
    api, watch = Api(), Supervisor(settings)
    run = api.add(settings, Cancelling())
    watch.look(api)
    watch.look(api)
    assert api.named(run) == "Cancelled"


def test_silence_counts_only_as_long_as_the_api_was_there_to_hear(settings: Settings, present: set[str]) -> None:
    now = [0.0]
    api, watch = Api(), Supervisor(settings, clock=lambda: now[0])
    silent = api.add(settings, Running(), deployment=False, labels={})
    speaking = api.add(settings, Running(), deployment=False, labels={})
    api.heard.add(speaking.id)
    watch.look(api)
    watch.look(api)
    assert api.named(silent) == "Running"
    now[0] += supervisor.SILENT_SECONDS + 1
    watch.look(api)
    watch.look(api)
    assert api.named(silent) == "Crashed", "of no deployment: nobody could start it again"
    assert api.named(speaking) == "Running"


@pytest.mark.parametrize(("parameters", "name"), [({"recipe": "x"}, "Crashed"), ({"recipe": "y"}, "AwaitingRetry")])
def test_a_crashed_run_that_a_later_one_made_needless_stays_so(
    settings: Settings, present: set[str], parameters: dict[str, str], name: str
) -> None:
    api, watch = Api(), Supervisor(settings)
    crashed = api.add(settings, Crashed(), age=900)
    api.add(settings, Completed(), age=30, parameters=parameters)
    watch.look(api)
    assert api.named(crashed) == name
