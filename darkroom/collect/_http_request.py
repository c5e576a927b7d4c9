"""One request and its answer: what is asked, what is taken for an answer, and what is wrong with it in a sentence."""

import contextlib
import copy
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pycurl

from ._http_connect import Broken, Connections, NoAddress, port_of
from ._http_rules import Limits, Network, PrivateAddress, forbids_ai, is_web_page, literal, retry_after, validator

REDIRECTS = 5
CODINGS = {"": None, "identity": None, "gzip": 31, "x-gzip": 31, "deflate": 15}  # and zlib's bits of each
STATUS = re.compile(rb"HTTP/[\d.]+ +(\d{3})")
SPOOL_BYTES = 1 << 20  # larger bodies go through a file


@dataclass(frozen=True, slots=True)
class Known:
    """A picture that an address gave: the store's id of it, its size in bytes, and what to ask for changes by."""

    id: str
    size: int
    etag: str | None = None
    modified: str | None = None
    noai: bool = False


@dataclass(slots=True)
class Job:
    """An address to fetch, and what it gave before, if we still have that."""

    key: str
    url: str
    known: Known | None = None
    target: Any = None  # the address as a pycurl.CurlUrl
    redirects: int = 0
    failures: int = 0
    spent: float = 0.0  # seconds, without those of waiting for a turn


@dataclass(frozen=True, slots=True)
class Body:
    """A whole picture, in memory or in a file that is the taker's."""

    content: bytes | Path
    size: int
    etag: str | None
    modified: str | None
    noai: bool


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The bytes that we have are those that the server has."""


class Fault(Exception):
    """Why there are no bytes, in a sentence.

    ``transient``: another try may help, not before ``after`` seconds, and not in this run if it is the ``last``.
    ``answered``: the host is there.
    """

    def __init__(
        self,
        sentence: str,
        *,
        transient: bool = False,
        after: float | None = None,
        answered: bool = True,
        last: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.sentence, self.transient, self.after = sentence, transient, after
        self.answered, self.last = answered, last


Outcome = Body | Unchanged | Fault


class Disk(Exception):
    """Our own disk failed, which is no fault of the address: an error of writing, as this one's cause."""


class Requests:
    """What requests are made with; made, used and closed in one event loop."""

    def __init__(self, limits: Limits, network: Network, downloads: Path) -> None:
        self._limits, self._network, self._downloads = limits, network, downloads
        self._connections = Connections(limits, network)
        self._serial = 0

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

    async def request(self, job: Job) -> Outcome | None:
        """One request and its answer; None where it was a redirect, which the job then points to.

        Raises :class:`Fault`, and :class:`Disk` when our own disk is at fault.
        """
        assert job.target is not None
        self._allow(job.target)
        fields = []
        if job.known is not None and job.known.etag:
            fields.append(f"If-None-Match: {job.known.etag}")
        if job.known is not None and job.known.modified:
            fields.append(f"If-Modified-Since: {job.known.modified}")
        body = Spool(self._limits.max_bytes, self._file)
        answer = _Answer(self._limits, bool(fields), body)
        try:
            try:
                await self._connections.get(job.target, fields, answer)
            except (Broken, OSError) as error:
                if answer.wanted() and not answer.ended_by(error):
                    raise _fault(error, job.target, answer, self._limits.timeout) from error
            outcome = answer.outcome()
        finally:
            body.discard()
        if isinstance(outcome, str):
            job.target = self._redirected(job, outcome)
            return None
        return outcome

    def _redirected(self, job: Job, location: str) -> Any:
        assert job.target is not None
        job.redirects += 1
        if job.redirects > REDIRECTS:
            raise Fault(f"more than {REDIRECTS} redirects")
        target = parse(location, job.target)
        if target.user is None and job.target.user is not None and _origin(target) == _origin(job.target):
            target.user, target.password = job.target.user, job.target.password
        return target

    def _allow(self, target: Any) -> None:
        """Refuse a host that is a private address in itself; names are judged by what they lead to."""
        address = literal(target.host)
        if address is not None and not self._limits.allow_private and self._network.private(address):
            raise Fault(f"refused: private address {address}")

    def _file(self) -> tuple[Path, IO[bytes]]:
        self._serial += 1
        path = self._downloads / f"{os.getpid()}-{threading.get_ident()}-{self._serial}"
        return path, path.open("wb")


