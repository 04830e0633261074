"""One open file of the cache directory."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from containerfs.api.types import RemoteFile
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
    """One version's bytes in an open cache file.

    Attributes:
        name: The version's.
        file: The name of its file.
        size: Bytes; while it is being filled, None where the server did not tell.
        complete: All bytes are there. Until then only who fills it knows how many are.
        held: Bytes of disk that were granted to it; 0 once it is complete.
    """

    __slots__ = ("complete", "fd", "file", "held", "name", "pins", "size")

    def __init__(
        self, *, name: str, fd: int, size: int | None, complete: bool, file: str | None = None
    ) -> None:
        self.name = name
        self.file = file or name
        self.fd = fd
        self.size = size
        self.complete = complete
        self.held = 0
        self.pins = 1

    def read(self, offset: int, size: int) -> bytes:
        """What is on disk there; the caller knows that it has arrived.

        Raises:
            LocalFault: The cache file can't be read.
        """
        with local_disk("reading the cache"):
            return os.pread(self.fd, size, offset)


@dataclass(frozen=True, slots=True, kw_only=True)
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
