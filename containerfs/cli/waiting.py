"""Waits for the process of a mount that was unmounted, and shows what it has still to do."""

import time
from contextlib import suppress

from containerfs import mounts
from containerfs.accounts import Account
from containerfs.cli.pending import account_of, check_nothing_remains
from containerfs.cli.unsentline import INTERVAL, unsent_line
from containerfs.errors import FileSystemError
from containerfs.mountpoint import MountError
from containerfs.mounts import Mount
from containerfs.unsent import find


def wait_for_end(mount: Mount, *, timeout: float, is_ours: bool) -> None:
    """Return when the process has ended, and everything is on the server.

    Args:
        timeout: Seconds.
        is_ours: Whether this user mounted it, so that what is unsent may be looked at.

    Raises:
        DataRemains: Something is not.
        MountError: The process still runs.
    """
    account = account_of(mount) if is_ours else None
    has_ended = _wait(mount, account, timeout=timeout)
    note = "" if has_ended else f" (process {mount.pid} is still at work)"
    if account is not None:
        check_nothing_remains([account], note=note)
    if not has_ended:
        raise MountError(f"{mount.mountpoint}: unmounted, but process {mount.pid} is still at work")


def _wait(mount: Mount, account: Account | None, *, timeout: float) -> bool:
    with unsent_line() as tell:
        if tell is None or account is None:
            return mounts.wait_until_gone(mount, timeout=timeout)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if mounts.wait_until_gone(mount, timeout=min(left, INTERVAL)):
                return True
            with suppress(FileSystemError):  # the process may be closing its database
                due = [each for each in find(account) if each.is_due]
                tell(len(due), sum(each.size or 0 for each in due))
    return False
