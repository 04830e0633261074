"""Empty files that are ready to become spools.

To make a file takes a disk longer than to write a small one, and many times as long where many were
removed shortly before (ext4 looks for an inode that was not freed in the last minute). So the file
of a spool that is not needed any more becomes the next one, and while many are being made a thread
makes some ahead.

A power cut may bring back the journal's record of the old spool: its file is used again only once
that can't happen any more.
"""

import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from containerfs.errors import FileSystemError, from_os_error

log = logging.getLogger(__name__)

MOST = 64  # spares that are kept
MOST_DOOMED = 256  # that wait for a thread to remove them
AHEAD = 32  # files that are made at once, ahead
BURST = 0.05  # seconds between two spools that are made for a third to be expected
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Spares:
    """The empty files of one directory that no spool uses, and how more are made."""

    def __init__(self, directory: Path, *, sync: Callable[[], Awaitable[None]]) -> None:
        """Args:
        sync: Has all that was recorded in the journal so far survive a power cut.
        """
        self._directory = directory
        self._sync = sync
        self._ready: deque[tuple[Path, int]] = deque()  # with their descriptors
        self._given: deque[tuple[Path, int]] = deque()  # the same, before they are
        self._doomed: deque[Path] = deque()  # closed, and still to be removed
        self._made_at = 0.0  # when a file was last needed that was not ready
        self._are_wanted = trio.Event()
        self._is_closed = False

    def take(self) -> tuple[Path, int]:
        """An empty file and its open descriptor; the caller owns both.

        Raises:
            NoSpace, LocalFault: It can't be made.
        """
        while self._ready:
            path, fd = self._ready.popleft()
            if len(self._ready) + len(self._given) < AHEAD and self._is_burst():
                self._are_wanted.set()
            if os.fstat(fd).st_nlink:
                return path, fd
            os.close(fd)  # somebody removed it
        if self._is_burst():
            self._are_wanted.set()
        try:
            return self._make()
        except OSError as exc:
            raise from_os_error(exc, "making a spool") from exc

    def _is_burst(self) -> bool:
        before, self._made_at = self._made_at, time.monotonic()
        return self._made_at - before < BURST

    @property
    def _is_in_burst(self) -> bool:
        return time.monotonic() - self._made_at < BURST

    def _make(self) -> tuple[Path, int]:
        path = self._directory / secrets.token_hex(16)
        return path, os.open(path, _FLAGS, 0o600)

    def give(self, path: Path, fd: int) -> None:
        """Take over a file that no spool uses any more; it is emptied, or removed in a moment."""
        if self._is_closed or len(self._doomed) >= MOST_DOOMED:
            _remove(path, fd)
        elif len(self._ready) + len(self._given) < MOST:
            self._given.append((path, fd))
            if len(self._given) >= AHEAD:
                self._are_wanted.set()
        else:
            os.close(fd)
            self._doomed.append(path)
            if len(self._doomed) >= AHEAD:
                self._are_wanted.set()

    async def _use_given(self) -> None:
        """Have what was given so far ready for new spools."""
        count = len(self._given)
        try:
            await self._sync()
        except FileSystemError as exc:
            log.info("no spool can be used again: %s", exc)
            return
        for _ in range(min(count, len(self._given))):
            path, fd = self._given.popleft()
            try:
                os.ftruncate(fd, 0)
            except OSError:  # the disk: then it is no spare
                _remove(path, fd)
            else:
                self._ready.append((path, fd))

    async def run(self) -> None:
        """Make files ahead while many are needed, until cancelled; then there are none."""
        try:
            while True:
                await self._are_wanted.wait()
                self._are_wanted = trio.Event()
                if len(self._given) >= AHEAD or (self._given and not self._ready):
                    await self._use_given()
                if len(self._ready) < AHEAD and self._is_in_burst:
                    await trio.to_thread.run_sync(self._make_some)
                if self._doomed:
                    await trio.to_thread.run_sync(self._remove_doomed)
        finally:
            self.close()

    def _make_some(self) -> None:
        try:
            for _ in range(AHEAD):
                self._ready.append(self._make())
        except OSError:  # who needs one is told
            pass

    def _remove_doomed(self) -> None:
        while self._doomed:
            _unlink(self._doomed.popleft())

    def close(self) -> None:
        """Remove all that there are, and keep none from now on."""
        self._is_closed = True
        for files in (self._ready, self._given):
            while files:
                _remove(*files.popleft())
        self._remove_doomed()


def _remove(path: Path, fd: int) -> None:
    os.close(fd)
    _unlink(path)


def _unlink(path: Path) -> None:
    with suppress(OSError):  # the next mount does
        path.unlink(missing_ok=True)
