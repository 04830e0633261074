"""The disk that content takes: what is there, what is in use, and what goes when room is needed.

First goes what is parked, then the least recently used; what is open stays.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from containerfs.cache.cachefile import Content, Parked
from containerfs.cache.index import ContentIndex
from containerfs.cache.packs import Packs, cost
from containerfs.errors import NoSpace, from_os_error

log = logging.getLogger(__name__)

MOST_PARKED = 16  # contents that were begun and left; each holds a descriptor
FREED_AT_ONCE = 16 << 20  # bytes, where the disk is full


class Room:
    """The files of the cache directory.

    Attributes:
        open: Content that is in use, by name.
    """

    def __init__(self, *, directory: Path, index: ContentIndex, packs: Packs, limit: int) -> None:
        """Args:
        limit: Bytes of disk to use.
        """
        self.open: dict[str, Content] = {}
        self._directory = directory
        self._index = index
        self._packs = packs
        self._limit = limit
        self._parked: OrderedDict[str, Parked] = OrderedDict()
        self._held = 0  # bytes of disk granted to what is being filled

    @property
    def _used(self) -> int:
        return self._index.cost + self._held

    def could_hold(self, size: int) -> bool:
        """Whether *size* more bytes fit, if all goes that can."""
        if self._used + cost(size) <= self._limit:
            return True
        taken = sum(cost(each.size or 0) for each in self.open.values() if each.complete)
        parked = sum(each.content.held for each in self._parked.values())
        return taken + self._held - parked + cost(size) <= self._limit

    def grant(self, content: Content, size: int, *, always: bool) -> bool:
        """Grant *content* the disk for its first *size* bytes; see `ContentStore.make_room`."""
        more = cost(size) - content.held
        if more <= 0:
            return True
        if not self.evict(more):
            if not always:
                return False
            self.free(self._used + more - self._limit)
        content.held += more
        self._held += more
        return True

    def give_back(self, content: Content) -> None:
        """*content* is complete, or gone: nothing is held for it any more."""
        self._held -= content.held
        content.held = 0

    def unpin(self, content: Content) -> None:
        """Give a pin back; the last one closes the file."""
        content.pins -= 1
        if content.pins:
            return
        content.close()
        self.give_back(content)
        if self.open.get(content.name) is content:
            del self.open[content.name]
            if not content.complete and content.address is None:
                self._unlink(content.file)
        self.evict()

    def park(self, parked: Parked) -> None:
        """Take over the pin of what was left; too many parked ones are one too many."""
        self._parked[parked.content.name] = parked
        if len(self._parked) > MOST_PARKED:
            self.unpark(next(iter(self._parked)))

    def resume(self, name: str) -> Parked | None:
        """What is parked under *name*; its pin is the caller's."""
        return self._parked.pop(name, None)

    def unpark(self, name: str) -> None:
        """Give up what is parked under *name*, if anything is."""
        parked = self.resume(name)
        if parked is not None:
            self.unpin(parked.content)

    def evict(self, more: int = 0) -> bool:
        """Evict until the limit holds with *more* bytes; nothing, where that is out of reach.

        Returns:
            Whether it holds.
        """
        excess = self._used + more - self._limit
        if excess > 0 and (not more or self._has_victims(excess)):
            self.free(excess)
        return self._used + more <= self._limit

    def _has_victims(self, size: int) -> bool:
        found = sum(each.content.held for each in self._parked.values())
        for victim in self._victims():
            if found >= size:
                break
            found += cost(self._index.size(victim) or 0)
        return found >= size

    def _victims(self) -> Iterator[str]:
        return (name for name in self._index if name not in self.open)

    def free(self, size: int) -> bool:
        """Evict *size* bytes, or all that can be; whether there was anything."""
        before = self._used
        while self._parked and before - self._used < size:
            self.unpark(next(iter(self._parked)))
        victims, found = [], before - self._used
        for victim in self._victims():
            if found >= size:
                break
            victims.append(victim)
            found += cost(self._index.size(victim) or 0)
        for victim in victims:
            self.remove(victim)
        return self._used < before

    def free_or_fail(self, error: OSError | NoSpace, what: str) -> None:
        """On a full disk, give some content up; raise *error* as ours where that does not help."""
        failure = from_os_error(error, what) if isinstance(error, OSError) else error
        if not isinstance(failure, NoSpace) or not self.free(FREED_AT_ONCE):
            raise failure from error

    def remove(self, name: str) -> None:
        """Remove the complete content called *name*; who has it open can read on."""
        address, size = self._index.address(name), self._index.size(name)
        self._index.drop(name)
        if address is not None and size is not None:
            self._packs.let_go(address, size)
            return
        self._unlink(name)

    def _unlink(self, file: str) -> None:
        try:
            (self._directory / file).unlink(missing_ok=True)
        except OSError as exc:
            log.warning("can't remove cache file %s: %s", file, exc)
