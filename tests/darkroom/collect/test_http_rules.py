"""The rules of fetching: which networks are private, what robots are asked, how long to wait, what an address hides."""

import ipaddress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from darkroom.collect._http_rules import (
    LONGEST_BACKOFF_SECONDS,
    forbids_ai,
    full_jitter,
    is_web_page,
    literal,
    private,
    retry_after,
    validator,
    without_credentials,
)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
        *("0.0.0.0", "100.64.0.1", "100.127.255.255", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:100.64.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1"),
        *("64:ff9b:1::1", "2002:7f00:1::", "2002:0a00:0001::1", "2001:0:102:304:0:0:f5ff:fffe"),
    ],
)
def test_networks_that_are_not_of_the_public_internet(address: str) -> None:
    assert private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.169.0.1"),
        *("2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::1"),
    ],
)
def test_networks_of_the_public_internet(address: str) -> None:
    assert not private(ipaddress.ip_address(address))


def test_every_network_that_python_calls_not_global_is_private() -> None:
    for first in range(256):
        for second in (0, 1, 16, 31, 64, 127, 168, 254, 255):
            address = ipaddress.IPv4Address(f"{first}.{second}.0.9")
            assert private(address) or address.is_global


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "017700000001"]
)
def test_an_address_is_known_in_every_spelling(host: str) -> None:
    assert literal(host) == ipaddress.ip_address("127.0.0.1")


def test_a_name_is_no_address() -> None:
    assert [literal(host) for host in ("example.com", "dead.beef", "localhost", "", "face", "1.example")] == [None] * 6
    assert literal("[::1]") == literal("::1") == ipaddress.ip_address("::1")


@pytest.mark.parametrize(
    ("headers", "forbidden"),
    [
        ([], False),
        (["noindex, nofollow"], False),
        (["noai"], True),
        (["NoImageAI"], True),
        (["noindex , noai"], True),
        (["all", "noimageai"], True),
        (["darkroom: noai"], True),
        (["Darkroom: noindex, noai"], True),
        (["*: noai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["otherbot: noindex, darkroom: noai"], True),
        (["otherbot: noai", "noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["max-image-preview: large, noimageai"], True),
        (["noairplanes"], False),
    ],
)
def test_what_robots_are_asked(headers: list[str], forbidden: bool) -> None:
    assert forbids_ai(headers, "darkroom/1.0 (+https://example.com)") is forbidden


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("-5") is None
    assert retry_after(" 7 ") == 7.0
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after(date) == pytest.approx(90, abs=3)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_the_bound_of_backoff_doubles_and_ends() -> None:
    for failures in (1, 2, 3, 30):
        waits = [full_jitter(failures) for _ in range(2000)]
        bound = min(LONGEST_BACKOFF_SECONDS, 2.0 ** (failures - 1))
        assert 0 <= min(waits) < 0.05 * bound
        assert 0.95 * bound < max(waits) <= bound


def test_a_web_page_is_known_by_its_bytes() -> None:
    assert is_web_page(b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>", "image/jpeg")
    assert is_web_page(b"<div>not found</div>", "text/html")
    assert not is_web_page(b"\xff\xd8\xff\xe0JFIF", "text/html")
    assert not is_web_page(b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/svg+xml")


def test_only_a_validator_that_can_be_sent_back_is_kept() -> None:
    assert validator('W/"abc"') == 'W/"abc"'
    assert [validator(text) for text in (None, "", "a\nb", "\udcff", "é", "x" * 600)] == [None] * 6


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host/a.jpg?x=@y", "https://host/a.jpg?x=@y"),
        ("HTTP://user@host:80", "HTTP://host:80"),
        ("https://a:b@c:d@host/", "https://host/"),
        ("https://host/user:secret@place", "https://host/user:secret@place"),
        ("https://host?mail=me@here", "https://host?mail=me@here"),
        ("//user:secret@host/x", "//host/x"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
