"""Where people are told: the addresses of DARKROOM_NOTIFY_WEBHOOK and DARKROOM_NOTIFY_MAIL, and a message to try them.

Both are secrets. Whatever is said of them here, in errors too, is without user, password, path and query.
"""

import argparse
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from darkroom.errors import RecipeError, ServiceUnavailable
from darkroom.secrets import hidden

if TYPE_CHECKING:
    from darkroom.settings import Settings

MAIL = "mailtos://USER:PASSWORD@SMTP-HOST:587?from=SENDER&to=RECIPIENT"
SUBJECT = "darkroom: a message to try it"
TEXT = "`darkroom notify` sent this. What a person should know of runs will come the same way."
TIMEOUT_SECONDS = 30.0


def webhook(settings: "Settings") -> str | None:
    """The webhook's address; None where there is none. Raises :class:`RecipeError` for what is no address."""
    if not settings.notify_webhook:
        return None
    address = settings.notify_webhook.get_secret_value()
    with contextlib.suppress(ValueError):  # brackets that enclose no address, a port that is no number
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return address
    raise RecipeError("DARKROOM_NOTIFY_WEBHOOK is no web address: it begins with https:// and a host (or http://)")


def mail(settings: "Settings") -> str | None:
    """The address for Apprise, by which it sends the text as it is; None where there is none.

    Apprise's own default is HTML, in which a reason that quotes a caption would become markup. Raises
    :class:`RecipeError` for what Apprise cannot send by, or to nobody.
    """
    if not settings.notify_mail:
        return None
    given = settings.notify_mail.get_secret_value()
    address = f"{given}{'&' if '?' in given else '?'}format=text"
    service = _service(address)
    if service is None or not getattr(service, "targets", True):
        raise RecipeError(f"DARKROOM_NOTIFY_MAIL is no address that mail can be sent by: it looks like {MAIL}")
    return address


def guard(settings: "Settings") -> None:
    """Raise :class:`RecipeError` for a setting by which nobody could be told."""
    webhook(settings)
    mail(settings)


def routes(settings: "Settings") -> list[str]:
    """In words, which may be shown, how people are told; none where nobody is. Raises as :func:`guard` does."""
    found = []
    if address := webhook(settings):
        found.append(f"the webhook at {urlsplit(address).hostname}")
    if address := mail(settings):
        found.append(_route(_service(address)))
    return found


def send(settings: "Settings") -> Iterator[tuple[str, str | None]]:
    """Send a message on every route: (the route in words, what went wrong or None). Raises as :func:`guard` does."""
    ways = [way for way, address in ((_post, webhook(settings)), (_mail, mail(settings))) if address]
    for route, way in zip(routes(settings), ways, strict=True):
        yield route, way(settings)


def _post(settings: "Settings") -> str | None:
    import httpx

    address = webhook(settings) or ""
    told = {"subject": SUBJECT, "text": TEXT, "event": "darkroom.notify", "link": ""}
    try:
        answer = httpx.post(address, json=told, timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return hidden(f"{type(error).__name__}: {error}", address)
    return None if answer.is_success else f"it answered {answer.status_code}"


def _mail(settings: "Settings") -> str | None:
    service = _service(mail(settings) or "")
    with _listening() as said:
        sent = service.notify(title=SUBJECT, body=TEXT)
    words = "; ".join(said) or "it was not sent, and nothing says why"
    return None if sent else hidden(words, service.password)


def _service(address: str) -> Any:
    """What Apprise makes of an address; None for what it does not know."""
    from apprise import Apprise

    with _listening():
        return Apprise.instantiate(address)


def _route(service: Any) -> str:
    host = getattr(service, "smtp_host", None)
    if host is None:
        return str(service.service_name)
    people = ", ".join(address for _, address in service.targets)
    how = "without TLS" if service.secure_mode == "insecure" else "with TLS"
    return f"mail to {people} through {host}:{service.port}, {how}"


class _Ear(logging.Handler):
    """Keeps warnings, and why a mail server refused, which Apprise tells to those who debug alone."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.levelno >= logging.WARNING or words.startswith("Socket Exception"):
            self.said.append(words)


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """What Apprise logs, which goes nowhere else: it may show a part of the address."""
    log, ear = logging.getLogger("apprise"), _Ear()
    before = log.level, log.propagate
    log.addHandler(ear)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield ear.said
    finally:
        log.removeHandler(ear)
        log.setLevel(before[0])
        log.propagate = before[1]


# The command


def add_parser(commands: Any) -> None:
    """Register `notify`."""
    notify = commands.add_parser(
        "notify",
        help="send a message to try DARKROOM_NOTIFY_WEBHOOK and DARKROOM_NOTIFY_MAIL",
        description="Send a message to try DARKROOM_NOTIFY_WEBHOOK and DARKROOM_NOTIFY_MAIL, and say whether it was "
        "taken. Needs no server of `darkroom up`; exit status 4 when one was not taken.",
    )
    notify.set_defaults(command=_notify)


def _notify(_: argparse.Namespace) -> int:
    from darkroom.settings import Settings

    settings = Settings()
    failed = 0
    if not routes(settings):
        raise RecipeError(
            "nobody is told of anything: set DARKROOM_NOTIFY_WEBHOOK to an https:// address, or DARKROOM_NOTIFY_MAIL "
            f"to {MAIL}"
        )
    for route, problem in send(settings):
        print(f"not sent: {route}: {problem}" if problem else f"sent: {route}", flush=True)
        failed += problem is not None
    if failed:
        raise ServiceUnavailable("not every message was taken: see above, and mend the setting or the server")
    return 0
