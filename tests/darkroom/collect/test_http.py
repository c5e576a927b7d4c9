"""The HTTP source on a server of faults: everything that can be had is had, once, and the rest has a reason."""

import contextlib
import errno
import gzip
import hashlib
import json
import socket
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darkroom.collect.http import Address, items
from darkroom.collect.keep import picture_path
from darkroom.collect.manifest import read_rows
from darkroom.collect.source import Item
from darkroom.errors import DiskFull
from darkroom.store import Store
from tests.darkroom.collect.http_server import (
    PICTURE,
    Answer,
    Server,
    addresses,
    clean_store,
    cut,
    fetch,
    good,
    network,
    plan,
    to,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with clean_store(tmp_path) as made:
        yield made


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
        assert server.paths().count("/x") >= 3  # libcurl itself repeats a request on a connection that was closed


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


def test_a_server_that_is_not_there_is_named_with_what_the_system_says(store: Store) -> None:
    with socket.socket() as taken:  # bound, so that nobody else gets the port, and not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}/x"
        sentence = f"cannot connect to 127.0.0.1:{port}: Connection refused, 2 tries"
        assert fetch(store, [url], plan(retries=1)) == {url: sentence}


def test_a_body_that_is_not_wanted_is_not_waited_for(store: Store) -> None:
    with Server(lambda path, nth: Answer(b"no such picture", status=404, drip=5.0)) as server:
        began = time.monotonic()
        assert fetch(store, [server.url("/x")], plan(timeout=30, total_timeout=60)) == {server.url("/x"): "HTTP 404"}
        assert time.monotonic() - began < 4


def test_a_head_is_the_last_one_and_ends_before_the_body(store: Store) -> None:
    chunks = b"%x\r\n%s\r\n0\r\nX-Robots-Tag: noai\r\n\r\n" % (len(PICTURE), PICTURE)
    answers = {
        "/early": b"HTTP/1.1 103 Early Hints\r\nX-Robots-Tag: noai\r\nContent-Encoding: odd\r\n\r\n"
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n%s' % (len(PICTURE), PICTURE),
        "/trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Robots-Tag\r\n\r\n" + chunks,
        "/odd": b"HTTP/1.1 404 Not Found\r\nHTTP/x: y\r\n\r\n",
        "/date": b"HTTP/1.1 404 Not Found\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 -2359\r\n\r\n",
        "/only": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    }
    with Server(lambda path, nth: Answer(raw=answers[path])) as server:
        found = fetch(store, [server.url(path) for path in answers], plan(retries=0))
        assert found[server.url("/early")] == found[server.url("/trailer")] == PICTURE
        assert found[server.url("/odd")] == "HTTP 404"
        assert found[server.url("/date")] == "it cannot be fetched (OverflowError)"
        assert found[server.url("/only")] == "the connection was closed without an answer"


def test_escapes_stay_as_they_are_and_only_what_may_not_be_in_an_address_is_escaped(store: Store) -> None:
    names: list[str] = []

    def lookup(host: str) -> list[str]:
        names.append(host)
        return ["127.0.0.1"]

    with Server(good) as server:
        urls = {
            server.url("/a%2Fb/../%7Ec?sig=%2b+%41", "photos.example"): "/a%2Fb/../%7Ec?sig=%2b+%41",
            server.url("/ü x?é", "Münchén.example"): "/%C3%BC%20x?%C3%A9",
        }
        found = fetch(store, list(urls), world=network(lookup=lookup))
        assert all(isinstance(content, bytes) for content in found.values())
        assert sorted(server.paths()) == sorted(urls.values())
        assert {request.host for request in server.log} == set(names) == {"photos.example", "xn--mnchn-esa3k.example"}


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


def test_what_is_finished_is_remembered_also_by_a_run_that_is_killed(store: Store) -> None:
    with Server(lambda path, nth: replace(good(path), delay=30.0 if path == "/hangs" else 0.0)) as server:
        urls = [server.url(f"/{number}") for number in range(20)]
        with contextlib.closing(items(addresses(*urls, server.url("/hangs")), plan(), store, network())) as killed:
            assert len([next(killed) for _ in urls]) == 20  # and nothing more is asked of it
            deadline = time.monotonic() + 5
            while len(remembered := _remembered(store)) < 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert len(remembered) == 20
            assert all(picture_path(store, entry["id"]).stat().st_size == entry["size"] for entry in remembered)


def _remembered(store: Store) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(store.root / "cache.db")) as connection:
        rows = connection.execute("SELECT value FROM entries WHERE kind = 'http' AND key NOT LIKE 'collection%'")
        return [json.loads(value) for (value,) in rows]


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
