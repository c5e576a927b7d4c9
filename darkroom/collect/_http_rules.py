"""What is allowed and what is meant: the rules of fetching, as functions of texts and addresses alone."""

import functools
import ipaddress
import random
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598, carrier-grade NAT: neither private nor global in Python
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
NO_AI = {"noai", "noimageai"}
# Directives of X-Robots-Tag that have a value behind a colon, so that they are not taken for the name of a robot.
WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 30.0


class PrivateAddress(OSError):
    """A connection that must not be made."""


@dataclass(frozen=True)
class Limits:
    """What fetching may do: the fields of a recipe's ``[collect.http]``, and ``collect.max_bytes``."""

    max_bytes: int
    concurrency: int
    per_host: int
    timeout: float
    total_timeout: float
    retries: int
    allow_private: bool
    allow_noai: bool
    user_agent: str

    def halves(self) -> "tuple[Limits, Limits]":
        """The limits of two processes that together keep these; the first has what is odd."""
        downloads, of_host = self.concurrency // 2, self.per_host // 2
        assert downloads, "one download at a time cannot be shared"
        assert of_host, "one download at a time from a host cannot be shared"
        rest = replace(self, concurrency=self.concurrency - downloads, per_host=self.per_host - of_host)
        return rest, replace(self, concurrency=downloads, per_host=of_host)


def private(address: IPAddress) -> bool:
    """Whether it belongs to a private, loopback, link-local, shared, multicast or reserved network.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) is judged by that, too.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inside = _carried(address)
        if inside is not None:
            return any(private(part) for part in inside)
        if address.is_site_local:
            return True
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or (address.version == 4 and address in SHARED)
    )


def _carried(address: ipaddress.IPv6Address) -> Sequence[ipaddress.IPv4Address] | None:
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return address.teredo
    if address in NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return None


@functools.lru_cache(1024)
def literal(host: str) -> IPAddress | None:
    """The address that a host's text is in itself, also as ``2130706433``, ``0x7f.1`` or ``0177.0.0.1``; else None."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if re.fullmatch(r"[0-9a-fA-FxX.]+", host) else None
    except OSError:
        return None


def system_lookup(host: str) -> list[str]:
    """Addresses of a name, as the system's resolver gives them; raises ``OSError``. It may block for long."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def full_jitter(failures: int) -> float:
    """Seconds to wait after so many failures in a row, at random below a bound that doubles each time.

    So that clients which failed together do not come back together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, "full jitter".
    """
    return random.uniform(0.0, min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** (failures - 1)))


@dataclass(frozen=True)
class Network:
    """What fetching asks the world for; tests give their own."""

    lookup: Callable[[str], Sequence[str]] = system_lookup
    private: Callable[[IPAddress], bool] = private
    backoff: Callable[[int], float] = full_jitter


def forbids_ai(headers: Iterable[str], user_agent: str) -> bool:
    """Whether ``X-Robots-Tag`` headers ask a robot of this name not to use a picture for AI.

    ``noai, noimageai`` are for all robots; after ``name:`` they, and those behind them, are for the robot of that
    name (``*``: for all).
    """
    for header in headers:
        name = robot_name(user_agent)
        applies = True
        for part in header.lower().split(","):
            before, colon, after = part.partition(":")
            if colon and before.strip() not in WITH_VALUE:
                applies = before.strip() in ("*", name)
                part = after
            if applies and part.strip() in NO_AI:
                return True
    return False


def robot_name(user_agent: str) -> str:
    """``darkroom/1.0 (+https://…)`` -> ``darkroom``."""
    return re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0].lower()


def retry_after(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait: a number or a date (RFC 9110, 10.2.3); None: nothing."""
    if header is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", header):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def is_web_page(head: bytes, content_type: str) -> bool:
    """Whether an answer's first bytes are those of HTML; its declared type decides where the bytes leave doubt."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return text.startswith((b"<!doctype html", b"<html")) or (content_type == "text/html" and text.startswith(b"<"))


def validator(header: str | None) -> str | None:
    """An ETag or Last-Modified that can be sent back as it came, else None."""
    return header if header and len(header) <= 512 and header.isascii() and header.isprintable() else None


def without_credentials(url: str) -> str:
    """The address without a ``user:password@`` in it, as it may be shown and kept."""
    if "@" not in url:
        return url
    return re.sub(r"^([a-zA-Z][\w+.-]*:)?//[^/?#\\]*@", r"\1//", url)
