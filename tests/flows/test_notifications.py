"""A person is told, by mail and webhook, through a real mail server with TLS and a password, and a real listener."""

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from pydantic import SecretStr

from darkroom import process
from darkroom.errors import RecipeError
from darkroom.settings import Settings
from flows import notices
from flows.up import up

PASSWORD = "planted/5d1e 0b@"  # what an address has to quote
QUOTED = "planted%2F5d1e%200b%40"
SENDER, READER = "darkroom@example.org", "reader@example.org"
HOSTILE = (
    'the "best"\nof {{ 7 * 7 }} \\ and <script>alert(1)</script> <b>bold</b> & ümläut 數字\r\nBcc: eve@example.org'
)
TELL = """
import json, sys
from flows.servers import hand_over
from tasks.events import announce
from tasks.news import tell_refused

for function, arguments in json.loads(sys.argv[1]):
    {"announce": announce, "tell_refused": tell_refused}[function](*arguments)
assert hand_over()
"""


class Mailbox:
    """A mail server on loopback that keeps what it is given."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, list[str], EmailMessage]] = []
        self.port = process.free_port()
        self.password = PASSWORD

    def opens(self, server: Any, session: Any, envelope: Any, mechanism: str, given: LoginPassword) -> AuthResult:
        """Whether a user and a password are the right ones."""
        right = (given.login, given.password) == (b"robot", self.password.encode())
        return AuthResult(success=right, handled=False)  # the server itself says so

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  (aiosmtpd's name)
        letter = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        self.letters.append((envelope.mail_from, envelope.rcpt_tos, letter))
        return "250 OK"

    def letter(self, subject: str) -> EmailMessage:
        """The one letter of this subject; it went from and to whom it should, and to nobody else."""
        ((sender, readers, found),) = (one for one in self.letters if one[2]["Subject"] == subject)
        assert (sender, readers) == (SENDER, [READER])
        assert (found["From"], found["To"], found["Bcc"], found["Cc"]) == (SENDER, READER, None, None)
        return found


@contextmanager
def served(tls: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    """A mail server, while it runs; with ``tls`` it takes nothing without that and a password."""
    box = Mailbox()
    options = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": box.opens}
    controller = Controller(box, hostname="127.0.0.1", port=box.port, **(options if tls else {}))
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """A mail server's side of TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def address(box: Mailbox, password: str = QUOTED) -> str:
    """What the documentation has people write."""
    return f"mailtos://robot:{password}@localhost:{box.port}?from={SENDER}&to={READER}"


@contextmanager
def listener() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's address, and what it was told."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if "missing" in self.path else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/planted-path", heard
    finally:
        server.shutdown()
        server.server_close()


def tell(house: Any, *told: tuple[str, tuple[Any, ...]]) -> None:
    """Emit events as the stages do."""
    workshop = house.workshop
    subprocess.run(
        [sys.executable, "-c", TELL, json.dumps(told)],
        cwd=workshop.folder,
        env={**workshop.environment, "PREFECT_API_URL": str(house.api.base_url).rstrip("/")},
        check=True,
    )


def drifted(model: str, why: str = "", page: str = "") -> tuple[str, tuple[Any, ...]]:
    """The call that tells of a champion that drifted."""
    payload = {"model": model, "version": "3", "why": why, "page": page}
    return "announce", ("darkroom.champion.drifted", "tiny", payload)


