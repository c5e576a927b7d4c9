"""Connections: a session that keeps nothing between requests, and connects to no address that is not allowed."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ._http_rules import Limits, Network, PrivateAddress, literal

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver


def session(limits: Limits, network: Network) -> "aiohttp.ClientSession":
    import aiohttp

    def connectable(info: "tuple[int, int, int, str, tuple[object, ...]]") -> socket.socket:
        # The last word, on the very address that is about to be connected to, however it was come by.
        address = literal(str(info[4][0]))
        if not limits.allow_private and (address is None or network.private(address)):
            raise PrivateAddress(f"private address {info[4][0]}")
        return socket.socket(family=info[0], type=info[1], proto=info[2])

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # the turns are kept here
            resolver=_resolver(network, limits.allow_private, limits.timeout),
            socket_factory=connectable,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,  # a proxy of the environment would connect where the rules on addresses do not reach
        headers={"User-Agent": limits.user_agent, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.timeout, sock_read=limits.timeout),
    )


def _resolver(network: Network, allow_private: bool, timeout: float) -> "AbstractResolver":
    """aiohttp's resolver; it gives none but the addresses that are allowed, and they are what is connected to."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            async with asyncio.timeout(timeout):
                found = await _in_thread(network.lookup, host)
            allowed, refused = [], ""
            for text in found:
                address = literal(text)
                if address is None or (not allow_private and network.private(address)):
                    refused = text
                    continue
                kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
                if family in (socket.AF_UNSPEC, kind):
                    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
                    allowed.append(
                        ResolveResult(hostname=host, host=str(address), port=port, family=kind, proto=0, flags=flags)
                    )
            if not allowed and refused:
                raise PrivateAddress(f"private address {refused}")
            if not allowed:
                raise socket.gaierror(socket.EAI_NONAME, "it has no address")
            return allowed

        async def close(self) -> None:
            pass

    return Resolver()


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
        except Exception as caught:
            error = caught if isinstance(caught, OSError) else OSError(str(caught))
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=work, name="http-lookup", daemon=True).start()
    return await future
