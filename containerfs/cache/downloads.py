"""Downloads: one stream for each version of a file, however many wait for its bytes.

A download runs in the cache's nursery, so it outlives the reader that asked first; each reader
waits for the byte range it wants. A broken stream is taken up again where it stopped. A body of
the wrong length is an error and never becomes content.
"""

import logging
import os
from collections.abc import Callable

import trio

from containerfs.api.body import Body
from containerfs.api.client import Client
from containerfs.api.failures import error_object, failure
from containerfs.api.types import RemoteFile
from containerfs.cache.content import Content, ContentStore, content_name
from containerfs.errors import FileSystemError, ServerFault, TooLarge, from_os_error

log = logging.getLogger(__name__)

ATTEMPTS = 4  # streams opened for one download before its failure is the readers'
BACK_OFF = 0.5  # seconds before the second stream; doubles
UNDECLARED_HOLD = 1 << 20  # bytes held back while no length was declared: an error text is shorter
LARGEST_ERROR = 64 << 10  # bytes of an error text


class Download:
    """A version on its way to the cache; `available` bytes from the start can be read."""

    def __init__(self, *, file: RemoteFile, content: Content) -> None:
        self.file = file
        self.content = content
        self.available = 0
        self.total = file.size  # bytes; None until the server tells
        self.error: FileSystemError | None = None
        self._progress = trio.Event()

    @property
    def is_over(self) -> bool:
        """Nothing more will arrive: it is complete, or it failed."""
        return self.content.complete or self.error is not None

    async def wait_for(self, end: int, *, progress: Callable[[int], None] | None = None) -> None:
        """Return once the bytes before *end*, or all there are, can be read.

        Args:
            progress: Told the bytes that can be read so far, each time there are more.

        Raises:
            FileSystemError: Why they will not come.
        """
        while self.available < end and not self.content.complete:
            if self.error is not None:
                raise type(self.error)(str(self.error), retriable=self.error.retriable)
            await self._progress.wait()
            if progress is not None:
                progress(self.available)

    async def wait_for_size(self) -> int:
        """Return the file's size as soon as it is known."""
        while self.total is None:
            if self.error is not None:
                raise type(self.error)(str(self.error), retriable=self.error.retriable)
            await self._progress.wait()
        return self.total

    def tell(self) -> None:
        """Wake those who wait: something changed."""
        self._progress.set()
        self._progress = trio.Event()


class Downloads:
    """All downloads under way, by version."""

    def __init__(
        self, *, client: Client, store: ContentStore, nursery: trio.Nursery, max_size: int
    ) -> None:
        """Args:
        max_size: Bytes; a body that goes on past this, its length never declared, is an error.
        """
        self._client = client
        self._store = store
        self._nursery = nursery
        self._max_size = max_size
        self._running: dict[str, Download] = {}

    def is_running(self, file: RemoteFile) -> bool:
        """Whether this version is on its way."""
        return content_name(file) in self._running

    def join(self, file: RemoteFile) -> Download:
        """The download of this version, begun if need be; the caller leaves it again.

        Raises:
            NoSpace, LocalFault: The cache file can't be made.
        """
        name = content_name(file)
        download = self._running.get(name)
        if download is None:
            content = self._store.begin(file)
            download = self._running[name] = Download(file=file, content=content)
            self._nursery.start_soon(self._run, download)
        download.content.pins += 1
        return download

    def leave(self, download: Download) -> None:
        """Give back what `join` gave."""
        self._store.unpin(download.content)

    async def probe(self, file: RemoteFile) -> int:
        """The true size of a file whose size is not listed: one short request where the server
        declares lengths, else the whole content, which is then cached.

        Raises:
            NotFound: The server lists it and does not have it.
        """
        if content_name(file) not in self._running:
            async with self._client.download_file(
                file.container_id, file.id, offset=0, length=1
            ) as body:
                if body.total is not None and not _may_be_error(file, body):
                    return body.total
        download = self.join(file)
        try:
            return await download.wait_for_size()
        finally:
            self.leave(download)

    async def _run(self, download: Download) -> None:
        try:
            await self._fetch(download)
        except FileSystemError as exc:
            download.error = exc
        except Exception as exc:
            log.exception("downloading %s failed", download.file.id)
            download.error = FileSystemError(f"internal error: {exc}")
        finally:
            del self._running[download.content.name]
            download.tell()
            self._store.unpin(download.content)

    async def _fetch(self, download: Download) -> None:
        file = download.file
        for attempt in range(1, ATTEMPTS + 1):
            before = download.available
            try:
                async with self._client.download_file(
                    file.container_id, file.id, offset=download.available
                ) as body:
                    await self._receive(download, body)
                return
            except FileSystemError as exc:
                if not exc.retriable or attempt == ATTEMPTS or not download.available > before:
                    raise
                log.info("download of %s broke off at %d: %s", file.id, download.available, exc)
            await trio.sleep(BACK_OFF * 2 ** (attempt - 1))

    async def _receive(self, download: Download, body: Body) -> None:
        is_doubtful = _may_be_error(download.file, body)
        total = None if is_doubtful else _total_size(download, body)
        if total is not None:
            download.total = total
            download.tell()
        position = body.offset
        async for chunk in body:
            position = self._store_chunk(download, chunk, position, declared=total is not None)
        if is_doubtful:
            _check_is_content(download, body, size=position)
        _check_length(download, body, size=position)
        self._store.commit(download.content, size=position)
        download.total = download.available = position

    def _store_chunk(
        self, download: Download, chunk: bytes, position: int, *, declared: bool
    ) -> int:
        limit = self._max_size if download.total is None else download.total
        if position + len(chunk) > limit:
            failure = TooLarge if download.total is None else ServerFault
            raise failure(f"file {download.file.id}: more than {limit} bytes came", retriable=False)
        try:
            _write_all(download.content.fd, chunk, position)
        except OSError as exc:
            raise from_os_error(exc, "writing the cache") from exc
        position += len(chunk)
        if position > download.available and (declared or position > UNDECLARED_HOLD):
            download.available = position
            download.tell()
        return position


def _total_size(download: Download, body: Body) -> int | None:
    """The whole file's size as this answer declares it, checked against what was told before."""
    told = download.total
    if body.total is not None and told is not None and body.total != told:
        raise ServerFault(
            f"file {download.file.id}: the answer has {body.total} bytes, {told} were told",
            request_id=body.request_id,
            retriable=False,
        )
    return body.total


def _check_length(download: Download, body: Body, *, size: int) -> None:
    """Refuse a body of another length than was told, or than an earlier stream has written."""
    told = download.total
    if (told is not None and size != told) or os.fstat(download.content.fd).st_size != size:
        raise ServerFault(
            f"file {download.file.id}: {size} bytes came, {told} were told",
            request_id=body.request_id,
            retriable=False,
        )


def _may_be_error(file: RemoteFile, body: Body) -> bool:
    """Whether only its text can tell this answer from an error that was sent as a success."""
    is_whole = body.size == body.total
    is_json = (body.content_type or "").partition(";")[0].strip() == "application/json"
    return file.size is None and is_json and is_whole and (body.total or 0) <= LARGEST_ERROR


def _check_is_content(download: Download, body: Body, *, size: int) -> None:
    """Raise the error that the body describes, if it does."""
    if size <= LARGEST_ERROR:
        error = error_object(os.pread(download.content.fd, size, 0))
        if error is not None:
            what = f"file {download.file.id}"
            raise failure(200, error, what=what, request_id=body.request_id)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
