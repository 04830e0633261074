"""Downloads: one for each version of a file, however many wait for its bytes.

A download runs in the cache's nursery, so it outlives the reader that asked first; each reader
waits for the byte range it wants. Large files come by several streams where the server grants
ranges. What nobody reads any more is left where it is, for the next reader to go on with; what does
not fit the cache is read by windows.
"""

import logging

import trio

from containerfs.api.client import Client
from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Parked, content_name
from containerfs.cache.content import ContentStore
from containerfs.cache.download import SMALL_REST, Download
from containerfs.cache.fetching import Fetching
from containerfs.cache.parts import Parts
from containerfs.cache.plausibility import may_be_error
from containerfs.cache.sidebyside import SideBySide
from containerfs.cache.versions import Versions
from containerfs.cache.windows import Windows
from containerfs.errors import FileSystemError, NoSpace, ServerFault

log = logging.getLogger(__name__)

LARGE = 16 << 20  # bytes; a larger file comes by several streams
LINGER = 2.0  # seconds that a download waits for another reader, its streams standing still


class Downloads:
    """All downloads under way, by version."""

    def __init__(
        self,
        *,
        client: Client,
        store: ContentStore,
        nursery: trio.Nursery,
        max_size: int,
        op_timeout: float,
    ) -> None:
        """Args:
        max_size: Bytes; a body that goes on past this, its length never declared, is an error, and
            so is a file that is needed whole and larger.
        op_timeout: Seconds in which a stream must get on.
        """
        self._client = client
        self._store = store
        self._nursery = nursery
        versions = Versions(client)
        self._fetching = Fetching(
            client=client, store=store, versions=versions, max_size=max_size, op_timeout=op_timeout
        )
        self._side_by_side = SideBySide(
            client=client, fetching=self._fetching, versions=versions, op_timeout=op_timeout
        )
        self._windows = Windows(
            client=client, store=store, versions=versions, nursery=nursery, op_timeout=op_timeout
        )
        self._running: dict[str, Download] = {}
        self._unkept: dict[str, Download] = {}  # read by windows

    def is_running(self, file: RemoteFile) -> bool:
        """Whether this version is on its way."""
        return self._is_begun(content_name(file))

    def join(self, file: RemoteFile, *, whole: bool = False) -> Download:
        """The download of this version, begun if need be; the caller leaves it again.

        Args:
            whole: The caller waits for all of it in one file, also where it does not fit the cache.

        Raises:
            TooLarge: It is needed whole, and larger than anything may be.
            NoSpace, LocalFault: The cache file can't be made.
        """
        download = self._find(file, whole=whole) or self._begin(file, whole=whole)
        download.joined()
        download.is_needed_whole |= whole
        download.scope.deadline = float("inf")
        return download

    async def fetch(self, file: RemoteFile) -> bytes | None:
        """Have the content of this version here, unless it is on its way already.

        It is fetched in the caller's task.

        Returns:
            The content, where it has come as one piece.

        Raises:
            FileSystemError: It can't be had.
        """
        name = content_name(file)
        if self._is_begun(name) or self._store.has(name):
            return None
        download = self._prepare(file, name, whole=False)
        download.readers += 1
        try:
            if download.is_running:
                await self._run(download)
            if download.error is not None:
                raise download.error
            return download.whole
        finally:
            download.release()
            self.leave(download)

    def leave(self, download: Download) -> None:
        """Give back what `join` gave."""
        download.readers -= 1
        if download.readers:
            return
        if download.is_running and download.is_left:
            download.scope.deadline = trio.current_time() + LINGER
        self._end_unused(download)

    async def read(self, download: Download, offset: int, size: int) -> bytes:
        """Up to *size* bytes of a version that the caller has joined; fewer only at the end.

        Raises:
            FileSystemError: They can't be had.
        """
        end = offset + size
        download.readers += 1
        try:
            until = end if download.total is None else min(end, download.total)
            await download.arrive(offset, until)
            if download.content is not None:
                return download.read(offset, end)
            await download.wait_for_size()
            return await self._windows.read(download, offset, size)
        finally:
            self.leave(download)

    async def probe(self, file: RemoteFile) -> int:
        """The true size of a file whose size is not listed: one short request where the server
        declares lengths, else the whole content, which is then cached if it fits.

        Raises:
            NotFound: The server lists it and does not have it.
        """
        if not self.is_running(file):
            async with self._client.download_file(
                file.container_id, file.id, offset=0, length=1
            ) as body:
                if body.total is not None and not may_be_error(file, body):
                    return body.total
        download = self.join(file)
        try:
            return await download.wait_for_size()
        finally:
            self.leave(download)

    # Beginning and ending.

    def _is_begun(self, name: str) -> bool:
        return name in self._running or name in self._unkept

    def _find(self, file: RemoteFile, *, whole: bool) -> Download | None:
        name = content_name(file)
        download = self._running.get(name)
        if download is not None and not download.scope.cancel_called:
            is_use = download.content is not None or not whole
        else:
            download = self._unkept.get(name)
            is_use = download is not None and not whole and download.error is None
        return download if is_use else None

    def _begin(self, file: RemoteFile, *, whole: bool) -> Download:
        download = self._prepare(file, content_name(file), whole=whole)
        if download.is_running:
            self._nursery.start_soon(self._run_to_end, download)
        return download

    async def _run_to_end(self, download: Download) -> None:
        await self._run(download)
        download.release()

    def _prepare(self, file: RemoteFile, name: str, *, whole: bool) -> Download:
        """A new download, of this name; where it `is_running`, the caller runs it."""
        size = file.size
        if whole and size is not None:
            self._fetching.check_size(file, size)
        elif size is not None and not self._store.could_hold(size):
            download = self._unkept[name] = Download(file=file, name=name, content=None)
            return download
        parked = self._store.resume(name)
        if parked is not None:
            download = _resumed(file, parked)
        else:
            download = self._anew(file, name, must_be_kept=whole)
            if download.is_for_windows:
                self._unkept[name] = download
                return download
        download.is_running = True
        self._running[name] = download
        return download

    def _anew(self, file: RemoteFile, name: str, *, must_be_kept: bool) -> Download:
        is_large = file.size is not None and file.size > LARGE
        parts = None
        if file.size is not None and is_large and self._client.grants_ranges is not False:
            parts = Parts(file.size)
        try:
            content = self._store.begin(name, size=file.size, in_order=parts is None)
        except NoSpace:
            if must_be_kept:
                raise
            return Download(file=file, name=name, content=None)
        return Download(file=file, name=name, content=content, parts=parts)

    def _end_unused(self, download: Download) -> None:
        """Give back what *download* holds, if nobody needs it any more."""
        if download.readers or download.is_running:
            return
        if download.content is not None:
            self._store.unpin(download.content)
            return
        if self._unkept.get(download.name) is download:
            del self._unkept[download.name]
        self._windows.close(download)  # also of one that failed, and has been begun anew since

    async def _run(self, download: Download) -> None:
        try:
            while await self._is_left(download) and download.readers:
                download.scope = trio.CancelScope()  # somebody came at the last moment
                if download.parts is not None:
                    download.parts.give_back()
            if not download.is_over and not download.is_for_windows and download.readers:
                raise ServerFault(f"file {download.file.id}: it ended at {download.available}")
        except FileSystemError as exc:
            download.error = exc
        except Exception as exc:
            log.exception("downloading %s failed", download.file.id)
            download.error = FileSystemError(f"internal error: {exc}")
        finally:
            download.is_running = False
            if download.content is None:
                self._unkept[download.name] = download
            if self._running.get(download.name) is download:
                del self._running[download.name]
                self._park(download)
            download.tell()
            self._end_unused(download)

    async def _is_left(self, download: Download) -> bool:
        """Fetch it; whether that was ended because nobody read it."""
        if download.parts is None and download.rest <= SMALL_REST:
            # Nobody ends it, and a scope would cost as much as the bytes of most.
            await self._fetching.fetch(download)
            return False
        with download.scope:
            if download.parts is None:
                await self._fetching.fetch(download)
            else:
                await self._side_by_side.fetch(download, download.parts)
        if download.scope.cancelled_caught:
            log.info("file %s is left at %d", download.file.id, download.available)
        return download.scope.cancelled_caught

    def _park(self, download: Download) -> None:
        """Let the next reader go on where this one ended."""
        content, total = download.content, download.total
        may_go_on = download.error is None or download.error.retriable
        if content is None or content.complete or total is None or not may_go_on:
            return
        parts = download.parts
        if parts is not None:
            parts.give_back()
        if download.available or (parts is not None and parts.arrived):
            self._store.park(
                Parked(
                    content=content,
                    available=download.available,
                    total=total,
                    parts=parts,
                    etag=download.etag,
                )
            )


def _resumed(file: RemoteFile, parked: Parked) -> Download:
    download = Download(
        file=file,
        name=parked.content.name,
        content=parked.content,
        available=parked.available,
        parts=parked.parts,
    )
    download.total = parked.total
    download.etag = parked.etag
    download.is_read = True  # by those who left it; the kernel has what they read
    return download
