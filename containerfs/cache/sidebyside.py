"""Fetches a large version by several ranges side by side, into one cache file.

What comes first in the file is asked for first, and a place far from all that is on its way gets a
range of its own as soon as somebody waits there. No byte is asked for twice. A server that sends
the whole instead of a part is taken at its word: the file comes as one stream from then on.
"""

import trio

from containerfs.api.body import Body, Paced
from containerfs.api.client import Client
from containerfs.api.streams import persistently
from containerfs.cache.download import Download
from containerfs.cache.fetching import Fetching
from containerfs.cache.pace import FLOW, Pace
from containerfs.cache.parts import PART, Parts, Stretch
from containerfs.cache.plausibility import total_size
from containerfs.cache.versions import Versions, begin_anew
from containerfs.errors import FileSystemError, ServerFault, WrongLength

JUMPS = 4  # streams of one file that somebody waits for, beside those that go on in order
MOST_STREAMS = 8  # of all files; beyond, each has one


class _Crew:
    """The streams of one download.

    Attributes:
        counts: How many there are, by whether they jumped to where somebody waits.
        error: Why the download fails.
    """

    def __init__(self, download: Download, parts: Parts) -> None:
        self.download = download
        self.parts = parts
        self.counts = {False: 0, True: 0}
        self.scopes: set[trio.CancelScope] = set()
        self.error: FileSystemError | None = None

    @property
    def size(self) -> int:
        return len(self.scopes)

    @property
    def is_at_work(self) -> bool:
        """There is something to do, and it is done by parts."""
        is_by_parts = self.download.parts is self.parts
        return self.error is None and is_by_parts and not self.parts.is_here

    def dismiss(self, *, but: trio.CancelScope | None = None) -> None:
        """End all streams, or all but one; what they bring is not waited for any more."""
        for scope in self.scopes:
            if scope is not but:
                scope.cancel()


class SideBySide:
    """Fills contents by parts, wherever that is faster."""

    def __init__(
        self, *, client: Client, fetching: Fetching, versions: Versions, op_timeout: float
    ) -> None:
        """Args:
        fetching: What a file is left to that does not come by parts.
        op_timeout: Seconds in which each stream must get on.
        """
        self._client = client
        self._fetching = fetching
        self._versions = versions
        self._op_timeout = op_timeout
        self._pace = Pace()
        self._streams = 0  # of all downloads

    async def fetch(self, download: Download, parts: Parts) -> None:
        """As `Fetching.fetch`."""
        crew = _Crew(download, parts)
        async with trio.open_nursery() as nursery:
            while crew.is_at_work:
                self._start(crew, nursery)
                await parts.change()
        if crew.error is not None:
            raise crew.error

    def _start(self, crew: _Crew, nursery: trio.Nursery) -> None:
        """Start all streams that there may be now."""
        while (found := self._next(crew)) is not None:
            stretch, is_jump = found
            if not self._fetching.make_room(crew.download, crew.parts.asked):
                crew.dismiss()
                crew.parts.tell()
                return
            if crew.download.content is not None:
                crew.download.content.reserve(stretch.place, stretch.end - stretch.place)
            scope = trio.CancelScope()
            crew.scopes.add(scope)
            crew.counts[is_jump] += 1
            self._streams += 1
            nursery.start_soon(self._run, crew, stretch, scope, is_jump)

    def _next(self, crew: _Crew) -> tuple[Stretch, bool] | None:
        """What to ask for now, and whether that is a jump."""
        parts = crew.parts
        if crew.download.is_left:
            return None
        if crew.size and (self._client.grants_ranges is not True or self._streams >= MOST_STREAMS):
            return None
        if crew.counts[True] < JUMPS:
            stretch = parts.take_wanted(PART)
            if stretch is not None:
                return stretch, True
        idle = self._pace.streams - crew.counts[False]
        if idle > 0:
            share = -(-(parts.size - parts.asked) // idle)
            stretch = parts.take_next(min(self._pace.request, max(share, PART)))
            if stretch is not None:
                return stretch, False
        return None

    async def _run(
        self, crew: _Crew, stretch: Stretch, scope: trio.CancelScope, is_jump: bool
    ) -> None:
        try:
            with scope:
                await self._bring(crew, stretch, scope)
        except FileSystemError as exc:
            crew.error = crew.error or exc
            crew.dismiss()
        finally:
            self._streams -= 1
            crew.counts[is_jump] -= 1
            crew.scopes.discard(scope)
            crew.parts.tell()

    async def _bring(self, crew: _Crew, stretch: Stretch, scope: trio.CancelScope) -> None:
        download = crew.download

        async def stream() -> None:
            if download.parts is crew.parts:
                await self._ask(crew, stretch, scope)
            else:
                await self._fetching.stream(download)

        while download.parts is crew.parts and not stretch.is_here:  # a part may come in pieces
            await persistently(
                stream,
                available=lambda: stretch.place + download.available * (download.parts is None),
                what=f"a part of {download.file.id}",
            )

    async def _ask(self, crew: _Crew, stretch: Stretch, scope: trio.CancelScope) -> None:
        download, file = crew.download, crew.download.file
        begun = trio.current_time()
        length = stretch.end - stretch.place
        async with self._client.download_file(
            file.container_id, file.id, offset=stretch.place, length=length
        ) as body:
            if download.parts is not crew.parts:
                return  # another answer, of the same moment, was the whole
            self._pace.answered(trio.current_time() - begun)
            total_size(download, body)
            is_same = await self._versions.is_same(download, body)
            if download.parts is not crew.parts:
                return  # the same, meanwhile
            if is_same:
                if body.offset == stretch.place and body.size is not None and body.size <= length:
                    crew.parts.tell()  # the others need not wait any more
                    await self._take(crew, stretch, body)
                    return
                crew.dismiss(but=scope)
                download.parts = None
                await self._fetching.receive(download, body)
                return
        crew.dismiss(but=scope)
        begin_anew(download, body)
        await self._fetching.stream(download)

    async def _take(self, crew: _Crew, stretch: Stretch, body: Body) -> None:
        download, parts = crew.download, crew.parts
        begun, first = trio.current_time(), stretch.place
        what = f"file {download.file.id}"
        async for piece in Paced(body, limit=self._op_timeout, what=what):
            if download.parts is not parts:
                return
            if not self._fetching.write(download, piece, stretch.place):
                crew.dismiss()
                return
            parts.arrive(stretch, len(piece))
            if parts.is_here:
                self._finish(download, parts)
            download.available = parts.front
            download.tell()
            if not self._pace.is_known and trio.current_time() - begun > FLOW:
                self._pace.brought(stretch.place - first, FLOW)
                parts.tell()
            if download.is_left:
                await download.be_read()
        if stretch.place == first:
            raise ServerFault(f"{what}: nothing came at {first}", retriable=False)
        self._pace.brought(stretch.place - first, trio.current_time() - begun)

    def _finish(self, download: Download, parts: Parts) -> None:
        assert download.content is not None  # noqa: S101 - it has just been written to
        if download.content.written != parts.size:
            raise WrongLength(f"file {download.file.id}: not {parts.size} bytes")
        self._fetching.finish(download, parts.size)
