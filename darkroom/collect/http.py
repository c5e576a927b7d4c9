"""Pictures at addresses, over HTTP and HTTPS: many at once, each fetched once.

What is fetched goes into the store at once, and the cache remembers by address what came from it, so that a
collection that was interrupted goes on where it was. The next collection of the same source asks for changes alone
where the server gave an ETag or a Last-Modified to ask by, and does not ask where it gave none. Of a failure nothing
is remembered: the next run tries again.
"""

import errno
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from darkroom.cache import Cache
from darkroom.errors import DiskFull
from darkroom.quality.removals import erased_ids
from darkroom.recipe import Collect
from darkroom.secrets import without_secret
from darkroom.store import Store, digest_of

from ._http_fetch import Fetcher
from ._http_keep import KIND, Keeper, Result, incoming
from ._http_request import Fault, Job, Known
from ._http_rules import Limits, Network, without_credentials
from ._http_second import PAYS_FROM, Second, pays
from .keep import picture_path
from .source import Item

WINDOW = 8192  # addresses read ahead, so that a list sorted by host still keeps several hosts busy
CHUNK = 256
NETWORK = Network()


@dataclass(frozen=True)
class Address:
    """A picture to fetch, and what the list of addresses says of it."""

    url: str
    caption: object
    label: object
    licence: str
    origin: str | None


def items(addresses: Iterable[Address], plan: Collect, store: Store, network: Network = NETWORK) -> Iterator[Item]:
    """Fetch every address and yield one item for each, in the order in which they are finished.

    A picture that cannot be had is an item whose ``read`` raises ``OSError`` with the reason: "HTTP 404", "timed out
    after 30 s, 4 tries", "cut short: 120 of 900 bytes", "refused: private address 10.0.0.1". An address that comes
    twice is fetched once, and gives two items. ``path`` is the address, without a password in it.

    Downloads run in threads of their own, at most ``WINDOW`` addresses ahead of what is yielded, and bytes lie on
    disk, not in memory. Closing the iterator (as ``contextlib.closing`` does when the taker stops for whatever
    reason) cancels what is under way and keeps what is finished. Raises :class:`DiskFull`.
    """
    with Cache(store.root / "cache.db") as cache:
        collection = _Collection(cache, plan)
        work = _Work(plan, store, network)
        try:
            yield from _items(addresses, plan, store, collection, work)
        finally:
            work.close()
        collection.complete()


def _items(
    addresses: Iterable[Address], plan: Collect, store: Store, collection: "_Collection", work: "_Work"
) -> Iterator[Item]:
    waiting: dict[str, list[Address]] = {}  # by the key of a job that is not done
    results: dict[str, Known | Fault] = {}
    source, more, pending, erased = iter(addresses), True, 0, erased_ids(store)
    while more or pending:
        ready: list[tuple[Address, Known | Fault]] = []
        if more and pending < WINDOW:
            chunk = [(_key(address.url), address) for address in itertools.islice(source, CHUNK)]
            more = bool(chunk)
            remembered = collection.remembered([key for key, _ in chunk if key not in waiting and key not in results])
            jobs = []
            for key, address in chunk:
                if key in results:
                    ready.append((address, results[key]))
                    continue
                pending += 1
                if key in waiting:
                    waiting[key].append(address)
                    continue
                known, finished = _usable(remembered.get(key), plan, store, collection, erased)
                if known is not None and finished:
                    pending -= 1
                    results[key] = known
                    ready.append((address, known))
                    continue
                waiting[key] = [address]
                jobs.append(Job(key, address.url, known))
            work.submit(jobs, more=more and pending < WINDOW)
        for key, result in work.results(wait=bool(pending) and not ready and (not more or pending >= WINDOW)):
            results[key] = result
            finishers = waiting.pop(key)
            pending -= len(finishers)
            ready += [(address, result) for address in finishers]
        for address, result in ready:
            yield _item(address, result, store)


def _key(url: str) -> str:
    """The cache's key of an address: a digest, for there may be a password in it."""
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()


