"""The HTTP source, tried on a server on loopback that answers as it is told to and logs what it was asked."""

import asyncio
import contextlib
import errno
import gzip
import hashlib
import itertools
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from darkroom.collect._http_rules import IPAddress, Network, private
from darkroom.collect.http import Address, items
from darkroom.collect.manifest import read_rows
from darkroom.collect.source import Item
from darkroom.errors import DiskFull
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield Store(tmp_path)
    assert not list((tmp_path / "pictures/.incoming").glob("*")), "an unfinished download was left behind"
    assert not [thread for thread in threading.enumerate() if thread.name in ("http-fetch", "http-keep")]


def test_every_address_gives_an_item_with_what_the_list_says_of_it(store: Store) -> None:
    with Server(good) as server:
        listed = [
            Address(server.url(f"/{n}.jpg"), f"a cat {n}", f"cat{n}", f"CC-BY-{n}", f"page {n}") for n in range(40)
        ]
        found = sorted(items(listed, plan(), store), key=lambda item: listed.index(_address(listed, item)))
    for address, item in zip(listed, found, strict=True):
        content = good(address.url.rpartition("/")[2]).body
        assert (item.path, item.caption, item.label) == (address.url, address.caption, address.label)
        assert (item.licence, item.origin) == (address.licence, address.origin)
        assert item.read() == PICTURE + b"/" + content.removeprefix(PICTURE)
        assert item.size == len(item.read())
        assert item.fingerprint == "sha256:" + hashlib.sha256(item.read()).hexdigest()


def _address(listed: list[Address], item: Item) -> Address:
    return next(address for address in listed if address.url == item.path)


def test_an_address_that_comes_twice_is_fetched_once(store: Store) -> None:
    with Server(good) as server:
        urls = [server.url(path) for path in ("/a", "/b", "/a", "/a")] + [server.url("/a#fragment")]
        found = list(items(iter(addresses(*urls)), plan(), store, network()))
        assert sorted(item.path for item in found) == sorted(urls)
        assert sorted(str(item.caption) for item in found) == [f"caption {n}" for n in range(5)]
        assert server.paths().count("/b") == 1
        assert server.paths().count("/a") == 2  # the fragment makes another address, for all that is known


def test_rows_of_a_manifest_carry_the_reasons_and_nothing_ends_the_run(store: Store) -> None:
    with Server(lambda path, nth: good(path) if path == "/good" else Answer(status=404)) as server:
        urls = [server.url("/good"), server.url("/gone"), "ftp://example.com/x", "http://", "http://[::1", "\udcff", ""]
        rows = read_rows("list", items(addresses(*urls), plan(), store), 1_000_000, store)
    reasons = {row["path"]: row["reasons"] for row in rows}
    assert len(rows) == len(urls)
    assert reasons[server.url("/good")] == []
    assert reasons[server.url("/gone")] == ["collect: unreadable: HTTP 404"]
    assert "not http or https" in reasons["ftp://example.com/x"][0]
    assert all(len(row["reasons"]) == 1 and row["id"] is None for row in rows if row["path"] != server.url("/good"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451, 204, 206])
def test_a_clear_no_is_not_asked_again(store: Store, status: int) -> None:
    with Server(lambda path, nth: Answer(status=status)) as server:
        assert fetch(store, [server.url("/x")]) == {server.url("/x"): f"HTTP {status}"}
        assert len(server.log) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(Answer(status=status) for status in (408, 425, 429, 500, 502, 503, 504)),
        cut(120, 900),
        Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        Answer(gzip.compress(PICTURE * 9)[:60], headers={"Content-Encoding": "gzip"}),
        Answer(raw=b""),
        Answer(raw=b"\x00\x01 this is not HTTP at all\r\n\r\n"),
        Answer(PICTURE, delay=0.6),
    ],
)
def test_what_is_transient_is_tried_again(store: Store, fault: Answer) -> None:
    with Server(lambda path, nth: fault if nth < 2 else good(path)) as server:
        url = server.url("/x")
        assert fetch(store, [url], plan(timeout=0.2)) == {url: good("/x").body}
        assert server.paths().count("/x") >= 3  # aiohttp itself repeats a request on a connection that was closed


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Answer(status=503), "HTTP 503, 3 tries"),
        (cut(120, 900), "cut short: 120 of 900 bytes, 3 tries"),
        (Answer(PICTURE, delay=0.6), "timed out after 0.1 s, 3 tries"),
        (Answer(b"abc", drip=0.06), "timed out after 0.1 s in all"),
    ],
)
def test_tries_end_with_a_sentence(store: Store, fault: Answer, sentence: str) -> None:
    with Server(lambda path, nth: fault) as server:
        total = 0.1 if fault.drip else 20.0
        found = fetch(store, [server.url("/x")], plan(timeout=0.1, retries=2, total_timeout=total))
        assert found == {server.url("/x"): sentence}


