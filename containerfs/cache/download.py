"""The state of one version's download, as those see it who wait for it."""

import math
from collections import deque
from collections.abc import Callable

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Content
from containerfs.cache.parts import Parts
from containerfs.errors import FileSystemError, NoSpace

SMALL_REST = 4 << 20  # bytes; a download that lacks no more is finished for nobody, too
REMEMBERED = 2  # pieces, of 1 MiB at most: what was waited for is in the last one, or begins before


class Download:
    """A version on its way.

    Attributes:
        name: The version's.
        content: Where it goes to; `available` bytes from its start can be read. None where the
            version is not kept, because it does not fit: then parts are fetched as they are read.
        parts: Where it comes by several streams: what there is beyond `available`.
        total: Bytes of the whole; None until the server tells.
        etag: The server's name for the version that there is some of, if it gave one.
        is_read: Somebody may have got bytes of the version that there is some of.
        error: Why nothing more will come.
        readers: How many have joined it and not left it.
        is_needed_whole: Somebody can't do with parts.
        is_running: It is being fetched.
        scope: Ends the fetching.
    """

    def __init__(
        self,
        *,
        file: RemoteFile,
        name: str,
        content: Content | None,
        available: int = 0,
        parts: Parts | None = None,
    ) -> None:
        self.file = file
        self.name = name
        self.content = content
        self.available = available
        self.parts = parts
        self.etag: str | None = None
        self.total = file.size
        self.is_read = False
        self.error: FileSystemError | None = None
        self.readers = 0
        self.is_needed_whole = False
        self.is_running = False
        self.scope = trio.CancelScope()
        self._progress = trio.Event()
        self._pieces: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)

    @property
    def is_complete(self) -> bool:
        """The whole content is there."""
        return self.content is not None and self.content.complete

    @property
    def is_for_windows(self) -> bool:
        """It is not kept, and all is known that reading parts of it needs."""
        return self.content is None and self.total is not None

    @property
    def is_over(self) -> bool:
        """Nothing more will arrive: it is complete, or it failed."""
        return self.is_complete or self.error is not None

    @property
    def rest(self) -> float:
        """Bytes that have not come; infinite where nobody knows."""
        if self.total is None:
            return math.inf
        return self.total - (self.available if self.parts is None else self.parts.arrived)

    @property
    def is_left(self) -> bool:
        """Nobody reads it, and too much is missing to be fetched for nobody."""
        return not self.readers and self.rest > SMALL_REST

    def joined(self) -> None:
        """One more reads it."""
        self.readers += 1
        if self.readers == 1:
            self.tell()
            if self.parts is not None:
                self.parts.tell()

    async def be_read(self) -> None:
        """Return when somebody reads it, or little is missing."""
        while self.is_left:
            await self._progress.wait()

    async def wait_for(self, end: int, *, progress: Callable[[int], None] | None = None) -> None:
        """Return once the bytes before *end*, or all there are, can be read from `content`.

        Args:
            progress: Told the bytes that can be read so far, each time there are more.

        Raises:
            NoSpace: The version is not kept.
            FileSystemError: Why they will not come.
        """
        await self.arrive(0, end, progress=progress)
        if self.content is None:
            raise NoSpace(f"file {self.file.id} does not fit the cache")

    async def arrive(
        self, start: int, end: int, *, progress: Callable[[int], None] | None = None
    ) -> None:
        """`wait_for`, of the bytes from *start* on, or until it is known that it is not kept."""
        while self.content is not None and self._lacks(start, end):
            await self._more()
            if progress is not None:
                progress(self.available if self.parts is None else self.parts.arrived)

    def _lacks(self, start: int, end: int) -> bool:
        """Whether some of these bytes are still to come; what is lacking is asked for soon."""
        if self.available >= end or self.is_complete:
            return False
        if self.parts is None:
            return True
        place = self.parts.missing(start, min(end, self.parts.size))
        if place is not None:
            self.parts.want(place)
        return place is not None

    def read(self, offset: int, end: int) -> bytes:
        """What there is from *offset* to before *end*, which have arrived as far as they exist."""
        there = self.available if self.parts is None else self.parts.size
        size = min(end, there) - offset
        if self.content is None or size <= 0:
            return b""
        self.is_read = True
        for place, piece in reversed(self._pieces):  # what came last is what holds
            start = offset - place
            if start >= 0 and start + size <= len(piece):
                return piece[start : start + size]  # all of it is no copy
        return self.content.read(offset, size)

    def remember(self, piece: bytes, place: int) -> None:
        """*piece* was written at *place*: who waits for it need not read it from the disk."""
        self._pieces.append((place, piece))

    @property
    def whole(self) -> bytes | None:
        """The complete content, where it has come as one piece."""
        if not self.is_complete or len(self._pieces) != 1:
            return None
        ((place, piece),) = self._pieces
        return piece if place == 0 and len(piece) == self.total else None

    def release(self) -> None:
        """Nothing more comes: the disk has it, and memory need not."""
        self._pieces.clear()

    def forget(self) -> None:
        """What has come is of another version: it comes anew, as one stream."""
        self._pieces.clear()
        self.available = 0
        self.parts = None
        self.etag = None

    async def wait_for_size(self) -> int:
        """Return the file's size as soon as it is known."""
        while self.total is None:
            await self._more()
        return self.total

    async def _more(self) -> None:
        if self.error is not None:
            raise type(self.error)(str(self.error), retriable=self.error.retriable)
        await self._progress.wait()

    def tell(self) -> None:
        """Wake those who wait: something changed."""
        self._progress.set()
        self._progress = trio.Event()
