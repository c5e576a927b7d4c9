"""A server on loopback that answers as it is told to and logs what it was asked, and the ways to fetch from it."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from darkroom.collect._http_rules import Network
from darkroom.collect.http import Address, items
from darkroom.collect.source import Item
from darkroom.recipe import Collect
from darkroom.store import Store


@dataclass(frozen=True)
class Answer:
    """``raw`` is written as it is and the connection closed behind it; ``delay`` in seconds comes first."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] | list[tuple[str, str]] = field(default_factory=dict)
    delay: float = 0.0
    raw: bytes | None = None
    drip: float | None = None  # seconds between single bytes


@dataclass(frozen=True)
class Request:
    path: str
    host: str
    headers: dict[str, str]
    time: float


class Server:
    """``answer(path, nth)`` says what the nth request (from 0) of a path gets; a context manager."""

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        self.answer, self.log, self.port = answer, list[Request](), 0
        self.active, self.most = Counter[str](), Counter[str]()
        self._count = Counter[str]()
        self._ready, self._thread = threading.Event(), threading.Thread(target=lambda: asyncio.run(self._serve()))

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [request.path for request in self.log]

    def __enter__(self) -> "Server":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        self.log.append(Request(request.path_qs, host, dict(request.headers), self._loop.time()))
        nth, self._count[request.path_qs] = self._count[request.path_qs], self._count[request.path_qs] + 1
        self.active[host] += 1
        self.most[host] = max(self.most[host], self.active[host])
        try:
            answer = self.answer(request.path_qs, nth)
            await asyncio.sleep(answer.delay)
        finally:
            self.active[host] -= 1
        headers = answer.headers.items() if isinstance(answer.headers, dict) else answer.headers
        assert request.transport is not None
        if answer.raw is not None:
            request.transport.write(answer.raw)
            request.transport.close()
        elif answer.drip is not None:
            response = web.StreamResponse(status=answer.status)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                for byte in answer.body:
                    await response.write(bytes([byte]))
                    await asyncio.sleep(answer.drip)
            return response
        response = web.Response(body=answer.body, status=answer.status)
        for name, value in headers:
            if name.lower() == "content-type":
                response.headers[name] = value
            else:
                response.headers.add(name, value)
        return response


PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 3


def good(path: str, nth: int = 0) -> Answer:
    """Another picture for every path."""
    return Answer(PICTURE + path.encode(), headers={"Content-Type": "image/jpeg"})


def cut(sent: int, promised: int) -> Answer:
    return Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % promised + PICTURE[:1] * sent)


def to(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": location})


def addresses(*urls: str) -> list[Address]:
    return [Address(url, f"caption {number}", None, "CC0-1.0", None) for number, url in enumerate(urls)]


def plan(max_bytes: int = 1_000_000, **http: Any) -> Collect:
    """A section with short timeouts that may fetch from loopback, where not told otherwise."""
    fields = {"allow_private": True, "timeout": 5.0, "total_timeout": 20.0, "retries": 3, **http}
    return Collect.model_validate({"source": "table", "path": "list.csv", "max_bytes": max_bytes, "http": fields})


def network(**parts: Any) -> Network:
    """The real one, but that it does not wait between tries."""
    return Network(**{"backoff": lambda failures: 0.0, **parts})


def outcome(item: Item) -> bytes | str:
    """The picture, or why there is none."""
    try:
        return item.read()
    except OSError as error:
        return str(error)


def fetch(
    store: Store, urls: list[str], section: Collect | None = None, world: Network | None = None
) -> dict[str, bytes | str]:
    found = list(items(addresses(*urls), section or plan(), store, world or network()))
    assert len(found) == len(urls)
    return {item.path: outcome(item) for item in found}


@contextlib.contextmanager
def clean_store(folder: Path) -> Iterator[Store]:
    """A store in which, at the end, nothing unfinished may lie, nor anything be at work."""
    yield Store(folder)
    assert not list((folder / "pictures/.incoming").glob("*")), "an unfinished download was left behind"
    assert not [thread for thread in threading.enumerate() if thread.name in ("http-fetch", "http-keep")]
