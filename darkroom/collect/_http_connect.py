"""Transfers by libcurl in the event loop: to no address that is not allowed, and none that stands still for long."""

import asyncio
import contextlib
import math
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pycurl

from ._http_rules import Limits, Network, PrivateAddress, literal

LOOKED_UP_SECONDS = 10.0  # for which the addresses of a name are used again
NAMES = 4096  # whose addresses are kept
WATCH_SECONDS = 1.0  # at most between two looks at what stands still


class Answer(Protocol):
    """What takes an answer as it comes in."""

    lines: list[bytes]  # of the head, as they came
    received: int  # bytes of the body
    why: Exception | None  # the reason why the taker ended the transfer

    def write(self, chunk: bytes) -> int | None:
        """Take a piece of the body; -1 ends the transfer."""

    def wanted(self) -> bool:
        """Whether there is more to wait for, by what has come in."""


class Broken(Exception):
    """A transfer that failed: libcurl's code of it and its sentence, and the system's error, 0 where it has none."""

    def __init__(self, code: int, sentence: str, errno: int) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.errno = code, sentence, errno


class NoAddress(OSError):
    """A name that leads nowhere."""


@dataclass(slots=True)
class _Transfer:
    answer: Answer
    curl: Any
    progress: tuple[int, int, float]  # lines of the head, bytes of the body, seconds until it was connected
    since: float  # when that was first seen
    ended: bool = False  # by the watcher


def port_of(target: Any) -> str:
    """The port of a ``pycurl.CurlUrl``, its scheme's where it names none."""
    return str(target.getpart(pycurl.UPART_PORT, pycurl.U_DEFAULT_PORT))


