"""Runs the whole mount, and stops it.

A clean stop answers what is under way, unmounts, and sends what is still unsent. After a crash the
mount point stays dead: an empty directory in its place would invite others to delete by it.
"""

import logging
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pyfuse3
import trio

from containerfs import accounts, systemd
from containerfs.accounts import Account
from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.assembly import STOP_TIMEOUT, Mount
from containerfs.fs.kernel.receiving import Receiving
from containerfs.fs.operations import Operations
from containerfs.mountpoint import MountError, read_far_ahead
from containerfs.options import Options

log = logging.getLogger(__name__)

MOST_REQUESTS = 1_000  # of the kernel's, answered at one time: a hung one does not stop the others
FEW_FILES = 1_024  # that the system lets a mount have open
TELL_INTERVAL = 0.25  # seconds from one telling of what is unsent to the next


async def run(
    *,
    options: Options,
    connection: Connection,
    account: str,
    mountpoint: Path,
    source: str,
    ready: Callable[[], None],
    patience: Callable[[], float | None],
    tell: Callable[[int, int], None] | None,
) -> None:
    """Mount, serve until it is unmounted or told to stop (SIGINT, SIGTERM, SIGHUP), and clean up.

    Args:
        account: Name of the folder below the cache directory that is this account's.
        source: What is mounted, as the mount command was given it.
        ready: Called once, when the mount can be used.
        patience: Says in the end how many seconds to wait for what is unsent; None for as long as
            is usual. A further signal ends the waiting.
        tell: Told now and then, while it waits, how many files are unsent, and their bytes.

    Raises:
        Busy: Another mount uses the account's state.
        FileSystemError: The server can't be reached, or the local state not be opened.
        MountError: The kernel refused the mount.
    """
    _raise_descriptor_limit()
    directory = options.cache_dir / account
    with ExitStack() as stack:
        stack.enter_context(accounts.locked(directory))
        accounts.remember(Account(directory=directory, mountpoint=str(mountpoint), source=source))
        state = stack.enter_context(accounts.opened(directory))
        async with connect(connection) as client, trio.open_nursery() as nursery:
            await nursery.start(client.open_ahead)
            mount = Mount(
                client=client,
                state=state,
                directory=directory,
                options=options,
                mountpoint=mountpoint,
                nursery=nursery,
            )
            await mount.check()
            nursery.start_soon(mount.recovery.recover)
            nursery.start_soon(mount.outstanding.run)
            nursery.start_soon(mount.store.run)
            nursery.start_soon(mount.spools.run)
            async with _mounted(mount.operations, mountpoint, fuse_options(options, source)):
                log.info("%s is mounted on %s", source, mountpoint)
                await _serve(ready, mount, mountpoint, client)
                systemd.notify(systemd.STOPPING)
            seconds = patience()
            await _stop(mount, patience=STOP_TIMEOUT if seconds is None else seconds, tell=tell)
            nursery.cancel_scope.cancel()


async def send_unsent(options: Options, connection: Connection, account: Account) -> None:
    """Without mounting, send what of *account* is unsent; what can't be sent is kept.

    What an earlier mount was in the middle of is ended.

    Raises:
        Busy: A mount uses the account's state.
        FileSystemError: The server can't be asked.
    """
    with accounts.locked(account.directory), accounts.opened(account.directory) as state:
        async with connect(connection) as client, trio.open_nursery() as nursery:
            mount = Mount(
                client=client,
                state=state,
                directory=account.directory,
                options=options,
                mountpoint=Path(account.mountpoint),
                nursery=nursery,
            )
            await mount.check()  # first, as a mount does: what was cut off is no file to send
            await mount.recovery.show_unsent()
            await mount.stop()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _mounted(
    operations: Operations, mountpoint: Path, options: set[str]
) -> AsyncIterator[None]:
    """Mount inside; unmount only after a clean end."""
    try:
        pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as exc:
        raise MountError(f"{mountpoint} could not be mounted: {exc}") from exc
    try:
        yield
    except BaseException:
        pyfuse3.close(unmount=False)
        raise
    pyfuse3.close(unmount=True)


def fuse_options(options: Options, source: str) -> set[str]:
    """What libfuse is told.

    The kernel shows the source as it was given: by it `mount -a` knows that an entry of fstab is
    mounted. Its colon makes df count the mount as remote (`df -l` leaves it out), as it does with
    sshfs and rclone.
    """
    name = source.replace("\\", "\\\\").replace(",", "\\,")  # as libfuse's fuse_opt_parse reads it
    chosen = {"default_permissions", f"fsname={name}", "subtype=containerfs"}
    if options.allow_other:
        chosen.add("allow_other")
    if options.ro:
        chosen.add("ro")
    if not options.exec:
        chosen.add("noexec")
    return chosen


async def _serve(ready: Callable[[], None], mount: Mount, mountpoint: Path, client: Client) -> None:
    """Answer the kernel until the file system is unmounted or a signal tells to stop.

    What is under way then is answered first, unless a second signal ends that, too.
    """

    async def begun() -> None:
        read_far_ahead(mountpoint)

    def cut_off() -> None:
        mount.hurry()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        # Not before: the kernel sets it itself when the first request was answered.
        mount.operations.on_init = lambda: nursery.start_soon(begun)
        await nursery.start(_at_signals, pyfuse3.terminate, cut_off)
        ready()  # not before: who is told may send a signal at once
        pyfuse3.trio = Receiving(is_busy=lambda: client.is_busy)  # type: ignore[attr-defined]  # as its asyncio support does
        await pyfuse3.main(min_tasks=4, max_tasks=MOST_REQUESTS)
        nursery.cancel_scope.cancel()


async def _stop(mount: Mount, *, patience: float, tell: Callable[[int, int], None] | None) -> None:
    """Stop the mount; a signal ends its waiting for the server, and loses nothing."""
    async with trio.open_nursery() as nursery:
        await nursery.start(_at_signals, mount.hurry)
        if tell is not None:
            nursery.start_soon(_tell, mount, tell)
        await mount.stop(patience=patience)
        nursery.cancel_scope.cancel()


async def _tell(mount: Mount, tell: Callable[[int, int], None]) -> None:
    while True:
        await trio.sleep(TELL_INTERVAL)
        tell(*mount.unsent())


async def _at_signals(
    *acts: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Do one thing at each signal; those that come later change nothing."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        left = iter(acts)
        async for number in signals:
            log.info("stopping at signal %d", number)
            next(left, _nothing)()


def _nothing() -> None: ...


def _raise_descriptor_limit() -> None:
    """Each open file of the mount needs a descriptor here: take what the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < FEW_FILES:
        log.warning("no more than %d files can be open, some of them ours (ulimit -Hn)", hard)
