"""Whom the HTTP source refuses to ask, what it does not take, and what it does not tell."""

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from darkroom.collect._http_rules import IPAddress, private
from darkroom.collect.http import items
from darkroom.store import Store
from tests.darkroom.collect.http_server import (
    PICTURE,
    Answer,
    Server,
    addresses,
    clean_store,
    fetch,
    good,
    network,
    outcome,
    plan,
    to,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with clean_store(tmp_path) as made:
        yield made


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


def test_a_password_is_for_its_own_server_alone(store: Store) -> None:
    names = {"own.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}

    def answer(path: str, nth: int) -> Answer:
        ways = {
            "/away": server.url("/x", "other.example"),
            "/whole": server.url("/kept", "own.example"),
            "/part": "kept",
        }
        return to(ways[path]) if path in ways else good(path)

    with Server(answer) as server:
        own = f"http://user:secret@own.example:{server.port}"
        urls = [f"{own}/1", server.url("/2", "own.example"), server.url("/3", "other.example")]
        urls += [f"{own}/{path}" for path in ("away", "whole", "part")]
        world = network(lookup=lambda host: names[host])
        assert all(isinstance(content, bytes) for content in fetch(store, urls, plan(concurrency=1), world).values())
        told = [(request.path, "Authorization" in request.headers) for request in server.log]
    assert set(told) == {
        *(("/1", True), ("/away", True), ("/whole", True), ("/part", True), ("/kept", True)),
        *(("/2", False), ("/3", False), ("/x", False)),
    }


def test_a_certificate_is_asked_for_and_judged_by_the_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_server(tmp_path, "photos.example") as port:
        url, other = f"https://photos.example:{port}/x", f"https://other.example:{port}/x"
        world = network(lookup=lambda host: ["127.0.0.1"])
        first = fetch(store, [url], plan(), world)[url]
        assert first == f"the certificate of photos.example:{port} is not valid: self-signed certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        found = fetch(store, [url, other], plan(), world)
        assert found[url] == PICTURE
        assert str(found[other]).startswith(f"the certificate of other.example:{port} is not valid: ")


@contextlib.contextmanager
def tls_server(folder: Path, name: str) -> Iterator[int]:
    """A server over TLS that answers everything with a picture, and a certificate for the name, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(names, names, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PICTURE)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # those who do not trust it hang up
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


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
