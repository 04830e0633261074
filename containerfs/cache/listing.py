"""One listing: for how long it is believed, and what is known while it is on its way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import trio

from containerfs.api.listing import PAGE
from containerfs.cache.overlay import EntryT
from containerfs.errors import FileSystemError

LONG = 1.0  # seconds that a listing takes before it counts as a long one
LONG_LIFE = 10.0  # times what it took: how long a long listing is believed
LONGEST_LIFE = 60.0  # seconds; what the pages and the time of a listing can add up to


@dataclass(slots=True, eq=False, repr=False)
class Listing(Generic[EntryT]):
    """What a container (or the account) held; a new object whenever that is something else.

    Attributes:
        expires: Until when, on trio's clock, it is believed to be all.
        known_until: Until when what it has is believed: until then only what is new is asked for.
    """

    entries: tuple[EntryT, ...]
    expires: float
    known_until: float


def life(ttl: float, *, took: float, entries: int) -> float:
    """Seconds for which what a listing has is believed, from when it was asked for.

    One of several pages, or one that takes long, is believed longer than the *ttl*: reading it
    must fill neither all the requests nor all the time that there are. What others change and
    remove in so large a container is seen within a minute.
    """
    grown = max(ttl * -(-entries // PAGE), LONG_LIFE * took if took >= LONG else 0.0)
    return max(ttl, min(grown, LONGEST_LIFE))


class Arrival(Generic[EntryT]):
    """A listing on its way, waited for by any number of tasks.

    Attributes:
        number: Arrivals are numbered as they were begun.
        begun: When it was asked for, on trio's clock.
        expires: Until when what is certain of it is believed.
        done: It has come, or failed.
        entries: What is certain of it already, the newest first. See `both_ends`: after a second
            beginning some are there twice, and the end may tell otherwise.
    """

    def __init__(self, number: int, *, ttl: float) -> None:
        self.number = number
        self.begun = trio.current_time()
        self.expires = self.begun + ttl
        self.done = trio.Event()
        self.listing: Listing[EntryT] | None = None
        self.error: FileSystemError | None = None
        self.entries: list[EntryT] = []
        self._told = trio.Event()

    def tell(self, entries: Sequence[EntryT]) -> None:
        """More is certain."""
        self.entries += entries
        self._told.set()
        self._told = trio.Event()

    def end(self) -> None:
        """It has come, or failed."""
        self.done.set()
        self._told.set()

    async def more(self, known: int) -> None:
        """Return when it has come, has failed, or more than *known* entries are certain."""
        while not self.done.is_set() and len(self.entries) <= known:
            await self._told.wait()

    async def wait(self) -> Listing[EntryT]:
        """The listing, when it has come; raises as `result`."""
        await self.done.wait()
        return self.result()

    def result(self) -> Listing[EntryT]:
        """The listing, once it is done.

        Raises:
            FileSystemError: It failed.
        """
        if self.error is not None:
            raise type(self.error)(str(self.error), retriable=self.error.retriable) from self.error
        assert self.listing is not None  # noqa: S101 - done without error means there is a listing
        return self.listing
