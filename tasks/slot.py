"""One training at a time on a device, where Prefect's server knows a limit for it: `darkroom up` makes one."""

import contextlib
import platform
from collections.abc import Iterator
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from darkroom.settings import Settings

LEASE_SECONDS = 60.0  # for so long a killed training keeps its place; the least that Prefect allows


def limit_name(settings: Settings) -> str:
    """The name of the limit of this machine's device."""
    return f"trainer-{platform.node()}-{settings.device.replace(':', '-')}"


@contextlib.contextmanager
def slot(settings: Settings) -> Iterator[None]:
    """Wait for the device, and keep it as long as the context lasts."""
    name = limit_name(settings)
    if not _exists(name):
        yield
        return
    # A training goes on while Prefect's server is away: a lease that could not be renewed ends nothing.
    holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(flow_run.id)) if flow_run.id else None
    with concurrency(
        name, strict=True, lease_duration=LEASE_SECONDS, holder=holder, raise_on_lease_renewal_failure=False
    ):
        yield


def _exists(name: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except (ObjectNotFound, httpx.TransportError):
            return False
    return True
