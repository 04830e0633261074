"""Lets programs that watch a directory of the mount see what others changed on the server.

The kernel has no message by which a file system could raise an inotify event, but it raises
IN_ATTRIB for a directory whose times are set through the mount. So that is done, by a thread of
this process, after a listing that differed; the request it causes is answered and changes nothing.

Source: inotify(7), "Limitations and caveats"; fsnotify is called by notify_change, not by FUSE.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import trio

from containerfs.fs.tree.nodes import Directory

log = logging.getLogger(__name__)

PARALLEL = 4  # threads that touch directories at one time


class Notifier:
    """Touches changed directories, one task for each."""

    def __init__(self, *, mountpoint: Path, nursery: trio.Nursery) -> None:
        self._mountpoint = mountpoint
        self._nursery = nursery
        self._threads = trio.CapacityLimiter(PARALLEL)

    def changed(self, directories: Iterable[Directory]) -> None:
        """Raise IN_ATTRIB for those of *directories* that the kernel knows."""
        for directory in directories:
            container = directory.container
            if directory.nlookup and container is not None:
                path = self._mountpoint / container.name / directory.path
                self._nursery.start_soon(self._touch, path)

    async def _touch(self, path: Path) -> None:
        try:
            await trio.to_thread.run_sync(
                os.utime, path, limiter=self._threads, abandon_on_cancel=True
            )
        except OSError as exc:
            log.info("%s was not touched: %s", path, exc)


def is_own_thread(pid: int) -> bool:
    """Whether a request comes from a thread of this process.

    The kernel tells the thread's id, not the process's. Source: fuse_force_creds, task_pid.
    """
    return Path(f"/proc/self/task/{pid}").exists()
