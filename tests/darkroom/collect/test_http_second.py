"""Two processes that download: as one, but for their speed, and one where there cannot be two."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkroom.cache import Cache
from darkroom.collect import _http_second, http
from darkroom.collect._http_rules import Limits
from darkroom.collect._http_second import Second, pays
from darkroom.collect.http import items
from darkroom.collect.keep import picture_path
from darkroom.errors import DiskFull
from darkroom.recipe import Collect
from darkroom.store import Store
from tests.darkroom.collect.http_server import (
    PICTURE,
    Answer,
    Server,
    addresses,
    clean_store,
    good,
    outcome,
    plan,
    to,
)

Slow = Callable[[str, int], Answer]
LIMITS = Limits(max_bytes=1_000_000, **dict(plan(concurrency=16, per_host=4).http))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with clean_store(tmp_path) as made:
        yield made


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[Second]:
    """The second processes of a test, which start from a hundred addresses on; ``done`` says what each has done."""
    made: list[Any] = []
    start, hear = Second.start, Second._hear

    async def started(self: Any) -> None:
        made.append(self)
        self.done, self.begun = 0, False
        await start(self)

    def heard(self: Any, message: dict[str, Any]) -> None:
        self.done += len(message.get("results", ()))
        self.begun = True
        hear(self, message)

    monkeypatch.setattr(Second, "start", started)
    monkeypatch.setattr(Second, "_hear", heard)
    monkeypatch.setattr(_http_second, "PAYS_FROM", 100)
    monkeypatch.setattr(http, "PAYS_FROM", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    return made


@pytest.fixture
def slow(seconds: list[Any]) -> Slow:
    """As :func:`good`, but slowly while the second process has not started, however slow the machine is."""
    return lambda path, nth: replace(good(path), delay=0.01 if seconds and seconds[0].begun else 0.1)


def fetch(store: Store, urls: list[str], section: Collect) -> dict[str, bytes | str]:
    found = list(items(addresses(*urls), section, store))
    assert len(found) == len(urls)
    return {item.path: outcome(item) for item in found}


def test_both_fetch_each_address_once_within_the_limits_of_one(store: Store, seconds: list[Any], slow: Slow) -> None:
    with Server(slow) as server:
        urls = [server.url(f"/{number}", host) for number in range(150) for host in ("127.0.0.1", "localhost")]
        found = fetch(store, urls, plan(per_host=3, concurrency=6))
        assert all(found[url] == good(f"/{url.rpartition('/')[2]}").body for url in urls)
        assert len(server.log) == len(urls)
        assert max(server.most.values()) <= 3
        assert 0 < seconds[0].done < len(urls)
        assert seconds[0]._process.returncode == 0
        server.log.clear()
        assert fetch(store, urls, plan()) == found
        assert not server.log, "what the second process had fetched was not remembered"
        assert len(seconds) == 1, "there was nothing to start it for"


def test_redirects_faults_and_what_the_server_does_not_allow_are_the_same_in_both(
    store: Store, seconds: list[Any], slow: Slow
) -> None:
    kinds = {
        0: Answer(status=404),
        1: Answer(b"<!doctype html>"),
        2: Answer(PICTURE, headers={"X-Robots-Tag": "noai"}),
        3: to("/other"),
        4: Answer(bytes(2_000_000)),
    }
    reasons = ["HTTP 404", "a web page, not a picture", "refused: its server asks by X-Robots-Tag", None, "larger than"]

    def answer(path: str, nth: int) -> Answer:
        return replace(kinds[int(path[1:]) % 5], delay=slow(path, nth).delay) if path != "/other" else good(path)

    with Server(answer) as server:
        urls = [server.url(f"/{number}") for number in range(300)]
        found = fetch(store, urls, plan(per_host=4))
        assert 5 < seconds[0].done < 295
    for number, url in enumerate(urls):
        reason = reasons[number % 5]
        assert found[url] == good("/other").body if reason is None else str(found[url]).startswith(reason), found[url]


def test_private_networks_are_refused_by_the_second_process_too(store: Store, seconds: list[Any]) -> None:
    limits = {**LIMITS.__dict__, "allow_private": False}
    with Server(good) as server:
        jobs = [[name, server.url("/x", name), None] for name in ("127.0.0.1", "localhost", "0x7f.1", "[::1]")]
        lines = [{"limits": limits, "store": str(store.root)}, {"jobs": jobs}]
        asked = subprocess.Popen(_http_second.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        asked.stdin.flush()
        told: dict[str, str] = {}
        while len(told) < len(jobs):
            told.update(json.loads(asked.stdout.readline()).get("results", ()))
        asked.communicate()
        assert all(sentence.startswith("refused: private address") for sentence in told.values())
        assert not server.log


def test_a_host_that_asks_to_wait_is_left_alone_by_both(store: Store, seconds: list[Any], slow: Slow) -> None:
    limited: list[float] = []

    def answer(path: str, nth: int) -> Answer:
        if seconds[0].done > 20 and not limited:
            limited.append(server.log[-1].time)
            return Answer(status=429, headers={"Retry-After": "1"})
        return slow(path, nth)

    with Server(answer) as server:
        urls = [server.url(f"/{number}") for number in range(200)]
        found = fetch(store, urls, plan(per_host=4))
        assert all(isinstance(content, bytes) for content in found.values())
        times = [request.time - limited[0] for request in server.log]
        assert not [one for one in times if 0.5 < one < 0.95], "it was asked while it had asked to wait"


def test_what_a_killed_second_process_had_not_done_is_done_by_the_first(
    store: Store, seconds: list[Any], slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(slow) as server:
        urls = [server.url(f"/{number}") for number in range(300)]
        found: dict[str, bytes | str] = {}
        killed: list[int] = []
        for item in items(addresses(*urls), plan(per_host=4), store):
            found[item.path] = outcome(item)
            if seconds[0].done > 10 and not killed:
                os.kill(seconds[0]._process.pid, signal.SIGKILL)
                killed.append(seconds[0]._process.pid)
    assert {url: good(f"/{url.rpartition('/')[2]}").body for url in urls} == found
    assert "the second one ended by SIGKILL" in caplog.text
    for left in (store.root / "pictures/.incoming").glob(f"{killed[0]}-*"):
        left.unlink()  # of a killed process; what lies there for an hour goes with the next collection


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("/nowhere/python",), "does not start"),
        ((sys.executable, "-c", "print('nonsense')"), "ended"),
        ((sys.executable, "-c", "import sys; sys.exit(3)"), "ended with exit status 3"),
    ],
)
def test_one_process_does_all_where_a_second_cannot(
    store: Store,
    seconds: list[Any],
    command: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_http_second, "COMMAND", command)
    with Server(lambda path, nth: replace(good(path), delay=0.0 if caplog.text else 0.1)) as server:
        urls = [server.url(f"/{number}") for number in range(120)]
        assert all(isinstance(content, bytes) for content in fetch(store, urls, plan()).values())
        assert len(server.log) == 120
    assert f"downloading with one process, as {'a' if 'start' in says else 'the'} second one {says}" in caplog.text


def test_a_disk_that_is_full_for_the_second_process_stops_the_run(
    store: Store, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = 'print(\'{"broken": [28, "No space left on device"]}\', flush=True); input()'
    monkeypatch.setattr(_http_second, "COMMAND", (sys.executable, "-c", told))
    with Server(slow) as server, pytest.raises(DiskFull, match="make room"):
        fetch(store, [server.url(f"/{number}") for number in range(3000)], plan(per_host=2))


def test_with_the_process_that_asked_the_second_ends_and_keeps_what_it_has(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from darkroom.collect import _http_second, http
from darkroom.store import Store
from tests.darkroom.collect.http_server import addresses, plan
os.sched_getaffinity = lambda pid: {0, 1}
start = _http_second.Second.start
async def started(self):
    await start(self)
    print(self._process.pid, flush=True)
_http_second.Second.start = started
urls = [sys.argv[1] + str(number) for number in range(5000)]
for item in http.items(addresses(*urls), plan(per_host=4), Store(Path(sys.argv[2]))):
    pass
"""
    with Server(lambda path, nth: replace(good(path), delay=0.02)) as server:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        parent = subprocess.Popen(
            [sys.executable, "-c", script, server.url("/"), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert parent.stdout is not None
        second = int(parent.stdout.readline())
        deadline = time.monotonic() + 30
        while len(server.log) < 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        parent.kill()
        parent.communicate()
        while Path(f"/proc/{second}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not Path(f"/proc/{second}").exists()
    with Cache(tmp_path / "cache.db") as cache:
        known = cache.get("http", [http._key(server.url(f"/{number}")) for number in range(5000)])
    assert all(picture_path(Store(tmp_path), one["id"]).stat().st_size == one["size"] for one in known.values())
    assert known


def test_limits_are_shared_without_loss_and_only_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for concurrency in range(2, 9):
        for per_host in range(2, 9):
            whole = replace(LIMITS, concurrency=concurrency, per_host=per_host)
            one, other = whole.halves()
            assert one.concurrency + other.concurrency == concurrency
            assert one.per_host + other.per_host == per_host
            assert replace(one, concurrency=concurrency, per_host=per_host) == whole
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert pays(1_000, LIMITS)
    assert not pays(999, LIMITS)
    assert not pays(1_000, replace(LIMITS, per_host=1))
    assert not pays(1_000, replace(LIMITS, concurrency=1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert not pays(1_000, LIMITS)