def test_retry_after_is_waited_for_but_not_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(
        lambda path, nth: good(path) if nth else Answer(status=503, headers={"Retry-After": path.strip("/")})
    ) as server:
        assert fetch(store, [server.url("/1")]) == {server.url("/1"): good("/1").body}
        assert server.log[1].time - server.log[0].time >= 1.0
        monkeypatch.setattr("darkroom.collect._http_fetch.LONGEST_RETRY_AFTER_SECONDS", 0.1)
        assert fetch(store, [server.url("/86400")]) == {server.url("/86400"): good("/86400").body}
        assert 0.1 <= server.log[3].time - server.log[2].time < 5


def test_too_many_requests_is_heard_by_all_of_them(store: Store) -> None:
    limited = [True]

    def answer(path: str, nth: int) -> Answer:
        return Answer(status=429, headers={"Retry-After": "1"}) if limited and limited.pop() else good(path)

    with Server(answer) as server:
        urls = [server.url(f"/{n}") for n in range(30)]
        assert all(isinstance(found, bytes) for found in fetch(store, urls, plan(per_host=2)).values())
        times = [request.time - server.log[0].time for request in server.log]
        assert sum(time < 0.9 for time in times) <= 3, "they went on while the server had asked to wait"


def test_backoff_is_asked_for_by_the_number_of_failures(store: Store) -> None:
    asked: list[int] = []

    def backoff(failures: int) -> float:
        asked.append(failures)
        return 0.0

    with Server(lambda path, nth: Answer(status=500)) as server:
        fetch(store, [server.url("/x")], world=network(backoff=backoff))
        assert len(server.log) == 4
    assert asked[:3] == [1, 2, 3]


def test_the_size_cap_holds_by_its_header_and_while_streaming(store: Store) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 400
    answers = {
        "/declared": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"),
        "/streamed": Answer(raw=chunked),
        "/bomb": Answer(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"}),
        "/fits": Answer(b"x" * 100_000),
    }
    with Server(lambda path, nth: answers[path]) as server:
        found = fetch(store, [server.url(path) for path in answers], plan(max_bytes=100_000))
        assert found.pop(server.url("/fits")) == b"x" * 100_000
        assert set(found.values()) == {"larger than collect.max_bytes = 100,000 bytes"}
        assert len(server.log) == 4


def test_a_large_picture_goes_through_a_file(store: Store) -> None:
    large = PICTURE + bytes(3_000_000)
    with Server(lambda path, nth: Answer(large) if nth else cut(2_000_000, 3_000_000)) as server:
        found = fetch(store, [server.url("/x"), server.url("/y")], plan(max_bytes=4_000_000))
        assert set(found.values()) == {large}


def test_what_is_no_picture_or_lies_about_it(store: Store) -> None:
    answers = {
        "/page": Answer(b"<!doctype html><p>Not found", headers={"Content-Type": "image/jpeg"}),
        "/html": Answer(b" <div>captcha</div>", headers={"Content-Type": "text/html; charset=utf-8"}),
        "/empty": Answer(b""),
        "/lies": Answer(PICTURE, headers={"Content-Type": "text/html"}),
        "/gzip": Answer(gzip.compress(PICTURE), headers={"Content-Encoding": "gzip"}),
        "/deflate": Answer(zlib.compress(PICTURE), headers={"Content-Encoding": "deflate"}),
        "/odd": Answer(PICTURE, headers={"Content-Encoding": "x-unheard-of"}),
    }
    with Server(lambda path, nth: answers[path]) as server:
        found = {path: fetch(store, [server.url(path)])[server.url(path)] for path in answers}
    assert found == {
        "/page": "a web page, not a picture",
        "/html": "a web page, not a picture",
        "/empty": "an empty answer",
        "/lies": PICTURE,
        "/gzip": PICTURE,
        "/deflate": PICTURE,
        "/odd": "its Content-Encoding 'x-unheard-of' is not understood",
    }


def to(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": location})


def test_redirects_are_followed_so_far(store: Store) -> None:
    def answer(path: str, nth: int) -> Answer:
        if path.startswith("/hop"):
            left = int(path.removeprefix("/hop"))
            return to(f"/hop{left - 1}" if left else "good", status=(301, 302, 303, 307, 308)[left % 5])
        jumps = {"/loop": "/loop", "/file": "file:///etc/passwd", "/ftp": "ftp://example.com/x", "/bad": "http://[oops"}
        if path == "/nowhere":
            return Answer(status=302)
        return to(jumps[path]) if path in jumps else good(path)

    with Server(answer) as server:
        paths = ["/hop4", "/hop5", "/loop", "/file", "/ftp", "/bad", "/nowhere"]
        found = fetch(store, [server.url(path) for path in paths])
        assert [found[server.url(path)] for path in paths] == [
            good("/good").body,
            "more than 5 redirects",
            "more than 5 redirects",
            "refused: 'file' is not http or https",
            "refused: 'ftp' is not http or https",
            "not a valid address",
            "HTTP 302 without a Location",
        ]


@pytest.mark.parametrize("allowed", [False, True])
def test_noai_is_honoured_unless_allowed(store: Store, allowed: bool) -> None:
    headers = {
        "/a": [("X-Robots-Tag", "noindex"), ("X-Robots-Tag", "noai, nofollow")],
        "/b": [("X-Robots-Tag", "darkroom: noimageai")],
        "/c": [("X-Robots-Tag", "otherbot: noimageai")],
    }
    with Server(lambda path, nth: Answer(PICTURE, headers=headers[path])) as server:
        found = fetch(store, [server.url(path) for path in headers], plan(allow_noai=allowed))
        refused = [path for path in headers if found[server.url(path)] != PICTURE]
        assert refused == ([] if allowed else ["/a", "/b"])
        # What was fetched when it was allowed is not used when it no longer is.
        later = fetch(store, [server.url("/a")], plan(allow_noai=False))
        assert later == {server.url("/a"): "refused: its server asks by X-Robots-Tag not to use it for AI"}


LOOPBACK = ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_private_addresses_are_refused_however_they_are_written(store: Store, host: str) -> None:
    with Server(good) as server:
        found = fetch(store, [server.url("/x", host)], plan(allow_private=False))[server.url("/x", host)]
        assert isinstance(found, str)
        assert found.startswith("refused: private address")
        assert not server.log


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["not an address"]])
def test_a_name_that_leads_to_a_private_address_is_refused(store: Store, answer: list[str]) -> None:
    with Server(good) as server:
        url = server.url("/x", "public.example")
        found = fetch(store, [url], plan(allow_private=False), network(lookup=lambda host: answer))[url]
        assert isinstance(found, str)
        assert found.startswith("refused: private address")
        assert not server.log


