"""Fetches a version by one stream, from where its content ends so far to its end.

A broken stream is taken up again where it stopped. A body of the wrong length is an error and
never becomes content. What finds no room is given up: windows read it.
"""

import logging

from containerfs.api.body import Body, Paced
from containerfs.api.client import Client
from containerfs.api.content import ContentRequest
from containerfs.api.streams import persistently
from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.download import Download
from containerfs.cache.plausibility import (
    check_is_content,
    check_length,
    may_be_error,
    total_size,
)
from containerfs.cache.versions import Versions
from containerfs.errors import NoSpace, TooLarge, WrongLength

log = logging.getLogger(__name__)

SMALL = 64 << 10  # bytes that are fetched the short way, which shows nothing before all is there
UNDECLARED_HOLD = 1 << 20  # bytes held back while no length was declared: an error text is shorter


class Fetching:
    """Fills contents."""

    def __init__(
        self,
        *,
        client: Client,
        store: ContentStore,
        versions: Versions,
        max_size: int,
        op_timeout: float,
    ) -> None:
        """Args as for `Downloads`."""
        self._client = client
        self._store = store
        self._versions = versions
        self._max_size = max_size
        self._op_timeout = op_timeout

    async def fetch(self, download: Download) -> None:
        """Fetch all that is missing, or until it is known that it is not kept.

        Raises:
            FileSystemError: Why it can't be had.
        """
        request: ContentRequest | None = None
        if not download.available and 0 < (download.file.size or 0) <= SMALL:
            request = await self._fetch_small(download)
            if request is None:
                return

        async def stream() -> None:
            nonlocal request
            first, request = request, None
            await self.stream(download, request=first)

        await persistently(
            stream, available=lambda: download.available, what=f"download of {download.file.id}"
        )

    async def _fetch_small(self, download: Download) -> ContentRequest | None:
        """Fetch all of it the short way; the request for it where that leads nowhere."""
        file = download.file
        data = await self._client.fetch_file(file.container_id, file.id, most=file.size or 0)
        if not isinstance(data, bytes):
            return data
        self._take(download, data, 0)
        check_length(download, size=len(data))
        if download.content is not None:
            self.finish(download, len(data))
        return None

    async def stream(self, download: Download, *, request: ContentRequest | None = None) -> None:
        """Ask once for all that is missing.

        Args:
            request: What asks for it.
        """
        file = download.file
        if request is None:
            request = self._client.download_file(
                file.container_id, file.id, offset=download.available
            )
        async with request as body:
            await self._versions.check(download, body)
            await self.receive(download, body)

    async def receive(self, download: Download, body: Body) -> None:
        """Take a body that goes on to the file's end."""
        is_doubtful = may_be_error(download.file, body)
        total = None if is_doubtful else total_size(download, body)
        if total is not None:
            self._learn_size(download, total)
        position = body.offset
        what = f"file {download.file.id}"
        async for chunk in Paced(body, limit=self._op_timeout, what=what):
            self._take(download, chunk, position)
            position += len(chunk)
            if download.is_for_windows:
                return
            if position > download.available and (total is not None or position > UNDECLARED_HOLD):
                _let_read(download, position)
            if download.is_left:
                await download.be_read()
        if is_doubtful:
            check_is_content(download, body, size=position)
        check_length(download, size=position, request_id=body.request_id)
        self.finish(download, position)

    def finish(self, download: Download, size: int) -> None:
        """All *size* bytes are there."""
        if download.content is not None:
            self._store.commit(download.content, size=size)
        download.total = size
        _let_read(download, size)

    def make_room(self, download: Download, size: int) -> bool:
        """Have room for *size* bytes; where there is none it is given up, which is told."""
        content = download.content
        if content is None:
            return False
        if self._store.make_room(content, size, always=download.is_needed_whole):
            return True
        self._give_up_keeping(download)
        return False

    def write(self, download: Download, data: bytes, place: int) -> bool:
        """Write *data*, for which there is room; on a full disk it is given up, which is told."""
        content = download.content
        if content is None:
            return False
        try:
            self._store.write(content, data, place)
        except NoSpace:
            if download.is_needed_whole:
                raise
            self._give_up_keeping(download)
            return False
        download.remember(data, place)
        return True

    def check_size(self, file: RemoteFile, size: int) -> None:
        """Refuse what is needed whole and too large for that.

        Raises:
            TooLarge: It is.
        """
        if size > self._max_size:
            raise TooLarge(f"file {file.id}: {size} bytes are too many to be fetched as a whole")

    def _learn_size(self, download: Download, total: int) -> None:
        content, download.total = download.content, total
        if download.is_needed_whole:
            self.check_size(download.file, total)
        elif content is not None and not self._store.could_hold(total - content.held):
            self._give_up_keeping(download)
        download.tell()

    def _take(self, download: Download, chunk: bytes, position: int) -> None:
        end = position + len(chunk)
        limit = self._max_size if download.total is None else download.total
        if end > limit:
            failure = TooLarge if download.total is None else WrongLength
            raise failure(f"file {download.file.id}: more than {limit} bytes came")
        if self.make_room(download, end):
            self.write(download, chunk, position)

    def _give_up_keeping(self, download: Download) -> None:
        """There is no room for it: its readers get windows, the stream goes on if its length does
        not tell yet what they need to know."""
        log.info("file %s does not fit the cache", download.file.id)
        content, download.content, download.available = download.content, None, 0
        download.parts = None
        if content is not None:
            self._store.unpin(content)
        download.tell()


def _let_read(download: Download, position: int) -> None:
    if download.content is not None:
        download.available = position
    download.tell()