class Connections:
    """libcurl's connections; made, used and closed in one event loop. Nothing is kept between requests but they."""

    def __init__(self, limits: Limits, network: Network) -> None:
        self._limits, self._network = limits, network
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.AsyncCurlMulti()
        self._idle: list[Any] = []
        self._under_way: dict[asyncio.Future[Any], _Transfer] = {}
        self._watcher: asyncio.TimerHandle | None = None
        self._names: dict[str, tuple[float, asyncio.Future[list[str]]]] = {}
        self._trusted = ssl.get_default_verify_paths()

    async def get(self, target: Any, fields: Sequence[str], answer: Answer) -> None:
        """Ask for a ``pycurl.CurlUrl`` with these further fields in the head, until all of the answer has come in.

        Raises the reason why the answer's taker ended it, else :class:`Broken`, :class:`PrivateAddress`,
        :class:`NoAddress` or ``TimeoutError``.
        """
        curl = self._idle.pop() if self._idle else self._made()
        try:
            host = target.host
            if literal(host) is None:
                addresses = ",".join(await self._addresses(host))
                curl.setopt(pycurl.RESOLVE, [f"+{host}:{port_of(target)}:{addresses}"])
            if not self._limits.allow_private:
                curl.setopt(pycurl.OPENSOCKETFUNCTION, lambda purpose, info: self._connectable(info, answer))
            curl.setopt(pycurl.CURLU, target)
            curl.setopt(pycurl.HTTPHEADER, ["Accept-Encoding: identity", *fields])
            curl.setopt(pycurl.HEADERFUNCTION, answer.lines.append)
            curl.setopt(pycurl.WRITEFUNCTION, answer.write)
            await self._transfer(curl, answer)
        except pycurl.error as error:
            if answer.why is not None:
                raise answer.why from None
            code, sentence = error.args
            raise Broken(code, sentence, curl.getinfo(pycurl.OS_ERRNO)) from None
        finally:
            self._idle.append(curl)

    async def close(self) -> None:
        """Close every connection."""
        if self._watcher is not None:
            self._watcher.cancel()
        await self._multi.aclose()
        for curl in self._idle:
            curl.close()

    def _made(self) -> Any:
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(math.ceil(self._limits.timeout * 1000), 2**31 - 1))
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)  # one download a connection
        curl.setopt(pycurl.PROXY, "")  # one of the environment would connect where the rules on addresses do not reach
        curl.setopt(pycurl.USERAGENT, " ".join(self._limits.user_agent.splitlines()).encode())
        if self._trusted.cafile:
            curl.setopt(pycurl.CAINFO, self._trusted.cafile)
            curl.unsetopt(pycurl.CAPATH)  # with both, libcurl reads them anew for every connection
        elif self._trusted.capath:
            curl.setopt(pycurl.CAPATH, self._trusted.capath)
        else:  # some systems have none where OpenSSL looks
            import certifi

            curl.setopt(pycurl.CAINFO, certifi.where())
        return curl

    async def _transfer(self, curl: Any, answer: Answer) -> None:
        future = self._multi.add_handle(curl)
        transfer = self._under_way[future] = _Transfer(answer, curl, (0, 0, 0.0), self._loop.time())
        if self._watcher is None:
            self._watch_later()
        try:
            await future
        except asyncio.CancelledError:
            if not transfer.ended:
                raise
            if answer.why is not None:
                raise answer.why from None
        finally:
            del self._under_way[future]

    def _watch_later(self) -> None:
        self._watcher = self._loop.call_later(min(self._limits.timeout / 16, WATCH_SECONDS), self._watch)

    def _watch(self) -> None:
        """End what has stood still for too long, and what there is no more to wait for."""
        self._watcher, now = None, self._loop.time()
        for future, transfer in self._under_way.items():
            answer = transfer.answer
            connected: float = transfer.curl.getinfo(pycurl.PRETRANSFER_TIME)
            progress = (len(answer.lines), answer.received, connected)
            if progress != transfer.progress:
                transfer.progress, transfer.since = progress, now
            elif now - transfer.since >= self._limits.timeout:
                answer.why = TimeoutError()
            if answer.why is not None or not answer.wanted():
                transfer.ended = True
                future.cancel()
        if self._under_way:
            self._watch_later()

    def _connectable(self, info: Any, answer: Answer) -> int:
        """A socket; the last word, on the very address that is about to be connected to, however it was come by."""
        address = literal(str(info.addr[0]))
        if address is None or self._network.private(address):
            answer.why = PrivateAddress(f"private address {info.addr[0]}")
            return int(pycurl.SOCKET_BAD)
        try:
            return socket.socket(info.family, info.socktype, info.protocol).detach()
        except OSError as error:  # there are too many
            answer.why = Broken(pycurl.E_COULDNT_CONNECT, str(error.strerror), error.errno or 0)
            return int(pycurl.SOCKET_BAD)

    async def _addresses(self, host: str) -> list[str]:
        """The allowed addresses of a name, which are what is connected to; one question at a time, kept for a while."""
        now = self._loop.time()
        until, asked = self._names.get(host, (0.0, None))
        if asked is None or (asked.done() and (until < now or asked.cancelled() or asked.exception() is not None)):
            if len(self._names) >= NAMES:
                self._names = {name: entry for name, entry in self._names.items() if entry[0] >= now}
            asked = self._loop.create_task(self._looked_up(host))
            asked.add_done_callback(lambda task: task.cancelled() or task.exception())  # also where nobody waits for it
            self._names[host] = now + LOOKED_UP_SECONDS, asked
        return await asyncio.shield(asked)

    async def _looked_up(self, host: str) -> list[str]:
        async with asyncio.timeout(self._limits.timeout):
            found = await _in_thread(self._network.lookup, host)
        allowed, refused = [], ""
        for text in found:
            address = literal(text)
            if address is None or (not self._limits.allow_private and self._network.private(address)):
                refused = text
            else:
                allowed.append(f"[{address}]" if address.version == 6 else str(address))
        if not allowed and refused:
            raise PrivateAddress(f"private address {refused}")
        if not allowed:
            raise NoAddress(socket.EAI_NONAME, "it has no address")
        return allowed


async def _in_thread(lookup: Callable[[str], Sequence[str]], host: str) -> Sequence[str]:
    """A call that may block for long, in a thread that nobody waits for when the program ends, unlike an executor's."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(found: Sequence[str] | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found or ())

    def work() -> None:
        found, error = None, None
        try:
            found = lookup(host)
        except OSError as caught:
            error = NoAddress(caught.errno, caught.strerror or str(caught))
        except Exception as caught:
            error = NoAddress(0, str(caught))
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=work, name="http-lookup", daemon=True).start()
    return await future
