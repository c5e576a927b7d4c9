"""Which Prefect API a run uses.

1. The one that the user configured (PREFECT_API_URL, or the active Prefect profile): it must answer.
2. The server that `darkroom up` started for this home folder.
3. A server of our own for as long as the run takes, on a free loopback port, with the same database. It ends with us,
   also when we are killed.

Each run that comes to 3 starts its own server: none can end another's. SQLite's write-ahead log lets several share the
file; only their starts are one after the other, since the first may have to make the tables.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import IO, Literal, Self

from darkroom import process
from darkroom.errors import ServiceUnavailable
from darkroom.settings import Settings

from . import prefect_server
from .services import Service, down, state_of, status, tail, up

__all__ = ["Pending", "Service", "down", "prefect_api", "start", "status", "up"]

START_SECONDS = 180.0  # a cold start on a busy machine with a database to make takes 30
STOP_SECONDS = 10.0
SETTLE_SECONDS = 15.0
LOG_BYTES = 1_000_000


@contextlib.contextmanager
def prefect_api(settings: Settings) -> Iterator[str]:
    """The address of Prefect's API, which answers as long as the context lasts."""
    with start(settings) as pending:
        yield pending.wait()


def start(settings: Settings) -> "Pending":
    """Choose the API and start our own server where that is needed; returns at once.

    Call it from the main thread and before prefect is imported: it sets this process's environment for Prefect, and
    the server dies with the thread that started it.
    """
    url, mode = choose(settings)
    pending = Pending(settings, url, mode)
    try:
        pending.begin()
    except BaseException:
        pending.stop()
        raise
    return pending


def choose(settings: Settings) -> tuple[str, Literal["configured", "up", "own"]]:
    """The API that a run would use, and why."""
    if url := prefect_server.configured():
        return url, "configured"
    if (service := state_of(settings, "prefect")).state == "running":
        return f"{service.url}/api", "up"
    return f"http://127.0.0.1:{process.free_port()}/api", "own"


