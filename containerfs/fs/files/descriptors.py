"""Finds out whether a file of the mount is still open somewhere, without asking the mount."""

import os
from pathlib import Path

import trio

PATIENCE = 0.2  # seconds that a look may take


async def is_open_elsewhere(path: Path) -> bool:
    """Whether a process has a descriptor of *path* open.

    A descriptor that is being closed has left its process's table before the file system is told
    (close(2) in the kernel: filp_close after the entry is cleared), so it does not count.
    Links in /proc are read, never followed: a stat would come back to this process.

    A look that takes long is given up, and the answer is no: a process in execve(2) closes its
    files while nobody can read its links (exec_update_lock), and waits for the file system to
    answer the very close that asks this.
    """
    with trio.move_on_after(PATIENCE):
        return await trio.to_thread.run_sync(_scan, os.fsencode(path), abandon_on_cancel=True)
    return False


def _scan(path: bytes) -> bool:
    own = str(os.getpid())
    for process in os.listdir("/proc"):
        if not process.isdigit() or process == own:
            continue
        directory = f"/proc/{process}/fd"
        try:
            descriptors = os.listdir(directory)
        except OSError:  # gone, or another user's
            continue
        for descriptor in descriptors:
            try:
                if os.readlink(os.fsencode(f"{directory}/{descriptor}")) == path:
                    return True
            except OSError:
                continue
    return False
