"""The table of `darkroom status`: every part that `up` starts or registers, as it is now."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from darkroom.settings import Settings

from . import servers, services


@dataclass(frozen=True)
class Row:
    """One part: its name, how it is, and where or what more."""

    name: str
    state: str
    detail: str


def overview(settings: Settings) -> list[Row]:
    """Processes are looked for, pages asked, and Prefect's server says the rest; nothing is changed."""
    found = [Row(one.name, one.state, one.url) for one in services.status(settings)]
    if servers.choose(settings)[1] == "own":
        return [*found, Row("deployments", "unknown", "Prefect's server does not run: `darkroom up` starts it")]
    try:
        with servers.prefect_api(settings):
            return [*found, *_registered(settings)]
    except Exception as error:  # whatever Prefect's server lacks, the other rows are true
        return [*found, Row("deployments", "unknown", f"{type(error).__name__}: {str(error).splitlines()[0]}")]


def _registered(settings: Settings) -> Iterator[Row]:
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    from . import automations, schedule
    from .deployments import ours
    from .worker import name_of

    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(settings.pool)
        except ObjectNotFound:
            yield Row("pool", "missing", f"{settings.pool}: `darkroom up` makes it")
            return
        limit = f", {pool.concurrency_limit} run at a time" if pool.concurrency_limit else ""
        yield Row("pool", "paused" if pool.is_paused else "ready", f"{pool.name}{limit}")
        for one in client.read_workers_for_work_pool(settings.pool):
            age = (datetime.now(UTC) - one.last_heartbeat_time).total_seconds() if one.last_heartbeat_time else None
            heard = "never heard of" if age is None else f"last heard of {age:.0f} s ago"
            here = " (here)" if one.name == name_of(settings) else ""
            yield Row("  worker", str(one.status.value).lower(), f"{one.name}{here}, {heard}")
        deployments, lines = ours(client), schedule.listed(client)
        paused = sum(one.paused for one in deployments)
        more = f", {paused} paused" if paused else ""
        on = [line for line in lines if line.on]
        yield Row("deployments", str(len(deployments)), f"{len(on)} of {len(lines)} schedules on{more}")
        for line in on:
            following = f"next {line.next}" if line.next else "not planned yet"
            yield Row("  schedule", "on", f"{line.deployment}: {line.when} {line.timezone}, {following}")
        yield Row("automations", str(len(automations.shipped(client))), "of infra/automations.yaml")
