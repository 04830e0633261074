"""One content of the cache directory, in use."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from containerfs.api.types import RemoteFile
from containerfs.cache.allocation import reserve
from containerfs.cache.packs import Packs
from containerfs.cache.parts import Parts
from containerfs.errors import from_os_error


@contextmanager
def local_disk(what: str) -> Iterator[None]:
    """Turn our own disk's failures inside into ours: a missing cache file is not a missing file."""
    try:
        yield
    except OSError as exc:
        raise from_os_error(exc, what) from exc


def content_name(file: RemoteFile) -> str:
    """The cache file's name for this version of a file: hex, whatever the ids hold."""
    key = "\0".join((file.container_id, file.id, str(file.created), str(file.size)))
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


class Content:
    """One version's bytes in the cache directory, in a file of their own.

    Attributes:
        name: The version's.
        file: The name of its file.
        size: Bytes; while it is being filled, None where the server did not tell.
        complete: All bytes are there. Until then only who fills it knows how many are.
        held: Bytes of disk that were granted to it; 0 once it is complete.
        in_memory: It takes no disk.
    """

    __slots__ = ("_fd", "complete", "file", "held", "in_memory", "name", "pins", "size")

    def __init__(
        self,
        *,
        name: str,
        fd: int,
        size: int | None,
        complete: bool,
        file: str | None = None,
        in_memory: bool = False,
    ) -> None:
        self.name = name
        self.file = file or name
        self.size = size
        self.complete = complete
        self.held = 0
        self.in_memory = in_memory
        self.pins = 1
        self._fd = fd

    @property
    def address(self) -> int | None:
        """Where in the packs it is; None where it has a file."""
        return None

    @property
    def fd(self) -> int:
        """A file that begins with its bytes, to be read."""
        return self._fd

    @property
    def written(self) -> int:
        """The bytes up to the last one that was written."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """What is on disk there; the caller knows that it has arrived.

        Raises:
            LocalFault: It can't be read.
        """
        with local_disk("reading the cache"):
            return os.pread(self._fd, size, offset)

    def write(self, data: memoryview, offset: int) -> int:
        """Write *data* there; returns how many bytes of it were written.

        Raises:
            OSError: They can't be written.
        """
        return os.pwrite(self._fd, data, offset)

    def reserve(self, offset: int, size: int) -> None:
        """Have the disk ready for *size* bytes from *offset* on, which are granted and will be
        written: block by block, as they are written, it takes a third longer."""
        with suppress(OSError):  # where there is too little, writing tells
            reserve(self._fd, offset, size)

    def close(self) -> None:
        """Nobody uses it any more."""
        os.close(self._fd)


class PackedContent(Content):
    """One version's bytes in a pack; it holds their place."""

    __slots__ = ("_address", "_crc", "_packs", "_place", "_summed")

    size: int

    def __init__(self, *, name: str, packs: Packs, address: int, size: int, complete: bool) -> None:
        super().__init__(name=name, fd=-1, size=size, complete=complete)
        self._packs = packs
        self._address = address
        self._place = size
        self._crc = 0  # of the bytes that were written in order, from the start
        self._summed = 0  # how many these are

    @property
    def address(self) -> int:
        return self._address

    @property
    def fd(self) -> int:
        if self._fd < 0:
            data = self.read(0, self._place)
            with local_disk("reading the cache"):
                if len(data) != self._place:
                    raise OSError(errno.EIO, "a packed content is cut short")
                fd = os.memfd_create("content", os.MFD_CLOEXEC)
                try:
                    os.pwrite(fd, data, 0)
                except BaseException:
                    os.close(fd)
                    raise
                self._fd = fd
        return self._fd

    @property
    def written(self) -> int:
        return self._place

    def read(self, offset: int, size: int) -> bytes:
        size = min(size, self._place - offset)
        if size <= 0:
            return b""
        with local_disk("reading the cache"):
            return self._packs.read(self._address + offset, size)

    def write(self, data: memoryview, offset: int) -> int:
        if offset + len(data) > self._place:
            raise ValueError("past the end of a packed content")
        count = self._packs.write(data, self._address + offset)
        if offset == self._summed:
            self._crc = crc32(data[:count], self._crc)
            self._summed += count
        elif offset < self._summed:
            self._summed = self._place + 1  # what was written again is read once more
        return count

    @property
    def checksum(self) -> int:
        """The CRC-32 of all its bytes.

        Raises:
            LocalFault: It can't be read.
        """
        return self._crc if self._summed == self._place else crc32(self.read(0, self._place))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._packs.let_go(self._address, self._place)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Parked:
    """A content that was begun and left: its first *available* of *total* bytes are there.

    Args:
        parts: What is there beyond these, if it came by several streams.
        etag: The server's name for the version, if it gave one.
    """

    content: Content
    available: int
    total: int
    parts: Parts | None = None
    etag: str | None = None


def sync(paths: list[Path]) -> None:
    """Have these on the disk; what is gone meanwhile need not be."""
    for path in paths:
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
