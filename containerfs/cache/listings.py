"""Listings of one kind, each believed for a time to live, and fetched once for all who ask.

Nothing is fetched that nobody asked for. A server that does not answer is replaced by its last
listing.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Generic

import cachetools
import trio

from containerfs.cache.overlay import EntryT, Overlay
from containerfs.cache.state import State
from containerfs.errors import FileSystemError, LocalFault, NoSpace, ServerFault

log = logging.getLogger(__name__)

LONG = 1.0  # seconds that a listing takes before it counts as a long one
LONG_LIFE = 10.0  # times what it took: how long a long listing is believed
LONGEST_LIFE = 60.0  # seconds
STALE_GRACE = 2.0  # age of a refresh after which who waits for it is served a stale listing
LATE_GRACE = 0.2  # the same, as long as the server has answered nobody since
STALE_LIFE = 5.0  # how long a stale listing is served before the server is asked again
SAVE_AT_ONCE = 2_000  # entries; longer listings are saved when the mount stops
SAVE_EVERY = 5.0  # seconds from one time that a listing is saved to the next


@contextmanager
def not_remembered() -> Iterator[None]:
    """Go on where our own disk fails inside: what is known now holds, the next mount asks anew."""
    try:
        yield
    except (NoSpace, LocalFault) as exc:
        log.warning("a listing is not kept for the next mount: %s", exc)


@dataclass(frozen=True, slots=True, eq=False)
class Listing(Generic[EntryT]):
    """What a container (or the account) held; a new object for each answer of the server."""

    entries: tuple[EntryT, ...]
    expires: float  # trio's clock; believed until then


def life(ttl: float, *, took: float) -> float:
    """Seconds for which a listing is believed, from when it was asked for.

    One that takes long is believed longer than the *ttl*: reading it must not fill all the time
    that there is. What others change in so large a container is seen within a minute.
    """
    return ttl if took < LONG else max(ttl, min(LONG_LIFE * took, LONGEST_LIFE))


class Listings(Generic[EntryT]):
    """One kind of listing: how it is asked for, remembered and changed."""

    def __init__(
        self,
        *,
        fetch: Callable[[str, tuple[EntryT, ...]], Awaitable[tuple[EntryT, ...]]],
        recall: Callable[[str], tuple[EntryT, ...] | None],
        state: State,
        ttl: float,
        capacity: int,
    ) -> None:
        self._fetch: Callable[[str, tuple[EntryT, ...]], Awaitable[tuple[EntryT, ...]]] = fetch
        self._recall: Callable[[str], tuple[EntryT, ...] | None] = recall
        self._state = state
        self._ttl = ttl
        self._fresh: cachetools.TLRUCache[str, Listing[EntryT]] = cachetools.TLRUCache(
            maxsize=capacity,
            ttu=lambda _key, listing, _now: listing.expires,
            timer=trio.current_time,
        )
        self._last: dict[str, Listing[EntryT]] = {}
        self._last_number: dict[str, int] = {}
        self._numbers = count(1)
        self._is_late = False  # the server did not answer in time, and has not since
        self._unsaved: set[str] = set()
        self._saved: dict[str, float] = {}  # when
        self._fetching: dict[str, _Fetch[EntryT]] = {}
        self._overlays: dict[str, Overlay[EntryT]] = {}

    def overlay(self, key: str) -> Overlay[EntryT]:
        return self._overlays.setdefault(key, Overlay())

    def fresh(self, key: str) -> Listing[EntryT] | None:
        return self._fresh.get(key)

    def forget(self, key: str) -> None:
        self._fresh.pop(key, None)

    async def get(self, key: str, *, nursery: trio.Nursery, fresh: bool) -> Listing[EntryT]:
        known = None if fresh else self._fresh.get(key)
        if known is not None:
            return known
        fetch = self._fetching.get(key)
        if fetch is None or fresh:
            fetch = self._fetching[key] = _Fetch(next(self._numbers))
            nursery.start_soon(self._run, key, fetch)
        if fresh:
            await fetch.done.wait()
            return fetch.result()
        return await self._wait(key, fetch)

    async def _wait(self, key: str, fetch: "_Fetch[EntryT]") -> Listing[EntryT]:
        has_last = self._last_known(key) is not None
        grace = LATE_GRACE if self._is_late else STALE_GRACE
        with trio.move_on_at(fetch.begun + grace if has_last else math.inf):
            await fetch.done.wait()
        if not has_last or (fetch.done.is_set() and fetch.error is None):
            return fetch.result()
        if fetch.error is not None and not _is_no_answer(fetch.error):
            return fetch.result()
        return self._fresh.get(key) or self._stale(key, fetch)

    def _stale(self, key: str, fetch: "_Fetch[EntryT]") -> Listing[EntryT]:
        log.warning(
            "serving a stale listing of %s: %s",
            key or "the containers",
            fetch.error or "the server takes long",
        )
        self._is_late = True
        entries = self.overlay(key).over(self._last[key].entries)
        stale = Listing(entries, trio.current_time() + min(self._ttl, STALE_LIFE))
        self._last[key] = self._fresh[key] = stale
        return stale

    def _last_known(self, key: str) -> Listing[EntryT] | None:
        if key not in self._last:
            entries = self._recall(key)
            if entries is None:
                return None
            self._last[key] = Listing(entries, 0.0)
        return self._last[key]

    async def _run(self, key: str, fetch: "_Fetch[EntryT]") -> None:
        begun = trio.current_time()
        try:
            last = self._last.get(key)
            listed = await self._fetch(key, () if last is None else last.entries)
            fetch.listing = self._take(key, fetch, listed, begun=begun)
        except FileSystemError as exc:
            fetch.error = exc
        except Exception as exc:
            log.exception("listing %s failed", key or "the containers")
            fetch.error = FileSystemError(f"internal error: {exc}")
        finally:
            if self._fetching.get(key) is fetch:
                del self._fetching[key]
            fetch.done.set()

    def _take(
        self, key: str, fetch: "_Fetch[EntryT]", listed: tuple[EntryT, ...], *, begun: float
    ) -> Listing[EntryT]:
        """What is known now that *listed* came; an answer that was overtaken changes nothing."""
        if fetch.number < self._last_number.get(key, 0):
            return self._last[key]
        self._is_late = False
        self._last_number[key] = fetch.number
        overlay = self.overlay(key)
        listed = self._known(key, listed)
        deleted = overlay.settle(listed, begun=begun)
        if deleted:
            with not_remembered():
                self._state.forget_tombstones(key, deleted)
        took = trio.current_time() - begun
        listing = Listing(overlay.over(listed), begun + life(self._ttl, took=took))
        self._remember(key, listing)
        return listing

    def _remember(self, key: str, listing: Listing[EntryT]) -> None:
        before = self._last.get(key)
        self._last[key] = self._fresh[key] = listing
        if before is None or before.entries != listing.entries:
            self._unsaved.add(key)
        self._save_some(key)

    def _known(self, key: str, listed: tuple[EntryT, ...]) -> tuple[EntryT, ...]:
        """*listed*, with the objects of the last listing for what has not changed.

        So it is in memory once, and told from what has changed at a glance.
        """
        last = self._last.get(key)
        if last is None:
            return listed
        known = {entry.id: entry for entry in last.entries}
        return tuple([old if (old := known.get(entry.id)) == entry else entry for entry in listed])

    def _save_some(self, key: str) -> None:
        """Save a listing that changed, if that is short work, and not done again and again."""
        now = trio.current_time()
        if key not in self._unsaved or now - self._saved.get(key, -math.inf) < SAVE_EVERY:
            return
        entries = self._last[key].entries
        if len(entries) <= SAVE_AT_ONCE:
            self._saved[key] = now
            with not_remembered():
                self._state.save_listing(key, entries)
                self._unsaved.discard(key)

    def save(self) -> None:
        """Save what was not saved at each change, and what was changed here since."""
        for key in self._unsaved | self._overlays.keys():
            last = self._last_known(key)
            entries = self.overlay(key).over(() if last is None else last.entries)
            with not_remembered():
                self._state.save_listing(key, entries)
        self._unsaved.clear()


def _is_no_answer(error: FileSystemError) -> bool:
    """Whether the server failed, so that what it said before still holds."""
    return error.retriable or isinstance(error, ServerFault)


class _Fetch(Generic[EntryT]):
    """A listing on its way, waited for by any number of tasks; numbered as they were begun."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.begun = trio.current_time()
        self.done = trio.Event()
        self.listing: Listing[EntryT] | None = None
        self.error: FileSystemError | None = None

    def result(self) -> Listing[EntryT]:
        if self.error is not None:
            raise type(self.error)(str(self.error), retriable=self.error.retriable) from self.error
        assert self.listing is not None  # noqa: S101 - done without error means there is a listing
        return self.listing
