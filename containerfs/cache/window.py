"""A stretch of a file that does not fit the cache, in a ring of bytes on disk.

It moves on as it is read. What it fetches ahead grows with what was read in order.
"""

from collections.abc import Iterator

import trio

from containerfs.cache.cachefile import Content
from containerfs.cache.download import Download
from containerfs.errors import FileSystemError

PIECE = 1 << 20  # bytes that are waited for at a time


class Window:
    """A stretch of a file.

    Attributes:
        size: Bytes of the ring. A stream runs ahead of its reader by half of it at most.
        start, available: The first byte that is here, and the one after the last.
        goal: The stream stops before this byte until more is wanted.
        waiting: How many wait for bytes of it.
        error: Why nothing more will come.
        is_filling: A task fetches for it.
    """

    def __init__(self, *, download: Download, ring: Content, size: int, offset: int) -> None:
        self.download = download
        self.ring = ring
        self.size = size
        self.origin = self.start = self.available = self.goal = offset
        self.waiting = 0
        self.error: FileSystemError | None = None
        self.is_filling = False
        self.scope = trio.CancelScope()
        self._changed = trio.Event()

    @property
    def ahead(self) -> int:
        """How far to run ahead: twice as far at each step, from the file's start all the way."""
        most = self.size // 2
        return most if self.origin == 0 else min(self.available - self.origin, most)

    @property
    def is_read_in_order(self) -> bool:
        """It was, for so long that it will be to the end."""
        return self.ahead == self.size // 2

    def serves(self, offset: int, end: int) -> bool:
        """Whether these bytes are here, or about to come."""
        reach = max(self.goal, self.available + max(self.ahead, PIECE))
        return self.start <= offset <= reach and end <= self.available + self.size // 2

    def want(self, end: int) -> None:
        """Somebody reads the bytes before *end*."""
        total = self.download.total or 0
        self.goal = max(self.goal, min(end + self.ahead, total))
        self.tell()

    def read(self, offset: int, size: int) -> bytes:
        """*size* bytes that are here."""
        return b"".join(
            self.ring.read(place, count) for place, count in self.stretches(offset, size)
        )

    def stretches(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Where in the ring these bytes of the file are: places and lengths, in order."""
        while size:
            place = offset % self.size
            count = min(size, self.size - place)
            yield place, count
            offset, size = offset + count, size - count

    async def change(self) -> None:
        """Return when something has changed."""
        await self._changed.wait()

    def tell(self) -> None:
        """Wake those who wait: something changed."""
        self._changed.set()
        self._changed = trio.Event()
