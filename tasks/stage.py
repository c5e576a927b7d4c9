"""What all stages have in common as Prefect tasks: retries for what is transient, names, times, progress."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import httpx
from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from darkroom.artifacts import Artifact
from darkroom.errors import ServiceUnavailable
from darkroom.settings import Settings
from darkroom.store import Store

P = ParamSpec("P")
R = TypeVar("R")

TRANSIENT = (ServiceUnavailable, ConnectionError, TimeoutError, httpx.TransportError)


@dataclass
class Ledger:
    """What a run did: seconds of each stage, and the stages that the store answered."""

    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)


_LEDGER: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Within it, every stage that ends is noted, and nothing that the store has is pruned."""
    book = Ledger()
    token = _LEDGER.set(book)
    try:
        with open_store()[1].in_use():
            yield book
    finally:
        _LEDGER.reset(token)


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A Prefect task of this name, retried only after a transient failure. The store caches; Prefect's cache is off."""
    settings = Settings()

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        wrapped = task(
            name=name,
            task_run_name=name,
            retries=settings.service_retries,
            retry_delay_seconds=exponential_backoff(backoff_factor=settings.service_retry_seconds),
            retry_jitter_factor=0.5,
            retry_condition_fn=is_transient,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.monotonic()
            result = wrapped(*args, **kwargs)
            note(name, time.monotonic() - start, result)
            return result

        call.__name__, call.__doc__, call.__wrapped__ = function.__name__, function.__doc__, wrapped  # type: ignore[attr-defined]
        return call

    return decorate


def note(name: str, seconds: float, result: object) -> None:
    """Enter a finished stage in the run's ledger, and say so in its log."""
    reused = bool(getattr(result, "reused", False))
    digest = f" {result.short}" if isinstance(result, Artifact) else ""
    get_run_logger().info("%s%s: %s in %.1f s", name, digest, "reused" if reused else "done", seconds)
    book = _LEDGER.get()
    if book is not None:
        book.seconds[name] = round(book.seconds.get(name, 0) + seconds, 2)
        if reused and name not in book.reused:
            book.reused.append(name)


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether another try may help: an outside service was away. A mistake or a refusal is not tried again."""
    return isinstance(state.result(raise_on_failure=False), TRANSIENT)


def open_store() -> tuple[Settings, Store]:
    """The settings, and the store that they name."""
    settings = Settings()
    return settings, Store(settings.store, settings.reserve_bytes)


class Progress:
    """A progress artifact on the run's page, told at most once in ``interval`` seconds."""

    def __init__(self, key: str, what: str, interval: float = 2.0) -> None:
        self._key, self._what, self._interval = key, what, interval
        self._artifact: Any = None
        self._told = time.monotonic()  # work that ends within the first interval needs no bar

    def __call__(self, done: int, total: int | None = None, more: str = "") -> None:
        """Say how much is done, with ``more`` words; of a ``total`` that nobody knows, only the log tells."""
        now = time.monotonic()
        finished = self._artifact is not None and total is not None and done >= total
        if now - self._told < self._interval and not finished:
            return
        self._told = now
        with contextlib.suppress(*TRANSIENT):  # a page that cannot be told stops no work
            self._tell(done, total, more)

    def _tell(self, done: int, total: int | None, more: str) -> None:
        if total is None:
            get_run_logger().info("%s: %d", self._what, done)
            return
        percent = 100.0 * done / max(total, 1)
        words = f"{self._what}: {done} of {total}" + (f", {more}" if more else "")
        get_run_logger().info("%s", words)
        if self._artifact is None:
            self._artifact = create_progress_artifact(percent, key=self._key, description=words)
        else:
            update_progress_artifact(self._artifact, percent, description=words)
