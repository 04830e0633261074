"""`containerfs umount`: unmount, and return when everything that was under way is finished."""

import os
from pathlib import Path

import click

from containerfs import mountpoint, mounts, values
from containerfs.cli.calling import failures_told
from containerfs.mountpoint import MountError

_GRACE = 10.0  # seconds that the process has to end once it waits for nothing any more


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return values.seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not {error}") from error


@click.command()
@click.argument("directory", metavar="DIR", type=Path)  # click.Path would ask a mount that hangs
@click.option(
    "--timeout",
    default="60",
    metavar="SECONDS",
    callback=_seconds,
    help="How long to wait for what is not on the server yet.  [default: 60]",
)
@click.option(
    "--dead", is_flag=True, help="Only detach a mount whose process is gone; else do nothing."
)
def umount(*, directory: Path, timeout: float, dead: bool) -> None:
    """Unmount what containerfs has mounted on the directory DIR.

    Returns when the mount's process has ended, so everything is on the server then. A directory
    that a program still uses stays mounted: that is an error. A dead mount is detached. Exit code
    7: not everything could be sent in time, or deleted from the server where it was replaced, or it
    is not known what arrived of a rename; it is named, kept, and left to the next mount.
    """
    with failures_told():
        path = mountpoint.locate(directory)
        mounted = mountpoint.at(path)
        if dead:
            if mounted and mounted.is_ours and mountpoint.is_dead(path):
                mountpoint.detach(path)
            return
        if mounted is None:
            raise MountError(f"{path}: nothing is mounted here")
        if not mounted.is_ours:
            raise MountError(f"{path}: {mounted.file_system} is mounted here, not containerfs")
        _unmount(path, owner=mounted.owner, timeout=timeout)


def _unmount(path: Path, *, owner: int, timeout: float) -> None:
    """Unmount it; the kernel refuses while it is in use, and its process then ends.

    Whether it lives is asked only then: while a process that hangs is asked, the mount is in use.
    """
    from containerfs.cli.waiting import wait_for_end  # imports trio: not for --help

    mount = mounts.find(path, owner=owner)
    mounts.be_patient(path, timeout)
    try:
        mountpoint.unmount(path)
    except MountError:
        if mountpoint.is_dead(path):
            mountpoint.detach(path)
            return
        mounts.be_patient(path, None)
        raise
    if mount is not None:
        # Root opens no database at a place that another user named.
        wait_for_end(mount, timeout=timeout + _GRACE, is_ours=owner == os.geteuid())