@dataclass
class Pending:
    """An API that answers soon. A context: leaving it ends our own server, after all was recorded."""

    settings: Settings
    url: str
    mode: Literal["configured", "up", "own"]
    _server: Popen[bytes] | None = None
    _lock: IO[str] | None = None
    _since: datetime = field(default_factory=lambda: datetime.now(UTC))
    _restore: dict[str, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def begin(self) -> None:
        """Set the environment, and start the server unless another run is just starting its own."""
        self._restore = dict(os.environ)
        if self.settings.mlflow_uri is None and (mlflow := state_of(self.settings, "mlflow")).state == "running":
            os.environ.setdefault("DARKROOM_MLFLOW_SERVER", mlflow.url)
        if self.mode == "configured":
            os.environ.update(prefect_server.QUIET | prefect_server.HEARTBEATS | self._restore)
            return
        self.settings.prefect_home.mkdir(parents=True, exist_ok=True)
        os.environ.update(prefect_server.client_environment(self.settings, self.url))
        _reread_settings()
        if self.mode == "own":
            self._lock = (self.settings.prefect_home / "start.lock").open("w")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._spawn()

    @property
    def starting(self) -> bool:
        """Whether a server of our own was started."""
        return self._server is not None

    def wait(self) -> str:
        """The API's address, once it answers; :class:`ServiceUnavailable` when it does not."""
        if self.mode == "own":
            self._wait_for_our_own()
        elif not _eventually(lambda: prefect_server.answers(f"{self.url}/health"), tries=3):
            remedy = "or unset PREFECT_API_URL" if "PREFECT_API_URL" in os.environ else "or choose another profile"
            if self.mode == "up":
                remedy = "`darkroom status` says more"
            raise ServiceUnavailable(f"Prefect's API at {self.url} does not answer: start it, {remedy}")
        return self.url

    def stop(self) -> None:
        """Hand over what Prefect still holds in memory, end our own server, put the environment back."""
        if self._server is not None:
            try:
                if self._server.poll() is None and "prefect" in sys.modules and self._lock is None:
                    if self.settings.prefect_database_url is not None:
                        hand_over()  # PostgreSQL has all that the server was told, once the server has ended
                    else:
                        with contextlib.suppress(sqlite3.Error):
                            self._settle()
            finally:
                process.stop(self._server, STOP_SECONDS)
                self._server = None
        elif self.mode != "own" and "prefect" in sys.modules and prefect_server.answers(f"{self.url}/health"):
            hand_over()
        self._release()
        if self._restore is not None:
            os.environ.clear()
            os.environ.update(self._restore)
            self._restore = None
            if self.mode != "configured":
                _reread_settings()

    def _wait_for_our_own(self) -> None:
        if not self.starting and self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # for another run's server to have started
            self._spawn()
        assert self._server is not None, "begin() comes first, and nothing after stop()"
        end = time.monotonic() + START_SECONDS
        while not prefect_server.answers(f"{self.url}/health"):
            code = self._server.poll()
            if code is not None or time.monotonic() > end:
                what = "does not answer" if code is None else f"ended with status {code}"
                raise ServiceUnavailable(f"Prefect's server {what}; the end of {self._log}:\n{tail(self._log)}")
            time.sleep(0.05)
        self._release()

    def _spawn(self) -> None:
        port = int(self.url.removesuffix("/api").rpartition(":")[2])
        if self._log.is_file() and self._log.stat().st_size > LOG_BYTES:
            self._log.unlink()
        environment = prefect_server.server_environment(self.settings, self.url) | prefect_server.OF_ONE_RUN
        command = prefect_server.command(self.settings, "127.0.0.1", port)
        self._server = process.spawn(command, log=self._log, env=environment)

    def _settle(self) -> None:
        """Wait until the database has what this process told Prefect.

        Task runs' states travel as events, over a websocket and through the server's memory. So send a last event
        after them, and wait until the database has it and the state of every event before it.
        """
        last = uuid.uuid4()
        if not hand_over(last):
            return
        database = prefect_server.database(self.settings)
        if not _eventually(
            lambda: _recorded(database, last, self._since), tries=int(SETTLE_SECONDS / 0.05), pause=0.05
        ):
            logging.getLogger("darkroom").warning("Prefect's server ended before it had recorded every task's state")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _log(self) -> Path:
        return self.settings.prefect_home / "server.log"


def hand_over(last: uuid.UUID | None = None) -> bool:
    """Send what Prefect's loggers and event clients hold, and ``last`` as the last event; False when that hangs."""

    def drain() -> None:
        from prefect.events import emit_event
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        if last is not None:
            emit_event("darkroom.run.ended", {"prefect.resource.id": f"darkroom.process.{os.getpid()}"}, id=last)
        EventsWorker.instance().wait_until_empty()  # draining what is not empty warns
        APILogWorker.drain_all(timeout=SETTLE_SECONDS)  # drains the event clients too: they share one table

    # In a thread of its own: draining inside an event loop would only return an awaitable.
    thread = threading.Thread(target=drain, name="prefect-drain", daemon=True)
    thread.start()
    thread.join(2 * SETTLE_SECONDS)
    return not thread.is_alive()


def _recorded(database: Path, last: uuid.UUID, since: datetime) -> bool:
    """Whether the database has this event, and the state that each task run's event since then brought."""
    missing = """
        SELECT count(*) FROM events
        WHERE occurred >= ? AND event LIKE 'prefect.task-run.%'
          AND json_extract(resource, '$."prefect.orchestration"') = 'client'
          AND NOT EXISTS (SELECT 1 FROM task_run_state WHERE task_run_state.id = events.id)
    """
    moment = since.strftime("%Y-%m-%d %H:%M:%S.%f")
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        if connection.execute("SELECT 1 FROM events WHERE id = ?", (str(last),)).fetchone() is None:
            return False
        return bool(connection.execute(missing, (moment,)).fetchone()[0] == 0)


def _eventually(condition: Callable[[], bool], tries: int, pause: float = 1.0) -> bool:
    """Whether the condition came true at one of so many tries."""
    for left in reversed(range(tries)):
        if condition():
            return True
        if left:
            time.sleep(pause)
    return False


def _reread_settings() -> None:
    """Where prefect was imported before its environment changed, make it look again."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
