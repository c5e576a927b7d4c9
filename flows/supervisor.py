"""The supervisor that `darkroom up` starts, `python -m flows.supervisor PORT`: what died is started again.

Daemons of `up` that were killed come back. On SQLite it also does what Prefect's automations do on PostgreSQL: a flow
run whose process is gone is marked Crashed, and one of a deployment is scheduled again, at most
``DARKROOM_CRASH_RETRIES`` times; it goes on where it stopped. One supervisor a home folder, and one run at a time.

A run counts as lost when its worker is on this machine and no process carries its id, seen twice; elsewhere, or without
a worker, when it fell silent for three heartbeats. A process that is there is never taken for lost: two of a run would
be worse than a late one.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import AwaitingRetry, Cancelled, Crashed

from darkroom.errors import DarkroomError
from darkroom.settings import Settings

from . import health
from .deployments import TAG, ours
from .services import alone, revive
from .worker import name_of

SILENT_SECONDS = 100.0  # three heartbeats of prefect_server.HEARTBEATS
PENDING_SECONDS = 60.0  # a worker starts a run's process within seconds
RECENT = timedelta(days=1)  # a run that crashed before that is not resumed
LOST = "its process is gone"
LOG = logging.getLogger("darkroom.supervisor")


class Supervisor:
    """What was seen so far, and what is done about it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._suspects: dict[UUID, UUID] = {}  # run and its state, when its process was missing at the last look
        self._since = clock()  # from when on the API answered
        self._given_up: set[UUID] = set()

    def look(self, client: SyncPrefectClient) -> None:
        """Find the runs that were lost since the last look, and resume those that can be."""
        here = processes()
        suspects: dict[UUID, UUID] = {}
        for run in _runs(client, StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
            if run.state is None or not self._missing(client, run, here):
                continue
            if self._suspects.get(run.id) == run.state.id:
                self._lose(client, run)
            else:
                suspects[run.id] = run.state.id
        self._suspects = suspects
        for run in self._crashed(client):
            self._resume(client, run)

    def away(self) -> None:
        """The API did not answer: what happened meanwhile is not known, heartbeats included."""
        self._since, self._suspects = self._clock(), {}

    def _missing(self, client: SyncPrefectClient, run: FlowRun, here: set[str]) -> bool:
        """Whether nothing shows that this run lives."""
        assert run.state is not None
        if str(run.id) in here:
            return False
        age = (datetime.now(UTC) - run.state.timestamp).total_seconds()
        worker = run.labels.get("prefect.worker.name")
        if run.state.is_pending():
            # Between the worker's word and the first of the process, nothing else is known of a run.
            on_us = run.work_pool_name == self._settings.pool and worker in (None, name_of(self._settings))
            return on_us and age > PENDING_SECONDS
        if worker == name_of(self._settings):
            return True
        observed = self._clock() - self._since
        return min(age, observed) > SILENT_SECONDS and not _heard(client, run, SILENT_SECONDS)

    def _lose(self, client: SyncPrefectClient, run: FlowRun) -> None:
        """Say of a lost run what became of it."""
        assert run.state is not None
        now = client.read_flow_run(run.id).state
        if now is None or now.id != run.state.id:
            return
        if now.is_cancelling():
            _set(client, run, Cancelled(message=f"Cancelled: {LOST}."))
            return
        LOG.warning("%s (%s): %s", run.name, run.id, LOST)
        _set(client, run, Crashed(message=f"Crashed: {LOST} (worker killed, machine restarted, or out of memory)."))
        self._free(client, run)

    def _free(self, client: SyncPrefectClient, run: FlowRun) -> None:
        """Give back the places that a lost run held in limits: nobody else waits until they expire."""
        for path in (self._settings.prefect_home / "concurrency_leases").glob("*-*.json"):
            with contextlib.suppress(OSError, PrefectHTTPStatusError, ObjectNotFound):
                if str(run.id) in path.read_text("utf-8"):
                    lease = {"lease_id": path.stem}
                    client.request("POST", "/v2/concurrency_limits/decrement-with-lease", json=lease)

    def _crashed(self, client: SyncPrefectClient) -> Iterator[FlowRun]:
        """Recently crashed runs of our deployments that no later run of the same has made needless."""
        deployments = [one.id for one in ours(client)]
        if not deployments:
            return
        recent = _runs(client, *StateType, deployments=deployments, since=datetime.now(UTC) - RECENT)
        later: list[tuple[UUID | None, Any]] = []
        for run in recent:  # the newest first
            what = (run.deployment_id, run.parameters)
            if run.state is not None and run.state.is_crashed() and what not in later:
                yield run
            if run.state is not None and not run.state.is_scheduled():
                later.append(what)

    def _resume(self, client: SyncPrefectClient, run: FlowRun) -> None:
        """Schedule a crashed run again, unless it crashed too often."""
        crashes = sum(state.is_crashed() for state in client.read_flow_run_states(run.id))
        most = self._settings.crash_retries
        if crashes > most:
            if run.id not in self._given_up:
                LOG.error("%s (%s) crashed %d times, and is not started again", run.name, run.id, crashes)
            self._given_up.add(run.id)
            return
        LOG.warning("%s (%s): scheduled again, %d of %d", run.name, run.id, crashes, most)
        _set(client, run, AwaitingRetry(message=f"It crashed and goes on where it stopped ({crashes} of {most})."))


def processes() -> set[str]:
    """The flow runs that have a process here, by the id that a worker gives each in its environment."""
    mark = b"PREFECT__FLOW_RUN_ID="
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # of another user, or just gone
                continue
            found |= {one[len(mark) :].decode() for one in variables if one.startswith(mark)}
    return found


def _runs(
    client: SyncPrefectClient,
    *types: StateType,
    deployments: list[UUID] | None = None,
    since: datetime | None = None,
) -> list[FlowRun]:
    """Flow runs in these states, the newest first."""
    wanted = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[TAG]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=list(types))),
        deployment_id=filters.FlowRunFilterDeploymentId(any_=deployments) if deployments else None,
        expected_start_time=filters.FlowRunFilterExpectedStartTime(after_=since, before_=datetime.now(UTC))
        if since
        else None,
    )
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200, offset=len(found)
    ):
        found += page
    return found


def _heard(client: SyncPrefectClient, run: FlowRun, seconds: float) -> bool:
    """Whether a run said within so many seconds that it lives."""
    now = datetime.now(UTC)
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        "occurred": {"since": (now - timedelta(seconds=seconds)).isoformat(), "until": now.isoformat()},
    }
    answer = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1})
    return bool(answer.json()["events"])


def _set(client: SyncPrefectClient, run: FlowRun, state: State[Any]) -> None:
    client.set_flow_run_state(run.id, state, force=True)


def main(port: int) -> None:
    """Look every few seconds until SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr, force=True)
    settings = Settings()
    looked = [time.monotonic()]
    health.serve(port, lambda: time.monotonic() - looked[0] < 60 + 6 * settings.supervise_seconds)
    supervisor = Supervisor(settings)
    while True:
        try:
            revive(settings, but="supervisor", say=LOG.warning)
        except DarkroomError as error:
            LOG.error("%s", error)
        if alone(settings):
            try:
                with get_client(sync_client=True) as client:
                    supervisor.look(client)
            except (httpx.HTTPError, PrefectHTTPStatusError, ObjectNotFound) as error:
                LOG.warning("Prefect's API: %s: %s", type(error).__name__, error)
                supervisor.away()
        looked[0] = time.monotonic()
        time.sleep(settings.supervise_seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]))