def only_here(address: IPAddress) -> bool:
    """As :func:`private`, but for 127.0.0.1, so that there is a server that may be reached."""
    return private(address) and str(address) != "127.0.0.1"


def test_a_redirect_to_a_private_address_is_refused(store: Store) -> None:
    names = {"public.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"]}
    world = network(lookup=lambda host: names[host], private=only_here)
    with Server(lambda path, nth: to(f"http:/{path}:{server.port}/secret")) as server:
        hosts = ["127.0.0.2", "inside.example", "169.254.169.254", "2130706434", "[::1]"]
        urls = [server.url(f"/{host}", "public.example") for host in hosts]
        found = fetch(store, urls, plan(allow_private=False), world)
        assert all(str(text).startswith("refused: private address") for text in found.values())
        assert "/secret" not in server.paths()


def test_a_name_cannot_change_its_address_between_the_check_and_the_connection(store: Store) -> None:
    answers = itertools.cycle([["127.0.0.1"], ["127.0.0.2"]])
    world = network(lookup=lambda host: next(answers), private=only_here)
    with Server(good) as server:
        for number in range(4):
            url = server.url(f"/{number}", f"rebinding{number % 2}.example")
            found = fetch(store, [url], plan(allow_private=False), world)[url]
            assert isinstance(found, bytes) == (number % 2 == 0)  # one question, and its answer is connected to