class _Answer:
    """An answer as it comes in, and what is made of it: its body is taken only where its head lets it be a picture."""

    def __init__(self, limits: Limits, conditional: bool, body: "Spool") -> None:
        self._limits, self._conditional, self._body = limits, conditional, body
        self.lines: list[bytes] = []
        self.received = 0
        self.why: Exception | None = None
        self.status = 0  # of the head, once it is whole
        self.fields: dict[str, list[str]] = {}
        self._judged: Unchanged | Fault | str | None = None  # by the head alone; a redirect's address
        self._plain: _Plain | None = None

    @property
    def length(self) -> int | None:
        """Bytes of the body, where the head says how many."""
        text = self._field("content-length") or ""
        given = re.fullmatch(r"\d{1,18}", text, re.ASCII) and "transfer-encoding" not in self.fields
        return int(text) if given else None

    def write(self, chunk: bytes) -> int | None:
        """Take a piece of the body; -1 ends the transfer, ``why`` says for what reason."""
        self.received += len(chunk)
        if self.wanted():
            try:
                if self._plain is None:
                    self._body.add(chunk)
                else:
                    for part in self._plain.parts(chunk):
                        self._body.add(part)
            except Exception as error:
                self.why = error
                return -1
        elif self.received != self.length:  # what is whole with this piece leaves the connection free for the next
            return -1
        return None

    def wanted(self) -> bool:
        """Whether there is more to wait for: a body, or a head that says whether it is one that is wanted."""
        if not self.status and self.lines and self.lines[-1] in (b"\r\n", b"\n"):
            self.status, self.fields = _head(self.lines)
            try:
                self._judged = self._judge() if self.status else None
            except Exception as error:  # whatever a server thinks of, nobody would catch it where this is called from
                self._judged = Fault(f"it cannot be fetched ({type(error).__name__})")
        return self._judged is None

    def ended_by(self, error: Exception) -> bool:
        """Whether that is how a body of unknown length ends: some servers close TLS without the goodbye it asks for."""
        unknown = "content-length" not in self.fields and "transfer-encoding" not in self.fields
        closed = isinstance(error, Broken) and error.code == pycurl.E_RECV_ERROR and "unexpected eof" in error.sentence
        return self.status > 0 and unknown and closed

    def outcome(self) -> Outcome | str:
        """What has come of it at its end; the address of a redirect. Raises :class:`Fault`."""
        if not self.wanted():
            if isinstance(self._judged, Fault):
                raise self._judged
            assert self._judged is not None
            return self._judged
        body = self._body
        if self._plain is not None:
            self._plain.end()
        if not body.size:
            raise Fault("an empty answer")
        if is_web_page(body.head(), (self._field("content-type") or "").partition(";")[0].strip().lower()):
            raise Fault("a web page, not a picture")
        return Body(
            content=body.take(),
            size=body.size,
            etag=validator(self._field("etag")),
            modified=validator(self._field("last-modified")),
            noai=self._noai(),
        )

    def _judge(self) -> "Unchanged | Fault | str | None":
        """What the head alone decides; None where the body is wanted."""
        status = self.status
        if status in (200, 304) and self._noai() and not self._limits.allow_noai:
            return Fault("refused: its server asks by X-Robots-Tag not to use it for AI")
        if status == 304 and self._conditional:
            return Unchanged()
        if status in (301, 302, 303, 307, 308):
            return self._field("location") or Fault(f"HTTP {status} without a Location")
        if status != 200:
            transient = status in (408, 425, 429) or status >= 500
            return Fault(f"HTTP {status}", transient=transient, after=retry_after(self._field("retry-after")))
        if self.length is not None and self.length > self._limits.max_bytes:
            return self._body.too_large()
        coding = (self._field("content-encoding") or "").lower()
        if coding not in CODINGS:
            return Fault(f"its Content-Encoding {coding[:40]!r} is not understood")
        bits = CODINGS[coding]
        self._plain = None if bits is None else _Plain(bits)
        return None

    def _noai(self) -> bool:
        return forbids_ai(self.fields.get("x-robots-tag", ()), self._limits.user_agent)

    def _field(self, name: str) -> str | None:
        values = self.fields.get(name)
        return values[0] if values else None


def _head(lines: list[bytes]) -> tuple[int, dict[str, list[str]]]:
    """The status and the fields by their names in small letters; status 0 where all answers are interim (1xx)."""
    status, fields, inside = 0, dict[str, list[str]](), False
    for line in lines:
        start = None if inside else STATUS.match(line)
        if start is not None:
            status, fields, inside = int(start[1]), {}, True
        elif not line.strip():
            inside = False
        elif inside:  # else it is a trailer
            name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
            fields.setdefault(name.strip().lower(), []).append(value.strip())
    return 0 if status < 200 else status, fields


