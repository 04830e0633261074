"""The directory of spools: new ones, those that an earlier mount left, and what is lost."""

import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from containerfs.errors import from_os_error
from containerfs.upload.copying import CHUNK, copy_bytes, copy_bytes_in_thread
from containerfs.upload.journal import LOST_SPOOLS
from containerfs.upload.spares import Spares
from containerfs.upload.spool import Spool


async def nothing() -> None:
    """Where no journal names the spools."""


class SpoolDirectory:
    """Where spools are."""

    def __init__(
        self,
        directory: Path,
        *,
        sync: Callable[[], Awaitable[None]] = nothing,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        sync: Has all that was recorded in the journal so far survive a power cut.
        check_room: Raises NoSpace where the journal needs what is left of the disk.
        """
        self._check_room = check_room
        self._directory = directory
        self._spares = Spares(directory, sync=sync)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise from_os_error(exc, "opening the spool") from exc

    def new(self) -> Spool:
        """An empty spool.

        Raises:
            NoSpace, LocalFault: It can't be made.
        """
        self._check_room()
        path, fd = self._spares.take()
        return Spool(path=path, size=0, fd=fd, spares=self._spares)

    def write(self, spool: Spool, offset: int, data: bytes) -> None:
        """`Spool.write`, where nothing else needs the disk; raises as that."""
        self._check_room()
        spool.write(offset, data)

    async def copy(self, fd: int, size: int) -> Spool:
        """A spool that begins with the first *size* bytes of *fd*; large copies run in a thread.

        Raises:
            NoSpace, LocalFault: It can't be made; nothing is left of it.
        """
        spool = self.new()
        try:
            if size <= CHUNK:
                copy_bytes(fd, spool.fd, size)
            else:
                await copy_bytes_in_thread(fd, spool.fd, size)
        except BaseException as exc:
            spool.close()
            spool.path.unlink(missing_ok=True)  # at once: the disk may be full
            if isinstance(exc, OSError):
                raise from_os_error(exc, "copying to the spool") from exc
            raise
        spool.size = size
        return spool

    def restore(self, name: str, content: bytes) -> None:
        """Let the spool called *name* hold *content*, whatever a power cut has left of it.

        Raises:
            NoSpace, LocalFault: It can't be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._directory / name, flags, 0o600)
        except OSError as exc:
            raise from_os_error(exc, "restoring a spool") from exc
        spool = Spool(path=self._directory / name, size=0, fd=fd)
        try:
            spool.write(0, content)
        finally:
            spool.close()

    def open(self, name: str) -> Spool | None:
        """The spool called *name* as it was left; None where it is gone."""
        path = self._directory / name
        try:
            return Spool(path=path, size=path.lstat().st_size)
        except OSError:
            return None

    def rescue(self) -> Path | None:
        """Move everything aside: the journal that tells what it is was lost.

        Returns:
            Where it is now; None where there was nothing.
        """
        try:
            for path in self._directory.iterdir():
                if not path.lstat().st_size:
                    path.unlink()
            if not any(self._directory.iterdir()):
                return None
            aside = self._directory.with_name(LOST_SPOOLS.replace("*", secrets.token_hex(4)))
            self._directory.rename(aside)
            self._directory.mkdir(mode=0o700)
        except OSError as exc:
            raise from_os_error(exc, "opening the spool") from exc
        return aside

    async def run(self) -> None:
        """Have new spools made quickly where there are many of them, until cancelled."""
        await self._spares.run()

    def close(self) -> None:
        """Remove what would have become spools."""
        self._spares.close()

    def remove_others(self, names: set[str]) -> None:
        """Remove what no journal entry names: left by a crash between two steps."""
        try:
            for entry in os.scandir(self._directory):
                if entry.name not in names:
                    os.unlink(entry.path)
        except OSError as exc:
            raise from_os_error(exc, "tidying the spool") from exc
