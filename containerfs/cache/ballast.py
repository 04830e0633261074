"""Disk that is kept for the state database, so that it can always commit.

Where the disk is full, whatever filled it, what gives content up must still be recorded: that is
what makes room. The ballast is a file of a few MiB beside the database, which is let go of then.
Content is written only while it is held, and so can't use what it has left.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

from containerfs.errors import NoSpace, from_os_error

log = logging.getLogger(__name__)

MOST = 4 << 20  # bytes: as much as the database's log takes before it begins anew
SHARE = 16  # of a small disk it takes so much less
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Ballast:
    """The file; it outlives the mount, because the next one must be able to start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_held = False
        with suppress(OSError):
            self._is_held = path.lstat().st_size > 0

    def hold(self) -> None:
        """Have it, before content is written; takes no time where it is there.

        Raises:
            NoSpace: The disk is full.
        """
        if not self._is_held:
            self._take()

    def _take(self) -> None:
        try:
            fd = os.open(self._path, _FLAGS, 0o600)
            try:
                disk = os.fstatvfs(fd)
                os.posix_fallocate(fd, 0, min(MOST, disk.f_blocks * disk.f_frsize // SHARE))
            finally:
                os.close(fd)
        except OSError as exc:
            self.let_go()  # a part of it, too
            failure = from_os_error(exc, "keeping disk for the state database")
            if isinstance(failure, NoSpace):
                raise failure from exc
            # There is none on this disk: content is refused for no such reason.
            log.info("%s", failure)
        self._is_held = True

    def let_go(self) -> None:
        """Give its disk to whoever needs it to go on."""
        self._is_held = False
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
