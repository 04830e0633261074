"""One way through a list, page by page.

A page is asked for by the `last_id` of the one before it. Servers send empty pages that claim more,
repeat a cursor, or ignore it and send page 1 for ever: a walk is over when the server says so, or
when a page brings nothing new or its cursor leads nowhere.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice, takewhile
from typing import Generic, Protocol, TypeVar

from containerfs.api.types import Page
from containerfs.errors import Invalid, NotFound, ServerFault

# A list that goes on past one of these is taken for an endless one, or for an attack on our memory.
MOST_PAGES = 5000
MOST_ENTRIES = 500_000
MOST_WEIGHT = 512 * 1024 * 1024  # characters; see the weight of an entry
MOST_BYTES = 512 * 1024 * 1024  # of JSON
LONGEST_OVERLAP = 1000  # entries; two walks that share more run side by side and never meet


class Entry(Protocol):
    """What lists are made of."""

    @property
    def id(self) -> str:
        """Unique in its list."""

    @property
    def created(self) -> int:
        """Unix seconds; 0 where unknown."""

    @property
    def weight(self) -> int:
        """Characters it takes to know it, 1 or more."""


T = TypeVar("T", bound=Entry)
Fetch = Callable[[str | None], Awaitable[Page[T]]]


class CursorGoneError(Exception):
    """The entry that a page was to follow has been deleted meanwhile."""


class Walk(Generic[T]):
    """What has been found so far, and where it goes on.

    Args:
        fetch: Asks for the page that follows an id, or for the first.
        start: The id to begin after; None for the start of the list.
        pages: Counts the pages of all walks through the list, from 1.
    """

    def __init__(self, fetch: Fetch[T], *, start: str | None, pages: Iterator[int]) -> None:
        self.found: dict[str, T] = {}  # by id, in the list's order
        self.first: T | None = None
        self.last: T | None = None
        self.added: list[T] = []  # those of the latest page
        self.is_over = False
        self.is_complete = False  # it is over because the server said so
        self.is_rising = True  # in time
        self.is_falling = True
        self._fetch = fetch
        self._start = start
        self._after = start
        self._cursors = {start}
        self._pages = pages
        self._weight = 0
        self._size = 0

    async def step(self) -> None:
        """Ask for one more page.

        Raises:
            CursorGoneError: The server no longer knows where the walk was.
            ServerFault: The list does not end.
            FileSystemError: The request failed.
        """
        if next(self._pages) > MOST_PAGES:
            raise ServerFault(f"a list does not end after {MOST_PAGES} pages")
        try:
            page = await self._fetch(self._after)
        except (Invalid, NotFound) as exc:
            if self._after == self._start:
                raise
            raise CursorGoneError(str(exc)) from exc
        self._add(page.data)
        self._size += page.size
        self._check()
        brings_nothing = bool(page.data) and not self.added
        leads_nowhere = page.last_id is None or page.last_id in self._cursors
        self.is_complete = not page.has_more
        self.is_over = self.is_complete or brings_nothing or leads_nowhere
        self._after = page.last_id
        self._cursors.add(page.last_id)

    def _check(self) -> None:
        if len(self.found) > MOST_ENTRIES:
            raise ServerFault(f"a list has more than {MOST_ENTRIES} entries", retriable=False)
        if self._weight > MOST_WEIGHT or self._size > MOST_BYTES:
            raise ServerFault("a list is too large to be kept", retriable=False)

    def _add(self, entries: Sequence[T]) -> None:
        found, last, added = self.found, self.last, []
        for entry in entries:
            id, created = entry.id, entry.created
            if id in found:
                continue
            self._weight += entry.weight
            if last is not None and last.created < created:
                self.is_falling = False
            elif last is not None and last.created > created:
                self.is_rising = False
            found[id] = last = entry
            added.append(entry)
        if self.first is None and added:
            self.first = added[0]
        self.last, self.added = last, added


def have_met(newest: Walk[T], oldest: Walk[T]) -> bool:
    """Whether a walk from the newest entry and one from the oldest have seen everything together.

    They have when one has come strictly past the other in time: then each moment was passed by
    one of them completely. That the second one began before where the first one is shows that it
    did come from the other end: a server that knows no order lists the newest again, which may all
    be of one second. Within one second the order of entries is the server's secret; there, the last
    that both have seen must be the same in opposite order, and more than one.
    """
    if newest.last is None or oldest.first is None or oldest.last is None:
        return False
    times = oldest.first.created, newest.last.created, oldest.last.created
    if newest.is_falling and oldest.is_rising and 0 <= times[0] < times[1] < times[2]:
        return True
    last = islice(reversed(newest.found), LONGEST_OVERLAP)
    shared = [*takewhile(oldest.found.__contains__, last)]
    mirrored = [*islice(reversed(oldest.found), len(shared))]
    return 1 < len(shared) < LONGEST_OVERLAP and shared == mirrored[::-1]
