"""Dirty bytes on disk: the content of a file that the server has not got yet."""

import os
from contextlib import suppress
from pathlib import Path

import trio

from containerfs.errors import from_os_error
from containerfs.upload.spares import Spares

SMALL = 64 << 10  # bytes; what is no longer is copied without a thread


class Spool:
    """One dirty file's bytes.

    Attributes:
        path: The spool file; named at random, made by us alone.
        size: Bytes; what `stat` shows.
        frozen: Being sent: it must not change. Who wants to write makes a copy and writes that.
    """

    __slots__ = ("_fd", "_is_doomed", "_is_synced", "_spares", "frozen", "path", "size")

    def __init__(
        self, *, path: Path, size: int, fd: int | None = None, spares: Spares | None = None
    ) -> None:
        """Args:
        spares: Where its file goes when it is discarded; None to have it removed.
        """
        self.path = path
        self.size = size
        self.frozen = False
        self._is_doomed = False
        self._is_synced = False
        self._spares = spares
        self._fd = fd

    @property
    def fd(self) -> int:
        """The open spool file; opened when first used.

        Raises:
            LocalFault: It is gone or can't be opened.
        """
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as exc:
                raise from_os_error(exc, "opening the spool") from exc
        return self._fd

    def read(self, offset: int, size: int) -> bytes:
        """Up to *size* bytes; fewer only at the end.

        Raises:
            LocalFault: The local disk failed.
        """
        try:
            return os.pread(self.fd, size, offset)
        except OSError as exc:
            raise from_os_error(exc, "reading the spool") from exc

    def write(self, offset: int, data: bytes) -> None:
        """Write all of *data*; a gap before it reads as zeros.

        Raises:
            NoSpace, LocalFault: Part of it may have been written.
        """
        fd = self.fd
        end = offset + len(data) if data else 0
        try:
            count = os.pwrite(fd, data, offset)
            while count < len(data):
                count += os.pwrite(fd, data[count:], offset + count)
        except OSError as exc:
            self.size = os.fstat(fd).st_size
            raise from_os_error(exc, "writing the spool") from exc
        self.size = max(self.size, end)

    def truncate(self, size: int) -> None:
        """Cut, or grow with zeros, to *size* bytes.

        Raises:
            NoSpace, LocalFault: The size is as it was.
        """
        try:
            os.ftruncate(self.fd, size)
        except OSError as exc:
            raise from_os_error(exc, "truncating the spool") from exc
        self.size = size

    def changed_ns(self) -> int:
        """When it was last written to, as its disk tells: it outlives whoever wrote.

        Raises:
            LocalFault: It can't be asked.
        """
        try:
            return os.fstat(self.fd).st_mtime_ns
        except OSError as exc:
            raise from_os_error(exc, "asking the spool for its time") from exc

    def stamp(self, time_ns: int) -> None:
        """Let `changed_ns` tell this time until it is written to again.

        A disk with finer times than the clock that the mount takes them from stamps what is written
        some milliseconds later. Source: Documentation/filesystems/multigrain-ts.rst in the kernel.
        """
        with suppress(OSError):  # a time off by that much, after a restart, is all that it costs
            os.utime(self.path if self._fd is None else self._fd, ns=(time_ns, time_ns))

    async def sync(self) -> None:
        """Have it on the disk, under its name, when this returns.

        Raises:
            NoSpace, LocalFault: It may not be.
        """
        own = os.dup(self.fd)
        self._is_synced = True
        try:
            await trio.to_thread.run_sync(_sync, own, self.path.parent)
        except OSError as exc:
            raise from_os_error(exc, "syncing the spool") from exc
        finally:
            os.close(own)

    def hand_over(self) -> int:
        """Give the open file to somebody else, who closes it; the spool is used no more."""
        fd = self.fd
        self._fd = None
        return fd

    def close(self) -> None:
        """Close the file, unless it is being sent; the next use opens it again."""
        if self.frozen:
            return
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def discard(self) -> None:
        """Close and remove it: the bytes are not needed any more, or not after being sent."""
        self._is_doomed = True
        if self.frozen:
            return
        if self._spares is not None and self._fd is not None and self._is_spare:
            self._spares.give(self.path, self.hand_over())
            return
        self.close()
        self.path.unlink(missing_ok=True)

    @property
    def _is_spare(self) -> bool:
        """Whether its file may hold other bytes at once.

        Not one that was synced: after a power cut the journal may name it again, and believe it.
        Not a large one: a thread may still be copying it.
        """
        return self.size <= SMALL and not self._is_synced

    def freeze(self) -> None:
        """It is being sent from now on."""
        self.frozen = True

    def thaw(self) -> None:
        """It was sent, or not; what was to be done with it meanwhile is done now."""
        self.frozen = False
        if self._is_doomed:
            self.discard()


def _sync(file: int, directory: Path) -> None:
    os.fsync(file)
    above = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(above)
    finally:
        os.close(above)
