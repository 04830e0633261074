"""Builds the whole mount, runs it, and stops it.

Everything is made here and handed down; nothing below knows where it came from. A clean stop
answers what is under way, unmounts, and sends what is still unsent. After a crash the mount point
stays dead: an empty directory in its place would invite others to delete by it.
"""

import logging
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pyfuse3
import trio

from containerfs import accounts, systemd
from containerfs.accounts import Account
from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import Downloads
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State, open_state
from containerfs.errors import FileSystemError
from containerfs.fs.attributes import Owner, now_ns
from containerfs.fs.backups import Backups
from containerfs.fs.changes import Changes
from containerfs.fs.files import Files
from containerfs.fs.inodes import Inodes
from containerfs.fs.namespace import Namespace
from containerfs.fs.nodes import Directory
from containerfs.fs.notifying import Notifier
from containerfs.fs.operations import Operations
from containerfs.fs.patience import Patience
from containerfs.fs.patterns import NamePatterns
from containerfs.fs.prefetch import Prefetch
from containerfs.fs.renaming import Renaming
from containerfs.fs.sending import Sending
from containerfs.fs.settling import Settling
from containerfs.fs.writeback import WriteBack
from containerfs.fs.xattrs import Xattrs
from containerfs.mountpoint import MountError
from containerfs.options import Options
from containerfs.upload.intents import Intents
from containerfs.upload.journal import Journal
from containerfs.upload.spool import SpoolDirectory
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

MOST_REQUESTS = 1_000  # of the kernel's, answered at one time: a hung one does not stop the others
STOP_TIMEOUT = 60.0  # seconds that a clean stop waits for unsent files


