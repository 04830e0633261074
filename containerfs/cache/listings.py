"""Listings of one kind, each believed for a time to live, and fetched once for all who ask.

Nothing is fetched that nobody asked for. A server that does not answer is replaced by its last
listing.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Generic

import cachetools
import trio

from containerfs.api.listing import PAGE
from containerfs.cache.listing import Arrival, Listing, life
from containerfs.cache.overlay import EntryT, Overlay
from containerfs.cache.state import State
from containerfs.errors import FileSystemError, LocalFault, NoSpace, ServerFault

log = logging.getLogger(__name__)

STALE_GRACE = 2.0  # age of a refresh after which who waits for it is served a stale listing
LATE_GRACE = 0.2  # the same, as long as the server has answered nobody since
STALE_LIFE = 5.0  # how long a stale listing is served before the server is asked again
SAVE_AT_ONCE = 2_000  # entries; longer listings are saved when the mount stops
SAVE_EVERY = 5.0  # seconds from one time that a listing is saved to the next


@contextmanager
def not_remembered(state: State) -> Iterator[None]:
    """Go on where our own disk fails inside: what is known now holds, the next mount asks anew.

    Raises:
        NoSpace, LocalFault: The transaction under way was lost with it, and so must end.
    """
    was_in_transaction = state.connection.in_transaction
    try:
        yield
    except (NoSpace, LocalFault) as exc:
        if was_in_transaction and not state.connection.in_transaction:
            raise
        log.warning("a listing is not kept for the next mount: %s", exc)


# Asks for a listing: its key, what is known of it from an earlier one, and who is told of entries
# while others are still to come. What has not changed had best be the same object.
Tell = Callable[[Sequence[EntryT]], None]
Fetch = Callable[[str, tuple[EntryT, ...], Tell[EntryT]], Awaitable[tuple[EntryT, ...]]]

# Asks for what is new: the key of a listing, and what is known of it. Returns the listing with it;
# None where only the whole tells.
FetchNew = Callable[[str, tuple[EntryT, ...]], Awaitable[tuple[EntryT, ...] | None]]


class Listings(Generic[EntryT]):
    """One kind of listing: how it is asked for, remembered and changed."""

    def __init__(
        self,
        *,
        fetch: Fetch[EntryT],
        recall: Callable[[str], tuple[EntryT, ...] | None],
        state: State,
        ttl: float,
        capacity: int,
        fetch_new: FetchNew[EntryT] | None = None,
    ) -> None:
        self._fetch: Fetch[EntryT] = fetch
        self._fetch_new: FetchNew[EntryT] | None = fetch_new
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
        self._fetching: dict[str, Arrival[EntryT]] = {}
        self._overlays: defaultdict[str, Overlay[EntryT]] = defaultdict(Overlay)

    def overlay(self, key: str) -> Overlay[EntryT]:
        return self._overlays[key]

    def fresh(self, key: str) -> Listing[EntryT] | None:
        return self._fresh.get(key)

    def newest(self, key: str) -> tuple[EntryT, ...]:
        """What came last, however long ago that is."""
        last = self._last_known(key)
        return () if last is None else last.entries

    def forget(self, key: str) -> None:
        self._fresh.pop(key, None)

    async def get(self, key: str, *, nursery: trio.Nursery, fresh: bool) -> Listing[EntryT]:
        known = None if fresh else self._fresh.get(key)
        if known is not None:
            return known
        arrival = self._arrival(key, nursery=nursery, fresh=fresh)
        if fresh:
            await arrival.done.wait()
            return arrival.result()
        return await self._wait(key, arrival)

    def first(self, key: str, *, nursery: trio.Nursery) -> Arrival[EntryT] | None:
        """The arrival of the first listing there is, begun if need be; None where one is known."""
        if self._fresh.get(key) is not None or self._last_known(key) is not None:
            return None
        return self._arrival(key, nursery=nursery, fresh=False)

    def _arrival(self, key: str, *, nursery: trio.Nursery, fresh: bool) -> Arrival[EntryT]:
        arrival = self._fetching.get(key)
        if arrival is None or fresh:
            arrival = self._fetching[key] = Arrival(next(self._numbers), ttl=self._ttl)
            nursery.start_soon(self._run, key, arrival, fresh)
        return arrival

    async def _wait(self, key: str, arrival: Arrival[EntryT]) -> Listing[EntryT]:
        has_last = self._last_known(key) is not None
        grace = LATE_GRACE if self._is_late else STALE_GRACE
        with trio.move_on_at(arrival.begun + grace if has_last else math.inf):
            await arrival.done.wait()
        if not has_last or (arrival.done.is_set() and arrival.error is None):
            return arrival.result()
        if arrival.error is not None and not _is_no_answer(arrival.error):
            return arrival.result()
        return self._fresh.get(key) or self._stale(key, arrival)

    def _stale(self, key: str, arrival: Arrival[EntryT]) -> Listing[EntryT]:
        log.warning(
            "serving a stale listing of %s: %s",
            key or "the containers",
            arrival.error or "the server takes long",
        )
        self._is_late = True
        last = self._last[key]
        expires = trio.current_time() + min(self._ttl, STALE_LIFE)
        entries = self.overlay(key).over(last.entries)
        stale = Listing(entries, expires, max(last.known_until, expires))
        self._last[key] = self._fresh[key] = stale
        return stale

    def _last_known(self, key: str) -> Listing[EntryT] | None:
        if key not in self._last:
            entries = self._recall(key)
            if entries is None:
                return None
            self._last[key] = Listing(entries, 0.0, 0.0)
        return self._last[key]

    async def _run(self, key: str, arrival: Arrival[EntryT], fresh: bool) -> None:
        begun = trio.current_time()
        try:
            last = self._last.get(key)
            known = () if last is None else self.overlay(key).over(last.entries)
            if last is not None and self._fetch_new and not fresh and begun < last.known_until:
                listed = await self._fetch_new(key, known)
                if listed is not None:
                    arrival.listing = self._take_new(key, arrival, last, listed, begun=begun)
                    return
            listed = await self._fetch(key, known, arrival.tell)
            arrival.listing = self._take(key, arrival, listed, begun=begun)
        except FileSystemError as exc:
            arrival.error = exc
        except Exception as exc:
            log.exception("listing %s failed", key or "the containers")
            arrival.error = FileSystemError(f"internal error: {exc}")
        finally:
            if self._fetching.get(key) is arrival:
                del self._fetching[key]
            arrival.end()

    def _take(
        self, key: str, arrival: Arrival[EntryT], listed: tuple[EntryT, ...], *, begun: float
    ) -> Listing[EntryT]:
        """What is known now that *listed* came; an answer that was overtaken changes nothing."""
        if arrival.number < self._last_number.get(key, 0):
            return self._last[key]
        self._is_late = False
        self._last_number[key] = arrival.number
        overlay = self.overlay(key)
        if self._fetching.get(key) is arrival:  # else a later one may tell of a time before this
            self._settle(key, listed, begun=begun)
        took = trio.current_time() - begun
        known_until = begun + life(self._ttl, took=took, entries=len(listed))
        has_pages = self._fetch_new is not None and len(listed) > PAGE
        expires = begun + self._ttl if has_pages else known_until
        listing = Listing(overlay.over(listed), expires, known_until)
        self._remember(key, listing)
        return listing

    def _take_new(
        self,
        key: str,
        arrival: Arrival[EntryT],
        last: Listing[EntryT],
        listed: tuple[EntryT, ...],
        *,
        begun: float,
    ) -> Listing[EntryT]:
        """What is known now that *last* became *listed*.

        Nothing is settled by that: whether the server's lists show what was made here, and not what
        was deleted here, only the whole tells.
        """
        if arrival.number < self._last_number.get(key, 0):
            return self._last[key]
        self._is_late = False
        self._last_number[key] = arrival.number
        seconds = life(self._ttl, took=trio.current_time() - begun, entries=1)
        expires = min(begun + seconds, last.known_until)
        entries = self.overlay(key).over(listed)
        if entries == last.entries:
            last.expires = expires
            self._remember(key, last)
            return last
        listing = Listing(entries, expires, last.known_until)
        self._remember(key, listing)
        return listing

    def _settle(self, key: str, listed: tuple[EntryT, ...], *, begun: float) -> None:
        """Forget the changes made here that the server's own list shows from now on."""
        created, deleted = self.overlay(key).settle(listed, begun=begun)
        if created or deleted:
            with not_remembered(self._state), self._state.transaction():
                self._state.forget_creations(key, created)
                self._state.forget_tombstones(key, deleted)

    def _remember(self, key: str, listing: Listing[EntryT]) -> None:
        before = self._last.get(key)
        self._last[key] = self._fresh[key] = listing
        if before is None or before.entries != listing.entries:
            self._unsaved.add(key)
        self._save_some(key)

    def _save_some(self, key: str) -> None:
        """Save a listing that changed, if that is short work, and not done again and again."""
        now = trio.current_time()
        if key not in self._unsaved or now - self._saved.get(key, -math.inf) < SAVE_EVERY:
            return
        entries = self._last[key].entries
        if len(entries) <= SAVE_AT_ONCE:
            self._saved[key] = now
            with not_remembered(self._state):
                self._state.save_listing(key, entries)
                self._unsaved.discard(key)

    def save(self) -> None:
        """Save what was not saved at each change, and what was changed here since."""
        for key in self._unsaved | self._overlays.keys():
            last = self._last_known(key)
            entries = self.overlay(key).over(() if last is None else last.entries)
            with not_remembered(self._state):
                self._state.save_listing(key, entries)
        self._unsaved.clear()


def _is_no_answer(error: FileSystemError) -> bool:
    """Whether the server failed, so that what it said before still holds."""
    return error.retriable or isinstance(error, ServerFault)