def _usable(
    entry: dict[str, Any] | None, plan: Collect, store: Store, collection: "_Collection", erased: Collection[str]
) -> tuple[Known | None, bool]:
    """What we have of an address, and whether there is nothing to ask its server for."""
    if entry is None:
        return None, False
    known = Known(**{field.name: entry[field.name] for field in fields(Known)})
    if known.noai and not plan.http.allow_noai:
        return None, False  # it was fetched when that was allowed
    if known.id not in erased:  # what was erased on request is known, and not there
        try:
            if picture_path(store, known.id).stat().st_size != known.size:
                return None, False
        except OSError:
            return None, False
    return known, entry["when"] >= collection.started or not (known.etag or known.modified)


def _read(store: Store, known: Known) -> bytes:
    return picture_path(store, known.id).read_bytes()


def _item(address: Address, result: Known | Fault, store: Store) -> Item:
    size, fingerprint = None, None
    read: Callable[[], bytes]
    if isinstance(result, Known):
        size, fingerprint, read = result.size, f"sha256:{result.id}", partial(_read, store, result)
    else:
        read = _refuse(result.sentence)
    return Item(
        path=without_secret(without_credentials(address.url)),
        caption=address.caption,
        label=address.label,
        licence=address.licence,
        fingerprint=fingerprint,
        size=size,
        read=read,
        origin=address.origin,
    )


def _refuse(sentence: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise OSError(sentence)

    return read


class _Collection:
    """One collection of a source: from its beginning, through interruptions, to its end."""

    def __init__(self, cache: Cache, plan: Collect) -> None:
        self._cache = cache
        self._key = f"collection {digest_of([plan.source, plan.path])}"
        last = cache.get(KIND, [self._key]).get(self._key)
        #: Nanoseconds since 1970; what was fetched or confirmed since is not asked for again.
        self.started: int = last["started"] if last and not last["complete"] else time.time_ns()
        self._write(complete=False)

    def remembered(self, keys: Iterable[str]) -> dict[str, Any]:
        """What is known of these addresses."""
        return self._cache.get(KIND, keys)

    def complete(self) -> None:
        """The next one starts anew."""
        self._write(complete=True)

    def _write(self, *, complete: bool) -> None:
        self._cache.put(KIND, {self._key: {"started": self.started, "complete": complete}})


class _Work:
    """The threads behind the items; they start with the first job, for often there is none."""

    def __init__(self, plan: Collect, store: Store, network: Network) -> None:
        self._plan, self._store, self._network = plan, store, network
        self._results: SimpleQueue[list[Result] | BaseException] = SimpleQueue()
        self._held: list[Job] = []
        self._keeper: Keeper | None = None
        self._fetcher: Fetcher | None = None

    def submit(self, jobs: list[Job], *, more: bool) -> None:
        """Fetch these. Where ``more`` come, nothing starts before so many are there that a second process pays."""
        self._held += jobs
        if self._fetcher is None and (not self._held or (more and len(self._held) < PAYS_FROM)):
            return
        fetcher = self._fetcher or self._start()
        fetcher.submit(self._held)
        self._held = []

    def _start(self) -> Fetcher:
        limits = Limits(max_bytes=self._plan.max_bytes, **dict(self._plan.http))
        second = None
        if self._network is NETWORK and pays(len(self._held), limits):
            second = Second(limits.halves()[1], self._store, self._results.put)
        keeper = self._keeper = Keeper(self._store, self._results.put)
        place = incoming(self._store)
        self._fetcher = Fetcher(limits, self._network, place, keeper.take, keeper.broken, second=second)
        keeper.released = self._fetcher.released
        return self._fetcher

    def results(self, *, wait: bool) -> Iterator[Result]:
        """What is finished, and at least one result where ``wait``."""
        while True:
            try:
                found = self._results.get(block=wait)
            except Empty:
                return
            if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT):
                root = self._store.root
                raise DiskFull(f"the disk below {root} is full: {os.strerror(found.errno)}; make room and run again")
            if isinstance(found, BaseException):
                raise found
            yield from found
            wait = False

    def close(self) -> None:
        if self._fetcher is not None:
            self._fetcher.close()
        if self._keeper is not None:
            self._keeper.close()
