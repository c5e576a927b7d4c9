"""One request and its answer: what is asked, what is taken for an answer, and what is wrong with it in a sentence."""

import contextlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ._http_connect import session
from ._http_rules import Limits, Network, PrivateAddress, forbids_ai, is_web_page, literal, retry_after, validator

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

REDIRECTS = 5
CODINGS = {"": None, "identity": None, "gzip": 31, "x-gzip": 31, "deflate": 15}  # and zlib's bits of each
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
    target: "URL | None" = None
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
    """A session that requests are made in; made, used and closed in one event loop."""

    def __init__(self, limits: Limits, network: Network, downloads: Path) -> None:
        self._limits, self._network, self._downloads = limits, network, downloads
        self._session = session(limits, network)
        self._serial = 0

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def request(self, job: Job) -> Outcome | None:
        """One request and its answer; None where it was a redirect, which the job then points to.

        Raises :class:`Fault`, and :class:`Disk` when our own disk is at fault.
        """
        import aiohttp

        assert job.target is not None
        self._allow(job.target)
        headers = {}
        if job.known is not None and job.known.etag:
            headers["If-None-Match"] = job.known.etag
        if job.known is not None and job.known.modified:
            headers["If-Modified-Since"] = job.known.modified
        body = Spool(self._limits.max_bytes, self._file)
        answer = None
        try:
            async with self._session.get(job.target, headers=headers or None, allow_redirects=False) as answer:
                status = answer.status
                noai = forbids_ai(answer.headers.getall("X-Robots-Tag", ()), self._limits.user_agent)
                if noai and status in (200, 304) and not self._limits.allow_noai:
                    raise Fault("refused: its server asks by X-Robots-Tag not to use it for AI")
                if status == 304 and headers:
                    return Unchanged()
                if status in (301, 302, 303, 307, 308):
                    job.target = self._redirected(job, answer)
                    return None
                if status != 200:
                    transient = status in (408, 425, 429) or status >= 500
                    after = retry_after(answer.headers.get("Retry-After"))
                    raise Fault(f"HTTP {status}", transient=transient, after=after)
                return await self._body(answer, body, noai)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _fault(error, job.target, answer, body.received, self._limits.timeout) from error
        finally:
            body.discard()

    async def _body(self, answer: "aiohttp.ClientResponse", body: "Spool", noai: bool) -> Body:
        length = answer.content_length
        if length is not None and length > self._limits.max_bytes:
            answer.close()
            raise body.too_large()
        coding = answer.headers.get("Content-Encoding", "").strip().lower()
        if coding not in CODINGS:
            answer.close()
            raise Fault(f"its Content-Encoding {coding[:40]!r} is not understood")
        bits = CODINGS[coding]
        plain = None if bits is None else _Plain(bits)
        try:
            async for chunk in answer.content.iter_any():
                body.received += len(chunk)
                if plain is None:
                    body.add(chunk)
                else:
                    for part in plain.parts(chunk):
                        body.add(part)
            if plain is not None:
                plain.end()
        except Fault:
            answer.close()  # the rest of it is not wanted
            raise
        if not body.size:
            raise Fault("an empty answer")
        if is_web_page(body.head(), answer.content_type):
            raise Fault("a web page, not a picture")
        return Body(
            content=body.take(),
            size=body.size,
            etag=validator(answer.headers.get("ETag")),
            modified=validator(answer.headers.get("Last-Modified")),
            noai=noai,
        )

    def _redirected(self, job: Job, answer: "aiohttp.ClientResponse") -> "URL":
        assert job.target is not None
        job.redirects += 1
        if job.redirects > REDIRECTS:
            raise Fault(f"more than {REDIRECTS} redirects")
        location = answer.headers.get("Location")
        if not location:
            raise Fault(f"HTTP {answer.status} without a Location")
        target = parse(location, job.target)
        if target.user is None and job.target.user is not None and target.origin() == job.target.origin():
            target = target.with_user(job.target.user).with_password(job.target.password)
        return target

    def _allow(self, target: "URL") -> None:
        """Refuse a host that is a private address in itself; names are judged by the resolver."""
        address = literal(target.host or "")
        if address is not None and not self._limits.allow_private and self._network.private(address):
            raise Fault(f"refused: private address {address}")

    def _file(self) -> tuple[Path, IO[bytes]]:
        self._serial += 1
        path = self._downloads / f"{os.getpid()}-{threading.get_ident()}-{self._serial}"
        return path, path.open("wb")


class Spool:
    """A body on its way: in memory while it is small, in a file when it is not; never more than ``limit`` bytes."""

    def __init__(self, limit: int, create: Callable[[], tuple[Path, IO[bytes]]]) -> None:
        self._limit, self._create = limit, create
        self._chunks: list[bytes] = []
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._head = b""
        self.size = 0
        self.received = 0  # bytes as they were sent, where they were compressed

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
    """Undoes a Content-Encoding piece by piece, so that a bomb is cut off; aiohttp does not miss a missing end."""

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


def parse(text: str, base: "URL | None" = None) -> "URL":
    """An address that can be fetched, relative to ``base`` where it is a redirect's; raises :class:`Fault`."""
    from yarl import URL

    text = text.strip()
    try:
        # Escapes in it are left as they are: signatures are over them. Only what may not be in a URL is escaped.
        url = URL(text, encoded=text.isascii() and text.isprintable() and " " not in text)
        url = base.join(url) if base is not None else url
        scheme, host, _ = url.scheme, url.host, url.port
    except (ValueError, UnicodeError):
        raise Fault("not a valid address") from None
    if scheme not in ("http", "https"):
        raise Fault(f"refused: {scheme[:20] or 'no scheme'!r} is not http or https")
    if not host:
        raise Fault("not a valid address: it names no host")
    return url.with_fragment(None) if url.raw_fragment else url


def _fault(error: Exception, target: "URL", answer: "aiohttp.ClientResponse | None", got: int, timeout: float) -> Fault:
    """What an exception of aiohttp means to the reader of the row's reasons; never the address, which may be secret."""
    import aiohttp

    place = f"{target.host}:{target.port}"
    if isinstance(error, TimeoutError):
        return Fault(f"timed out after {timeout:g} s", transient=True, answered=answer is not None)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return Fault(f"the certificate of {place} is not valid: {getattr(cause, 'verify_message', '')}".rstrip(": "))
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if isinstance(cause, PrivateAddress):
            return Fault(f"refused: {cause}")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Fault(f"no address of {target.host}: {cause.strerror or cause}", transient=True, answered=False)
        why = os.strerror(cause.errno) if cause.errno else type(cause).__name__
        return Fault(f"cannot connect to {place}: {why}", transient=True, answered=False)
    if isinstance(error, aiohttp.ClientPayloadError):
        length = answer.content_length if answer is not None else None
        if length is not None and got < length:
            return Fault(f"cut short: {got:,} of {length:,} bytes", transient=True)
        return Fault(f"cut short or damaged after {got:,} bytes", transient=True)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Fault("the connection was closed without an answer", transient=True, answered=answer is not None)
    if isinstance(error, aiohttp.ClientResponseError):
        return Fault("the answer is not HTTP", transient=True)
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Fault("the connection was lost", transient=True, answered=answer is not None)
    return Fault("not a valid address")
