"""The content of files, from the spool, from the cache, or downloaded as far as it is wanted."""

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Content
from containerfs.cache.content import ContentStore
from containerfs.cache.download import Download
from containerfs.cache.downloads import Downloads
from containerfs.errors import AnotherVersion, NotFound, WrongLength
from containerfs.fs.kernel.handles import FileHandle, Handles
from containerfs.fs.listings.renewal import Renewal
from containerfs.fs.patience import Patience
from containerfs.fs.tree.nodes import File

ALL = 1 << 62  # an offset past the end of every file
SMALL = 256 << 10  # bytes of a file that is fetched as it is opened


class Reading:
    """Reads open files; gets whole contents for who changes them."""

    def __init__(
        self,
        *,
        handles: Handles[FileHandle],
        renewal: Renewal,
        store: ContentStore,
        downloads: Downloads,
        patience: Patience,
    ) -> None:
        self._handles = handles
        self._renewal = renewal
        self._store = store
        self._downloads = downloads
        self._patience = patience

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        """Up to *size* bytes; fewer only at the end.

        Raises:
            NotFound: The server does not have what it listed.
            AnotherVersion: What was read before is of another one.
            FileSystemError: The content can't be had.
        """
        handle = self._handles[fh]
        file = handle.file
        while True:
            if file.spool is not None:
                return file.spool.read(offset, size)
            if handle.is_outdated:
                raise AnotherVersion(f"{file.path!r} became another one while it was read")
            if file.content is not None:
                return file.content.read(offset, size)
            if file.remote is None or offset >= (
                file.size if file.size is not None else offset + 1
            ):
                return b""
            download = self._find_content(file, file.remote)
            if download is not None:
                return await self._receive(file, download, offset, size)

    def _find_content(self, file: File, remote: RemoteFile) -> Download | None:
        """The download of the file's content; None where `file.content` has it."""
        if file.download is not None and not file.download.is_over:
            return file.download
        if file.download is not None:
            self._downloads.leave(file.download)
            file.download = None
        file.content = self._store.pin(remote)
        if file.content is not None:
            return None
        file.download = self._downloads.join(remote)
        return file.download

    async def _receive(self, file: File, download: Download, offset: int, size: int) -> bytes:
        try:
            data = await self._downloads.read(download, offset, size)
        except (NotFound, WrongLength) as exc:
            if isinstance(exc, AnotherVersion):
                self._outdate(file)
            await self._renewal.contradicted(file, download.file, exc)
            raise
        if download.is_complete:
            file.true_size = download.total
        return data

    def _outdate(self, file: File) -> None:
        """Have *file* opened anew by who wants to read on: the kernel reads ahead, and tells
        nobody of a failure of that."""
        file.pages_valid = False  # they are of the one that was read
        for handle in self._handles:
            handle.is_outdated |= handle.file is file

    def is_elsewhere(self, file: File) -> bool:
        """Whether the content of *file* is on the server, and not here."""
        if file.remote is None or file.spool is not None or file.content is not None:
            return False
        return self._store.size_of(file.remote) is None

    async def begin(self, file: File) -> None:
        """Have the beginning of a small file here: while it is opened it can still be replaced.

        Of a larger one, the first read will tell whether it can be had.

        Raises:
            NotFound, WrongLength: The server has not got what it listed; it was asked what there
                is now.
            FileSystemError: The content can't be had.
        """
        remote = file.remote
        size = 0 if remote is None else remote.size or 0
        if remote is None or not 0 < size <= SMALL or not self.is_elsewhere(file):
            return
        if not self._store.could_hold(size):  # it would be fetched again to be read
            return
        download = self._downloads.join(remote)
        try:
            await self._downloads.read(download, 0, 1)
        except (NotFound, WrongLength) as exc:
            await self._renewal.contradicted(file, remote, exc)
            raise
        finally:
            self._downloads.leave(download)

    async def find_size(self, file: File) -> int:
        """The size of a file that the server does not tell the size of, asked for once a version.

        Raises:
            NotFound: The server lists it and does not have it; it leaves the directory.
        """
        remote = file.remote
        if file.size is not None or remote is None:
            return file.size or 0
        size = self._store.size_of(remote)
        if size is None:
            try:
                size = await self._downloads.probe(remote)
            except NotFound as exc:
                await self._renewal.contradicted(file, remote, exc)
                raise
        if file.remote is remote:
            file.true_size = size
        return size

    async def whole(self, file: File) -> Content:
        """The complete content of a clean file, pinned for the caller; downloaded if need be."""
        if file.content is not None:  # where a rename was since, the cache may know it no more
            file.content.pins += 1
            return file.content
        remote = file.remote
        if remote is None:
            raise NotFound(f"{file.path!r} has no content on the server")
        while (content := self._store.pin(remote)) is None:
            download = self._downloads.join(remote, whole=True)
            try:
                with self._patience.waiting(f"fetching {file.path!r}") as progress:
                    await download.wait_for(ALL, progress=progress)
                content = self._store.pin(remote)  # one that does not fit goes with its last pin
                if content is not None:
                    return content
            except (NotFound, WrongLength) as exc:
                await self._renewal.contradicted(file, remote, exc)
                raise
            finally:
                self._downloads.leave(download)
        return content