def test_a_socket_is_never_made_for_a_private_address(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Even where every check before it is blind.
    monkeypatch.setattr("darkroom.collect._http_request.Requests._allow", lambda *_: None)
    with Server(good) as server:
        found = fetch(store, [server.url("/x")], plan(allow_private=False))
        assert found == {server.url("/x"): "refused: private address 127.0.0.1"}
        assert not server.log


def test_a_name_that_is_not_known_at_first_is_asked_for_again(store: Store) -> None:
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        if host == "never.example" or len(asked) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    with Server(good) as server:
        url, never = server.url("/x", "late.example"), server.url("/x", "never.example")
        assert isinstance(fetch(store, [url], world=network(lookup=lookup))[url], bytes)
        asked.clear()
        assert fetch(store, [never], plan(retries=2), network(lookup=lookup)) == {
            never: "no address of never.example: Temporary failure in name resolution, 3 tries"
        }
        assert len(asked) == 3


def test_a_password_is_sent_and_not_shown(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with Server(lambda path, nth: good(path) if path == "/good" else Answer(status=500)) as server:
        urls = [f"http://user:secret@127.0.0.1:{server.port}/{path}" for path in ("good", "bad")]
        found = list(items(addresses(*urls), plan(retries=1), store, network()))
        assert {request.headers["Authorization"] for request in server.log} == {"Basic dXNlcjpzZWNyZXQ="}
    shown = repr([(item, outcome(item)) for item in found]) + caplog.text
    kept = b"".join(path.read_bytes() for path in store.root.glob("cache.db*"))
    assert "secret" not in shown
    assert b"secret" not in kept


def test_no_cookie_and_no_proxy_of_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Server(lambda path, nth: Answer(PICTURE, headers={"Set-Cookie": "id=1"})) as server:
        urls = [server.url(path, "photos.example") for path in ("/1", "/2", "/3")]
        world = network(lookup=lambda host: ["127.0.0.1"])
        assert set(fetch(store, urls, plan(concurrency=1), world).values()) == {PICTURE}
        assert not any("Cookie" in request.headers for request in server.log)
        assert {request.headers["User-Agent"] for request in server.log} == {"darkroom"}


def test_an_interrupted_collection_fetches_nothing_finished_again(store: Store) -> None:
    hanging = {"delay": 30.0}

    def answer(path: str, nth: int) -> Answer:
        return replace(good(path), headers={"ETag": '"1"'}, delay=hanging["delay"] if int(path[1:]) >= 150 else 0.0)

    with Server(answer) as server:
        urls = [server.url(f"/{number}") for number in range(300)]
        with contextlib.closing(items(addresses(*urls), plan(), store, network())) as found:
            taken = [next(found) for _ in range(60)]
        first = Counter(server.paths())
        hanging["delay"] = 0.0
        assert set(first.values()) == {1}
        kept = sum(1 for _ in (store.root / "pictures").rglob("*") if _.is_file())
        assert 60 <= len(taken) <= kept <= len(first) < 300
        whole = fetch(store, urls)
        assert all(isinstance(content, bytes) for content in whole.values())
        again = [path for path, count in Counter(server.paths()).items() if count > 1]
        assert len(again) == len(first) - kept, "one that was finished was fetched again"
        assert not any("If-None-Match" in request.headers for request in server.log)


def test_an_error_of_the_taker_or_of_the_list_cancels_at_once(store: Store) -> None:
    def broken() -> Iterator[Address]:
        yield from addresses(*urls)
        raise RuntimeError("the list broke")

    with Server(lambda path, nth: Answer(PICTURE, delay=30) if path == "/hangs" else good(path)) as server:
        urls = [server.url("/hangs"), server.url("/x")]
        began = time.monotonic()
        with pytest.raises(RuntimeError, match="the list broke"):
            list(items(broken(), plan(timeout=30, total_timeout=60), store))
        with contextlib.closing(items(addresses(*urls), plan(timeout=30, total_timeout=60), store)) as found:
            next(found)
        assert time.monotonic() - began < 5


def test_a_later_run_asks_for_changes_alone(store: Store) -> None:
    state = {"version": b"1", "gone": False}

    def answer(path: str, nth: int) -> Answer:
        asked = server.log[-1].headers
        if path == "/failed":
            return good(path) if state["version"] == b"2" else Answer(status=404)
        if path == "/plain":
            return good(path)
        if path == "/dated":
            date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
            same = asked.get("If-Modified-Since") == date["Last-Modified"]
            return Answer(status=304) if same else replace(good(path), headers=date)
        tag = '"%s"' % (bytes(state["version"]).decode() if path == "/changes" else "1")
        same = asked.get("If-None-Match") == tag
        return Answer(status=304) if same else Answer(PICTURE + tag.encode(), headers={"ETag": tag})

    with Server(answer) as server:
        paths = ["/same", "/changes", "/dated", "/plain", "/failed"]
        urls = [server.url(path) for path in paths]
        first = fetch(store, urls)
        assert first.pop(server.url("/failed")) == "HTTP 404"
        state["version"] = b"2"
        server.log.clear()
        second = fetch(store, urls)
        assert sorted(server.paths()) == ["/changes", "/dated", "/failed", "/same"]
        assert {url for url in first if first[url] != second[url]} == {server.url("/changes")}
        assert second[server.url("/changes")] == PICTURE + b'"2"'
        assert second[server.url("/failed")] == good("/failed").body
        server.log.clear()
        assert fetch(store, urls) == second
        assert sorted(server.paths()) == ["/changes", "/dated", "/same"]


@pytest.mark.parametrize(("status", "kept"), [(404, False), (403, False), (503, True)])
def test_a_picture_is_gone_when_the_server_says_so_and_kept_while_it_is_away(
    store: Store, status: int, kept: bool
) -> None:
    answers = [Answer(PICTURE, headers={"ETag": '"1"'}), Answer(status=status)]
    with Server(lambda path, nth: answers[min(nth, 1)]) as server:
        url = server.url("/x")
        assert fetch(store, [url]) == {url: PICTURE}
        assert (fetch(store, [url])[url] == PICTURE) is kept


def test_a_picture_that_the_store_lost_is_fetched_again(store: Store) -> None:
    with Server(good) as server:
        url = server.url("/x")
        fetch(store, [url])
        for path in (store.root / "pictures").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
        assert fetch(store, [url]) == {url: good("/x").body}
        assert len(server.log) == 2


def test_hosts_have_their_limits_and_one_does_not_hold_up_another(store: Store) -> None:
    with Server(lambda path, nth: replace(good(path), delay=0.01)) as server:
        hosts = ["a.example", "b.example", "c.example"]
        urls = [server.url(f"/{n}", host) for host in hosts for n in range(40)]  # sorted by host, as lists often are
        world = network(lookup=lambda host: ["127.0.0.1"])
        found = fetch(store, urls, plan(per_host=3, concurrency=9), world)
        assert all(isinstance(content, bytes) for content in found.values())
        assert all(server.most[host] == 3 for host in hosts)
        order = [request.host for request in server.log]
        assert set(order[:40]) == set(hosts), "the hosts were served one after the other"


def test_the_limit_of_a_host_holds_for_those_that_are_redirected_to_it(store: Store) -> None:
    def answer(path: str, nth: int) -> Answer:
        host = server.log[-1].host
        return replace(good(path), delay=0.02) if host == "big.example" else to(server.url(path, "big.example"))

    with Server(answer) as server:
        urls = [server.url(f"/{n}", f"short{n}.example") for n in range(30)]
        found = fetch(store, urls, plan(per_host=2, concurrency=16), network(lookup=lambda host: ["127.0.0.1"]))
        assert all(isinstance(content, bytes) for content in found.values())
        assert server.most["big.example"] == 2


def test_a_host_that_is_dead_does_not_cost_every_picture_its_tries(store: Store) -> None:
    tried: list[str] = []

    def lookup(host: str) -> list[str]:
        if host == "dead.example":
            tried.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["127.0.0.1"]

    with Server(good) as server:
        dead = [f"http://dead.example/{n}" for n in range(200)]
        found = fetch(store, [*dead, server.url("/x", "live.example")], plan(retries=1), network(lookup=lookup))
        assert isinstance(found[server.url("/x", "live.example")], bytes)
        assert len(tried) < 60
        assert found[dead[-1]] == "not tried: dead.example did not answer for 20 pictures in a row"


def test_everything_obtainable_is_obtained_among_faults(store: Store) -> None:
    page = Answer(b"<html>no", headers={"Content-Type": "image/jpeg"})
    lie = Answer(PICTURE, headers={"Content-Type": "text/html"})
    hang = Answer(PICTURE, delay=1.0)
    passing = [Answer(status=503), Answer(status=429), hang, cut(10, 900), Answer(raw=b"")]
    lasting = [Answer(status=404), page, cut(10, 900), hang]
    kinds: dict[str, list[Answer]] = {}
    for number in range(400):
        path = f"/{number}"
        if number % 20 == 0:
            kinds[path] = [passing[number // 20 % 5]] * (1 + number // 100 % 2)
        elif number % 40 == 7:
            kinds[path] = [lasting[number // 40 % 4]] * 99
        elif number % 40 == 11:
            kinds[path] = [lie] * 99

    def answer(path: str, nth: int) -> Answer:
        faults = kinds.get(path, [])
        return faults[nth] if nth < len(faults) else good(path)

    with Server(answer) as server:
        urls = [server.url(f"/{number}") for number in range(400)]
        found = fetch(store, urls, plan(timeout=0.3, per_host=16, retries=3))
    for number, url in enumerate(urls):
        lasts = number % 40 == 7
        assert isinstance(found[url], str) == lasts, (url, found[url])
        assert lasts or found[url] in (good(f"/{number}").body, PICTURE)


def test_a_full_disk_stops_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, content: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("darkroom.collect._http_keep.Keeper._write", full)
    with Server(good) as server, pytest.raises(DiskFull, match="make room"):
        list(items(addresses(server.url("/x")), plan(), store))
