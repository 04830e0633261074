"""Which bytes of a file have arrived, and which were asked for, where several streams bring them.

The file is cut into stretches as they are asked for; each of them arrives in order. What is asked
for next is decided here: where somebody waits far from all that is on its way, else what follows.
"""

from bisect import bisect_right
from collections.abc import Iterator

import trio

PART = 8 << 20  # bytes that a stream asks for at least, where nobody else's bytes are in the way
ALIGNED = 256 << 10  # bytes; a stretch that begins where somebody reads begins at such a multiple


class Stretch:
    """Bytes of the file that one stream brings.

    Attributes:
        start, end: The first one, and the one after the last.
        place: The first one that has not arrived.
        is_asked: A stream brings it, or has brought it.
    """

    __slots__ = ("end", "is_asked", "place", "start")

    def __init__(self, start: int, end: int, *, place: int | None = None) -> None:
        self.start = start
        self.end = end
        self.place = start if place is None else place
        self.is_asked = self.place > start

    @property
    def is_here(self) -> bool:
        """All of it has arrived."""
        return self.place == self.end


class Parts:
    """The stretches of one file, in order and without gaps.

    Attributes:
        size: Bytes of the file, 1 or more.
        arrived: Bytes that are here.
        asked: Bytes that are here or on their way.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.arrived = 0
        self.asked = 0
        self._stretches = [Stretch(0, size)]
        self._first = 0  # all stretches before this one are here
        self._cursor = 0  # what follows this is asked for before what lies before it
        self._wanted: dict[int, None] = {}
        self._changed = trio.Event()

    @property
    def front(self) -> int:
        """The bytes from the file's start that are here."""
        stretches = self._stretches
        while self._first < len(stretches) and stretches[self._first].is_here:
            self._first += 1
        return self.size if self._first == len(stretches) else stretches[self._first].place

    @property
    def is_here(self) -> bool:
        """All of it has arrived."""
        return self.arrived == self.size

    def missing(self, start: int, end: int) -> int | None:
        """The first byte from *start* to before *end* that is not here; None where all are."""
        for stretch in self._from(start):
            if start >= end:
                break
            if not stretch.is_here and stretch.place < end:
                return max(start, stretch.place)
            start = stretch.end
        return None

    def want(self, place: int) -> None:
        """Somebody waits for the byte at *place*."""
        if place not in self._wanted and not next(self._from(place)).is_asked:
            self._wanted[place] = None
            self.tell()

    def arrive(self, stretch: Stretch, size: int) -> None:
        """*size* bytes more of *stretch* are here."""
        stretch.place += size
        self.arrived += size

    # What to ask for.

    def take_next(self, size: int) -> Stretch | None:
        """Up to *size* bytes that follow what was asked for; None where all was."""
        index = self._next()
        return None if index is None else self._take(index, self._stretches[index].start, size)

    def take_wanted(self, size: int) -> Stretch | None:
        """Up to *size* bytes where somebody waits, unless they are what `take_next` gives."""
        for place in list(self._wanted):
            index = self._index(place)
            stretch = self._stretches[index]
            if stretch.is_asked:
                del self._wanted[place]
            elif index != self._next() or place - stretch.start >= PART:
                del self._wanted[place]
                taken = self._take(index, max(stretch.start, place - place % ALIGNED), size)
                self._cursor = taken.end
                return taken
        return None

    def give_back(self) -> None:
        """No stream runs any more: what has not arrived is to be asked for again."""
        kept = []
        for stretch in self._stretches:
            if stretch.start < stretch.place < stretch.end:
                kept.append(Stretch(stretch.start, stretch.place, place=stretch.place))
                kept.append(Stretch(stretch.place, stretch.end))
            else:
                stretch.is_asked = stretch.is_here
                kept.append(stretch)
        self._stretches = kept
        self.asked = self.arrived
        self._wanted.clear()

    def _next(self) -> int | None:
        found = None
        for index in range(self._first, len(self._stretches)):
            stretch = self._stretches[index]
            if not stretch.is_asked:
                if stretch.start >= self._cursor:
                    return index
                found = index if found is None else found
        return found

    def _take(self, index: int, start: int, size: int) -> Stretch:
        stretch = self._stretches[index]
        if start > stretch.start:
            self._cut(index, start)
            index += 1
            stretch = self._stretches[index]
        if stretch.end - start > size:
            self._cut(index, start + size)
        stretch.is_asked = True
        self.asked += stretch.end - stretch.start
        return stretch

    def _cut(self, index: int, place: int) -> None:
        stretch = self._stretches[index]
        self._stretches.insert(index + 1, Stretch(place, stretch.end))
        stretch.end = place

    def _index(self, place: int) -> int:
        return bisect_right(self._stretches, place, key=lambda stretch: stretch.start) - 1

    def _from(self, place: int) -> Iterator[Stretch]:
        for index in range(self._index(place), len(self._stretches)):
            yield self._stretches[index]

    # Waiting.

    async def change(self) -> None:
        """Return when something has changed."""
        await self._changed.wait()

    def tell(self) -> None:
        """Wake who waits: something changed."""
        self._changed.set()
        self._changed = trio.Event()
