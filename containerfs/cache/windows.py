"""Parts of files that do not fit the cache: fetched as they are read, and not kept.

A window is a stretch of a file, in a ring of bytes on disk, that moves on as it is read; where the
disk is full, in a smaller one in memory. Who reads in order has one request for all of it; who
jumps about has one for each jump, which asks for little. There are few windows for all files
together: the least recently used one moves to where somebody wants to read, never one that somebody
waits for.
"""

import logging

import trio

from containerfs.api.body import Body, Paced
from containerfs.api.client import Client
from containerfs.api.streams import persistently
from containerfs.cache.cachefile import Content
from containerfs.cache.content import ContentStore
from containerfs.cache.download import Download
from containerfs.cache.plausibility import total_size
from containerfs.cache.versions import Versions, another_version
from containerfs.cache.window import PIECE, Window
from containerfs.errors import FileSystemError, NoSpace, ServerFault, WrongLength

log = logging.getLogger(__name__)

MOST_WINDOWS = 32
RING = 8 << 20  # bytes of disk that a window takes
MEMORY_RING = 2 << 20  # the same, of memory, where the disk is full
LEAST_REQUEST = 256 << 10  # bytes
IDLE = 5.0  # seconds that a stream waits for its reader before it is closed


class Windows:
    """All windows of all files."""

    def __init__(
        self,
        *,
        client: Client,
        store: ContentStore,
        versions: Versions,
        nursery: trio.Nursery,
        op_timeout: float,
    ) -> None:
        """Args:
        op_timeout: Seconds in which a stream must get on.
        """
        self._client = client
        self._store = store
        self._versions = versions
        self._nursery = nursery
        self._op_timeout = op_timeout
        self._windows: list[Window] = []  # the least recently used first
        self._is_disk_full = False
        self._freed = trio.Event()

    async def read(self, download: Download, offset: int, size: int) -> bytes:
        """The bytes there, fewer only at the end; the file's size is known.

        Raises:
            FileSystemError: They can't be had.
        """
        end = min(offset + size, download.total or 0)
        pieces = []
        for place in range(offset, end, PIECE):
            pieces.append(await self._piece(download, place, min(end, place + PIECE)))
        return b"".join(pieces)

    def close(self, download: Download) -> None:
        """Nobody reads the file any more."""
        for window in [each for each in self._windows if each.download is download]:
            self._drop(window)
        if not self._windows:
            self._is_disk_full = False

    async def _piece(self, download: Download, offset: int, end: int) -> bytes:
        while True:
            window = self._find(download, offset, end)
            if window is None:
                await self._wait_for_place()
                window = self._find(download, offset, end) or self._begin(download, offset)
            window.want(end)
            if not window.is_filling and window.available < window.goal:
                window.is_filling = True
                window.ring.pins += 1
                self._nursery.start_soon(self._fill, window)
            window.ring.pins += 1
            try:
                await self._wait(window, end)
                if window.start <= offset:
                    return window.read(offset, end - offset)
            except NoSpace:
                if window.ring.in_memory:
                    raise
                self._is_disk_full = True
            finally:
                self._store.unpin(window.ring)

    def _find(self, download: Download, offset: int, end: int) -> Window | None:
        for window in self._windows:
            if window.download is download and window.serves(offset, end):
                self._windows.remove(window)
                self._windows.append(window)
                return window
        return None

    async def _wait_for_place(self) -> None:
        """Return when there may be one window more."""
        while len(self._windows) >= MOST_WINDOWS:
            idle = next((each for each in self._windows if not each.waiting), None)
            if idle is not None:
                self._drop(idle)
            else:
                await self._freed.wait()

    def _begin(self, download: Download, offset: int) -> Window:
        ring = self._begin_ring(download)
        size = MEMORY_RING if ring.in_memory else RING
        window = Window(download=download, ring=ring, size=size, offset=offset)
        self._windows.append(window)
        return window

    def _begin_ring(self, download: Download) -> Content:
        if not self._is_disk_full:
            try:
                ring = self._store.begin_nameless()
            except NoSpace:
                self._is_disk_full = True
            else:
                self._store.make_room(ring, min(RING, download.total or 0), always=True)
                return ring
        return self._store.begin_in_memory()

    def _drop(self, window: Window) -> None:
        """Forget *window*; nobody waits for it."""
        if window in self._windows:
            self._windows.remove(window)
            self._store.unpin(window.ring)
            window.scope.cancel()
            self._tell_freed()

    async def _wait(self, window: Window, end: int) -> None:
        window.waiting += 1
        try:
            while window.available < end:
                if window.error is not None:
                    raise type(window.error)(str(window.error), retriable=window.error.retriable)
                await window.change()
        finally:
            window.waiting -= 1
            if not window.waiting:
                self._tell_freed()

    def _tell_freed(self) -> None:
        self._freed.set()
        self._freed = trio.Event()

    async def _fill(self, window: Window) -> None:
        try:
            with trio.CancelScope() as window.scope:
                await self._reach_goal(window)
        except FileSystemError as exc:
            window.error = exc
        except Exception as exc:
            log.exception("reading a part of %s failed", window.download.file.id)
            window.error = FileSystemError(f"internal error: {exc}")
        finally:
            window.is_filling = False
            if window.error is not None:
                self._drop(window)
            self._store.unpin(window.ring)
            window.tell()

    async def _reach_goal(self, window: Window) -> None:
        async def stream() -> None:
            await self._stream(window)

        while window.available < window.goal:
            await persistently(
                stream,
                available=lambda: window.available,
                what=f"a part of {window.download.file.id}",
            )

    async def _stream(self, window: Window) -> None:
        """One request, for little at first, for all that follows once it is read in order."""
        file = window.download.file
        length = None
        if not window.is_read_in_order:
            length = max(window.goal - window.available, LEAST_REQUEST)
            window.goal = min(window.available + length, window.download.total or 0)
        goal = window.goal
        async with self._client.download_file(
            file.container_id, file.id, offset=window.available, length=length
        ) as body:
            total_size(window.download, body)
            await self._check_version(window.download, body)
            await self._receive(window, body)
        if window.available < goal:
            raise ServerFault(f"file {file.id}: the content ended at {window.available}")

    async def _check_version(self, download: Download, body: Body) -> None:
        if not await self._versions.is_same(download, body):
            download.error = another_version(download, body)
            raise download.error

    async def _receive(self, window: Window, body: Body) -> None:
        position = body.offset  # 0 where the server knows no ranges
        total = window.download.total or 0
        what = f"file {window.download.file.id}"
        async for piece in Paced(body, limit=self._op_timeout, what=what):
            is_new = piece[max(0, window.available - position) :]
            position += len(piece)
            if window.available + len(is_new) > total:
                raise WrongLength(f"{what}: more than {total} bytes came")
            self._keep(window, is_new)
            is_all = body.size is not None and position == body.offset + body.size
            if is_new and window.goal <= window.available and not is_all:
                with trio.move_on_after(IDLE):
                    while window.goal <= window.available:
                        await window.change()
                if window.goal <= window.available:
                    return

    def _keep(self, window: Window, data: bytes) -> None:
        view = memoryview(data)
        for place, count in window.stretches(window.available, len(data)):
            self._store.write(window.ring, view[:count], place)
            view = view[count:]
        window.available += len(data)
        window.start = max(window.start, window.available - window.size)
        window.tell()