async def run(
    *,
    options: Options,
    connection: Connection,
    account: str,
    mountpoint: Path,
    source: str,
    ready: Callable[[], None],
) -> None:
    """Mount, serve until it is unmounted or told to stop (SIGINT, SIGTERM, SIGHUP), and clean up.

    Args:
        account: Name of the folder below the cache directory that is this account's.
        source: What is mounted, as the mount command was given it.
        ready: Called once, when the mount can be used.

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
        is_new = not (directory / accounts.STATE).exists()
        state = stack.enter_context(open_state(directory / accounts.STATE))
        if is_new:
            _rescue_spool(directory)
        async with connect(connection) as client, trio.open_nursery() as nursery:
            mount = Mount(
                client=client,
                state=state,
                directory=directory,
                options=options,
                mountpoint=mountpoint,
                nursery=nursery,
            )
            await mount.check()
            nursery.start_soon(mount.sending.recover)
            nursery.start_soon(mount.uploader.run)
            async with _mounted(mount.operations, mountpoint, options):
                log.info("%s is mounted on %s", source, mountpoint)
                await _serve(ready)
                systemd.notify(systemd.STOPPING)
            await mount.stop()
            nursery.cancel_scope.cancel()


async def send_unsent(options: Options, connection: Connection, account: Account) -> None:
    """Without mounting, send what of *account* is unsent; what can't be sent is kept.

    Raises:
        Busy: A mount uses the account's state.
        FileSystemError: The server can't be asked.
    """
    with (
        accounts.locked(account.directory),
        open_state(account.directory / accounts.STATE) as state,
    ):
        async with connect(connection) as client, trio.open_nursery() as nursery:
            mount = Mount(
                client=client,
                state=state,
                directory=account.directory,
                options=options,
                mountpoint=Path(account.mountpoint),
                nursery=nursery,
            )
            await mount.sending.show_unsent()
            await mount.stop()
            nursery.cancel_scope.cancel()


def _rescue_spool(directory: Path) -> None:
    """Keep unsent content whose journal was lost, before the mount begins with an empty one."""
    aside = SpoolDirectory(directory / "spool").rescue()
    if aside is not None:
        log.error("the state was lost: unsent content, without its names, is in %s", aside)


class Mount:
    """The parts of one mount, put together."""

    def __init__(
        self,
        *,
        client: Client,
        state: State,
        directory: Path,
        options: Options,
        mountpoint: Path,
        nursery: trio.Nursery,
    ) -> None:
        connection = state.connection
        self._journal = Journal(connection, on_rollback=state.on_rollback)
        intents = Intents(connection, on_rollback=state.on_rollback)
        self._spools = SpoolDirectory(directory / "spool")
        self._spools.remove_others({entry.spool for entry in self._journal.entries})
        self._store = ContentStore(
            directory=directory / "content", connection=connection, limit=options.cache_size
        )
        self._metadata = Metadata(client=client, state=state, ttl=options.ttl, nursery=nursery)
        downloads = Downloads(
            client=client, store=self._store, nursery=nursery, max_size=_largest(options)
        )
        self.uploader = Uploader(client=client, journal=self._journal, nursery=nursery)
        self.namespace = Namespace(
            metadata=self._metadata,
            state=state,
            journal=self._journal,
            spools=self._spools,
            inodes=Inodes(),
            show_expired=options.show_expired,
            raw_names=options.raw_names,
            on_change=_notifier(options, mountpoint, nursery),
        )
        patience = Patience(options.op_timeout)
        self.sending = Sending(
            namespace=self.namespace,
            metadata=self._metadata,
            state=state,
            store=self._store,
            journal=self._journal,
            uploader=self.uploader,
            nursery=nursery,
            patience=patience,
            empty_delay=options.empty_delay,
        )
        write_back = WriteBack(
            sending=self.sending, journal=self._journal, state=state, delay=options.write_back
        )
        scratch = NamePatterns(options.scratch)
        files = Files(
            namespace=self.namespace,
            sending=self.sending,
            state=state,
            store=self._store,
            downloads=downloads,
            journal=self._journal,
            spools=self._spools,
            scratch=scratch,
            transient=NamePatterns(options.transient),
            transient_delay=options.empty_delay,
            patience=patience,
            prefetch=Prefetch(
                downloads=downloads,
                store=self._store,
                nursery=nursery,
                largest=options.prefetch_small,
            ),
            write_back=write_back,
            max_file_size=options.max_file_size,
            mountpoint=mountpoint,
        )
        changes = Changes(
            namespace=self.namespace,
            files=files,
            metadata=self._metadata,
            store=self._store,
            uploader=self.uploader,
            client=client,
            containers_are_fixed=options.containers == "fixed",
            container_settings={
                "memory_limit": options.memory_limit,
                "expires_after": options.expires_after,
                "network_policy": options.network_policy,
            },
        )
        renaming = Renaming(
            namespace=self.namespace,
            files=files,
            changes=changes,
            sending=self.sending,
            metadata=self._metadata,
            state=state,
            store=self._store,
            journal=self._journal,
            intents=intents,
            uploader=self.uploader,
            scratch=scratch,
            limit=options.rename_limit,
            sends_at_once=not write_back.is_on,
        )
        self._settling = Settling(
            intents=intents,
            journal=self._journal,
            metadata=self._metadata,
            state=state,
            store=self._store,
            spools=self._spools,
            uploader=self.uploader,
        )
        self._backups = Backups(
            namespace=self.namespace, files=files, uploader=self.uploader, scratch=scratch
        )
        self.operations = Operations(
            namespace=self.namespace,
            files=files,
            changes=changes,
            renaming=renaming,
            sending=self.sending,
            xattrs=Xattrs(namespace=self.namespace),
            owner=Owner(uid=options.uid, gid=options.gid, umask=options.umask, born=now_ns()),
            op_timeout=options.op_timeout,
        )

    async def check(self) -> None:
        """Ask the server for its containers once, so that a mount that can't work is refused.

        A server that can't be reached is no reason, as long as an earlier listing is here. What
        an earlier mount was in the middle of is ended.
        """
        await self.namespace.refresh(self.namespace.root)
        await self._settling.settle()

    async def stop(self) -> None:
        """Send what is unsent, for a limited time, and keep the rest and the caches in order."""
        with trio.move_on_after(STOP_TIMEOUT):
            try:
                await self.sending.send_below(self.namespace.root)
            except FileSystemError as exc:
                log.warning("not everything could be sent: %s", exc)
            await self._backups.retire()
            await self.uploader.delete_recorded()
        for entry in self._journal.entries:
            if not entry.held:
                log.warning("%r is kept here and sent by the next mount", entry.path)
        self._metadata.save()
        self._store.save()


def _largest(options: Options) -> int:
    """The longest body that is taken where no length was declared."""
    return max(options.max_file_size, options.cache_size)


def _notifier(
    options: Options, mountpoint: Path, nursery: trio.Nursery
) -> Callable[[Iterable[Directory]], None]:
    if options.notify == "utime":
        return Notifier(mountpoint=mountpoint, nursery=nursery).changed
    return lambda _: None


@asynccontextmanager
async def _mounted(
    operations: Operations, mountpoint: Path, options: Options
) -> AsyncIterator[None]:
    """Mount inside; unmount only after a clean end."""
    try:
        pyfuse3.init(operations, str(mountpoint), fuse_options(options))
    except RuntimeError as exc:
        raise MountError(f"{mountpoint} could not be mounted: {exc}") from exc
    try:
        yield
    except BaseException:
        pyfuse3.close(unmount=False)
        raise
    pyfuse3.close(unmount=True)


def fuse_options(options: Options) -> set[str]:
    """What libfuse is told; no colon in the name, or the mount counts as remote."""
    chosen = {"default_permissions", "fsname=containerfs", "subtype=containerfs"}
    if options.allow_other:
        chosen.add("allow_other")
    if options.ro:
        chosen.add("ro")
    return chosen


async def _serve(ready: Callable[[], None]) -> None:
    """Answer the kernel until the file system is unmounted or a signal tells to stop."""
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_at_signal)
        ready()  # not before: who is told may send a signal at once
        await pyfuse3.main(min_tasks=4, max_tasks=MOST_REQUESTS)
        nursery.cancel_scope.cancel()


async def _stop_at_signal(
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping at signal %d", number)
            pyfuse3.terminate()
            return


def _raise_descriptor_limit() -> None:
    """Each open file of the mount needs a descriptor here: take what the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