class Spool:
    """A body on its way: in memory while it is small, in a file when it is not; never more than ``limit`` bytes."""

    def __init__(self, limit: int, create: Callable[[], tuple[Path, IO[bytes]]]) -> None:
        self._limit, self._create = limit, create
        self._chunks: list[bytes] = []
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._head = b""
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            raise self.too_large()
        self._chunks.append(chunk)
        if self.size <= SPOOL_BYTES:
            return
        try:
            if self._file is None:
                self._head = self.head()
                self._path, self._file = self._create()
            self._file.writelines(self._chunks)
        except OSError as error:
            raise Disk from error
        self._chunks.clear()

    def too_large(self) -> Fault:
        return Fault(f"larger than collect.max_bytes = {self._limit:,} bytes")

    def head(self) -> bytes:
        if self._head or not self._chunks:
            return self._head
        return self._chunks[0] if len(self._chunks[0]) >= 512 else b"".join(self._chunks)[:512]

    def take(self) -> bytes | Path:
        """The whole body; the file, if any, is the taker's from now on."""
        if self._file is None or self._path is None:
            return b"".join(self._chunks) if len(self._chunks) != 1 else self._chunks[0]
        path, file = self._path, self._file
        try:
            file.close()
        except OSError as error:
            raise Disk from error
        self._file = self._path = None
        return path

    def discard(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk, of which writing has told already
                self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Plain:
    """Undoes a Content-Encoding piece by piece, so that a bomb is cut off, and misses a missing end."""

    def __init__(self, bits: int) -> None:
        self._inflate = zlib.decompressobj(bits)

    def parts(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while chunk and not self._inflate.eof:
                yield self._inflate.decompress(chunk, SPOOL_BYTES)
                chunk = self._inflate.unconsumed_tail
        except zlib.error:
            raise Fault("its compression is damaged", transient=True) from None

    def end(self) -> None:
        if not self._inflate.eof:
            raise Fault("cut short: its compression does not end", transient=True)


def parse(text: str, base: Any | None = None) -> Any:
    """An address that can be fetched, relative to ``base`` where it is a redirect's; raises :class:`Fault`.

    It is parsed here and nowhere else: what the rules are asked of is what is connected to.
    """
    text = text.strip()
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", text)
    name = scheme[1].lower() if scheme is not None else "no scheme" if base is None else base.scheme
    if name not in ("http", "https"):
        raise Fault(f"refused: {name[:20]!r} is not http or https")
    # Escapes in it are left as they are: signatures are over them. Only what may not be in a URL is escaped.
    plain = text.isascii() and text.isprintable() and " " not in text
    url = pycurl.CurlUrl() if base is None else copy.copy(base)
    try:
        url.setpart(pycurl.UPART_URL, text.encode(), pycurl.U_PATH_AS_IS | (0 if plain else pycurl.U_URLENCODE))
        if not plain:
            _ascii_host(url)
    except (pycurl.error, ValueError):
        raise Fault("not a valid address") from None
    url.fragment = None
    return url


def _ascii_host(url: Any) -> None:
    """Write a host of other letters as the names of the net have it."""
    import idna

    host = url.host
    if not host.isascii():
        try:
            url.host = idna.encode(host, uts46=True)
        except idna.IDNAError:
            url.host = host.encode("idna")  # as older rules allow


def _origin(url: Any) -> tuple[object, ...]:
    return url.scheme, url.host.lower(), port_of(url)


def _fault(error: Broken | OSError, target: Any, answer: _Answer, timeout: float) -> Fault:
    """What an error means to the reader of the row's reasons; never the address, which may be secret."""
    place = f"{target.host}:{port_of(target)}"
    answered = answer.status > 0
    if isinstance(error, PrivateAddress):
        return Fault(f"refused: {error}")
    if isinstance(error, NoAddress):
        return Fault(f"no address of {target.host}: {error.strerror}", transient=True, answered=False)
    if not isinstance(error, Broken) or error.code == pycurl.E_OPERATION_TIMEDOUT:
        return Fault(f"timed out after {timeout:g} s", transient=True, answered=answered)
    if error.code == pycurl.E_PEER_FAILED_VERIFICATION:
        why = re.sub(r"^SSL[^:]*: | \(\d+\)$", "", error.sentence)
        return Fault(f"the certificate of {place} is not valid: {why}")
    if error.code in (pycurl.E_COULDNT_CONNECT, pycurl.E_SSL_CONNECT_ERROR):
        why = os.strerror(error.errno) if error.errno else error.sentence
        return Fault(f"cannot connect to {place}: {why}", transient=True, answered=False)
    if error.code == pycurl.E_URL_MALFORMAT:
        return Fault("not a valid address")
    if answered:
        got, length = answer.received, answer.length
        if length is not None and got < length:
            return Fault(f"cut short: {got:,} of {length:,} bytes", transient=True)
        return Fault(f"cut short or damaged after {got:,} bytes", transient=True)
    if error.code == pycurl.E_GOT_NOTHING:
        return Fault("the connection was closed without an answer", transient=True, answered=False)
    if error.code in (pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR):
        return Fault("the connection was lost", transient=True, answered=False)
    if error.code in (pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_FTP_WEIRD_SERVER_REPLY):
        return Fault("the answer is not HTTP", transient=True)
    return Fault(f"it cannot be fetched (libcurl's error {error.code})", transient=True)