def test_everything_is_told_once_by_mail_and_webhook(
    bring_up: Callable[..., Any],
    wait_for: Callable[..., Any],
    tmp_path: Path,
    certificate: Path,
    tls: ssl.SSLContext,
) -> None:
    with listener() as (hook, heard), served(tls) as box:
        settings = {
            "DARKROOM_NOTIFY_MAIL": address(box),
            "DARKROOM_NOTIFY_WEBHOOK": hook,
            "SSL_CERT_FILE": str(certificate),
        }
        with bring_up(tmp_path / "workshop", **settings) as house:
            page = "http://127.0.0.1:4280/reports/tiny.html?a=1&b=<2>"
            waiting = {"model": "tiny", "version": "7", "recipe": "tiny", "why": "INCONCLUSIVE: too few", "page": page}
            tell(
                house,
                ("tell_refused", ("tiny", "digest", HOSTILE, page)),
                ("tell_refused", ("tiny", "digest", HOSTILE, page)),
                drifted("tiny\r\nBcc: eve@example.org", HOSTILE, page),
                ("announce", ("darkroom.challenger.waiting", "tiny", waiting)),
            )
            wait_for(lambda: len(heard) >= 3 or None)
            wait_for(lambda: len(box.letters) >= 3 or None)
            tell(house, drifted("the last"))
            subjects = {
                "tiny: the data was refused": "darkroom.data.refused",
                "tiny Bcc: eve@example.org: the champion drifted": "darkroom.champion.drifted",
                "tiny: version 7 waits for a person": "darkroom.challenger.waiting",
                "the last: the champion drifted": "darkroom.champion.drifted",
            }
            wait_for(lambda: len(heard) >= 4 or None)
            wait_for(lambda: len(box.letters) >= 4 or None)
            assert sorted((one["subject"], one["event"]) for one in heard) == sorted(subjects.items())
            assert sorted(str(one[2]["Subject"]) for one in box.letters) == sorted(subjects)

            promote = f"/deployments/deployment/{house.deployment('promote/promote')['id']}"
            for one in heard:
                letter = box.letter(one["subject"])
                assert letter.get_content_type() == "text/plain", "in HTML what a caption says would be markup"
                assert letter.get_content().split() == one["text"].split()
                assert one["text"].endswith(one["link"])
            refused, drift, asked = (
                next(one for one in heard if one["subject"] == each) for each in list(subjects)[:3]
            )
            assert refused["text"].startswith(HOSTILE)
            assert "`darkroom schedule tiny`" in refused["text"]
            assert drift["text"] == f"{HOSTILE}\n\n{page}"
            assert refused["link"] == drift["link"] == page
            assert asked["link"].endswith(promote)
            assert page in asked["text"]
            tried = house.workshop.command("notify")
            assert tried.returncode == 0, tried.stderr
            assert tried.stdout.splitlines() == [
                "sent: the webhook at 127.0.0.1",
                f"sent: mail to {READER} through localhost:{box.port}, with TLS",
            ]
            assert heard[-1]["text"].split() == box.letter(notices.SUBJECT).get_content().split()

            box.password = "another one"
            failed = house.workshop.command("notify")
            assert failed.returncode == 4
            assert "535" in failed.stdout
            tell(house, drifted("refused"))
            failures = {"event": {"name": ["prefect.automation.action.failed"]}}
            wait_for(lambda: house.ask("POST", "/events/filter", filter=failures)["events"] or None)
            assert len(box.letters) == 5

            said = "".join(one.stdout + one.stderr for one in (tried, failed)).encode()
            written = [path.read_bytes() for path in house.workshop.home.rglob("*") if path.is_file()]
            for secret in (PASSWORD, QUOTED, "planted-path"):
                assert not [content for content in (said, *written) if secret.encode() in content]


def test_a_mail_server_without_tls_is_spoken_to_where_the_address_says_so(
    equip: Callable[..., Any], tmp_path: Path
) -> None:
    workshop = equip(tmp_path / "workshop")
    with served() as box:
        plain = f"mailto://127.0.0.1:{box.port}?from={SENDER}&to={READER}"
        done = workshop.command("notify", DARKROOM_NOTIFY_MAIL=plain)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"sent: mail to {READER} through 127.0.0.1:{box.port}, without TLS\n"
        assert "`darkroom notify` sent this" in box.letter(notices.SUBJECT).get_content()


def test_what_is_not_taken_is_said_with_its_reason(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listener() as (hook, _), served(tls) as box:

        def tried(mail: str) -> str | None:
            ((_, problem),) = notices.send(Settings(notify_mail=SecretStr(mail)))
            return problem

        assert "CERTIFICATE_VERIFY_FAILED" in str(tried(address(box))), (
            "a server that nobody vouches for gets no password"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert tried(address(box)) is None
        wrong = str(tried(address(box, "wrong-5d1e0b")))
        assert "535" in wrong
        assert "wrong-5d1e0b" not in wrong
        missing = list(notices.send(Settings(notify_webhook=SecretStr(f"{hook}/missing"))))
        assert missing == [("the webhook at 127.0.0.1", "it answered 404")]
    assert "refused" in str(tried(address(box)))
    assert len(box.letters) == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mail", "planted-5d1e0b"),
        ("mail", "https://planted-5d1e0b.example"),
        ("mail", "mailtoo://robot:planted-5d1e0b@smtp.example.org"),
        ("mail", "mailtos://:planted-5d1e0b"),
        ("mail", "mailtos://robot:planted-5d1e0b@smtp.example.org?to=nobody"),
        ("webhook", "planted-5d1e0b"),
        ("webhook", "ftp://planted-5d1e0b.example"),
        ("webhook", "https:///planted-5d1e0b"),
        ("webhook", "https://host:planted-5d1e0b/"),
    ],
)
def test_an_address_by_which_nobody_can_be_told_is_refused_before_anything_starts(
    setting: str, value: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match=f"DARKROOM_NOTIFY_{setting.upper()} is no ") as caught:
        up(Settings(home=tmp_path / "home", **{f"notify_{setting}": SecretStr(value)}))
    assert "5d1e0b" not in str(caught.value) + "".join(capfd.readouterr())
    assert not (tmp_path / "home").exists()


def test_up_and_notify_say_it_with_the_exit_status_of_a_mistake(equip: Callable[..., Any], tmp_path: Path) -> None:
    workshop = equip(tmp_path / "workshop")
    for command in ("up", "notify"):
        done = workshop.command(command, DARKROOM_NOTIFY_MAIL="planted-5d1e0b")
        assert done.returncode == 2
        assert done.stderr.startswith("darkroom: DARKROOM_NOTIFY_MAIL is no address")
        assert done.stderr.count("\n") == 1
        assert "5d1e0b" not in done.stdout + done.stderr
    nobody = workshop.command("notify")
    assert nobody.returncode == 2
    assert "nobody is told" in nobody.stderr
    assert not workshop.home.exists()
