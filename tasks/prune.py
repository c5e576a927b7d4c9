"""Pruning as tasks: the store with MLflow's leftovers, and what Prefect remembers of runs that ended long ago."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

from darkroom.errors import InUse
from darkroom.pruning import prune as pruning
from darkroom.pruning.trash import Freed
from darkroom.settings import Settings

from .stage import stage

# Whose runs may go; a server may be shared, and what others left there is theirs.
FLOWS = ("again", "generate", "monitor", "promote", "prune", "quality", "retrain", "rollback", "supervise", "watch")
ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED]
PAGE = 100
LOGS_SECONDS = 20.0  # in which the server deletes the logs of a run that is gone
TRIES, PAUSE_SECONDS = 5, 1800.0  # of a scheduled pruning that meets a run


@task(
    name="prune store",
    task_run_name="prune store",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=TRIES,
    retry_delay_seconds=PAUSE_SECONDS,
    retry_condition_fn=lambda task, run, state: patient(state),
)
def prune_store(versions: int, dry_run: bool, wait: bool) -> pruning.Pruned:
    """The store and MLflow's leftovers; with ``wait`` a run that is using the store is waited for."""
    with get_client(sync_client=True) as client:
        try:
            return pruning.prune(Settings(), versions, dry_run=dry_run, goes_on=lambda pin: _goes_on(client, pin))
        except InUse as error:
            if wait:
                raise Waits(str(error)) from None
            raise


class Waits(InUse):
    """A run is using the store, and its end is waited for."""


def patient(state: Any) -> bool:
    """Whether to try again later."""
    return isinstance(state.result(raise_on_failure=False), Waits)


def _goes_on(client: SyncPrefectClient, pin: str) -> bool:
    """Whether the flow run of a pin may still go on: one that failed or crashed can be taken up again for a day."""
    try:
        run = client.read_flow_run(UUID(pin[:36]))
    except (ObjectNotFound, ValueError):
        return True  # another server may know it
    if run.state is None or not run.state.is_final():
        return True
    lasting = run.state.is_failed() or run.state.is_crashed()
    return lasting and datetime.now(UTC) - run.state.timestamp < timedelta(days=1)


@stage("prune prefect")
def prune_prefect(spared: Iterable[str], dry_run: bool) -> tuple[Freed, ...]:
    """What Prefect has of darkroom's flow runs that ended long ago, but for those that ``spared`` names.

    Their task runs and logs go with them. Events are Prefect's own to clean: it keeps a week of them.
    """
    settings = Settings()
    before = datetime.now(UTC) - timedelta(days=settings.prune_prefect_days)
    kept = set(spared)
    runs = artifacts = 0
    last = None
    with get_client(sync_client=True) as client:
        for some in list(_batches(lambda offset: _ended(client, before, offset))):
            old = [run for run in some if str(run.id) not in kept]
            runs += len(old)
            artifacts += _drop_artifacts(client, [run.id for run in old], dry_run)
            for run in old if not dry_run else ():
                with contextlib.suppress(ObjectNotFound):
                    client.delete_flow_run(run.id)
                    last = run.id
        if last is not None:
            _await_logs(client, last)
    return Freed("Prefect flow runs", runs, 0), Freed("Prefect artifacts", artifacts, 0)


def _ended(client: SyncPrefectClient, before: datetime, offset: int) -> list[FlowRun]:
    found: list[FlowRun] = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ENDED)),
            end_time=FlowRunFilterEndTime(before_=before),
        ),
        limit=PAGE,
        offset=offset,
    )
    return found


def _drop_artifacts(client: SyncPrefectClient, runs: list[UUID], dry_run: bool) -> int:
    """How many artifacts these runs have; they are deleted unless dry."""
    if not runs:
        return 0
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=runs))
    found = [
        one
        for some in list(
            _batches(lambda offset: client.read_artifacts(artifact_filter=wanted, limit=PAGE, offset=offset))
        )
        for one in some
    ]
    for one in found if not dry_run else ():
        with contextlib.suppress(ObjectNotFound):
            client.delete_artifact(one.id)
    return len(found)


def _batches(ask: Callable[[int], list[Any]]) -> Iterator[list[Any]]:
    """Every page of an answer; to be read to its end before anything of it is deleted."""
    offset = 0
    while page := ask(offset):
        yield page
        offset += len(page)


def _await_logs(client: SyncPrefectClient, run: UUID) -> None:
    """Wait until the server has deleted the last run's logs, too: one of our own would else end before it has."""
    end = time.monotonic() + LOGS_SECONDS
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    while client.read_logs(log_filter=wanted, limit=1):
        if time.monotonic() > end:
            get_run_logger().warning("Prefect has not yet deleted the logs of the runs that are gone")
            return
        time.sleep(0.1)
