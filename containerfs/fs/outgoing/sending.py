"""Getting changed files to the server: at close and fsync, or after a moment.

One file's server side is changed by one task at a time (`File.changing`). What is being sent is
frozen: a write that comes meanwhile goes to a copy, so no upload ever mixes two contents.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Collection
from functools import partial

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Content
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import (
    Expired,
    FileSystemError,
    LocalFault,
    NoSpace,
    NotFound,
    TimedOut,
    Uncertain,
)
from containerfs.fs.outgoing.batches import Batches
from containerfs.fs.outgoing.conflicts import Conflicts
from containerfs.fs.outgoing.delivery import Delivery
from containerfs.fs.outgoing.departures import Departures
from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.moves import may_be_named
from containerfs.fs.outgoing.uncertain import UncertainRenames
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.tree import Tree
from containerfs.upload.fingerprint import fingerprint
from containerfs.upload.journal import Entry, Journal, Lost
from containerfs.upload.spool import SMALL, Spool
from containerfs.upload.uploader import PUT_OFF_AFTER, Uploader

log = logging.getLogger(__name__)

SETTLED_AFTER = 0.1  # seconds: what is sent in the background meanwhile is settled at once


class Sending:
    """Sends dirty files, and makes the tree, the caches and the journal agree afterwards."""

    def __init__(
        self,
        *,
        tree: Tree,
        objects: Objects,
        metadata: Metadata,
        state: State,
        store: ContentStore,
        journal: Journal,
        uploader: Uploader,
        departures: Departures,
        delivery: Delivery,
        uncertain: UncertainRenames,
        conflicts: Conflicts,
        keeping: Keeping,
        batches: Batches,
        empty_delay: float,
    ) -> None:
        self._tree = tree
        self._objects = objects
        self._metadata = metadata
        self._state = state
        self._store = store
        self._journal = journal
        self._uploader = uploader
        self._departures = departures
        self._delivery = delivery
        self._uncertain = uncertain
        self._conflicts = conflicts
        self._keeping = keeping
        self._batches = batches
        self._empty_delay = empty_delay
        self._delayed: set[int] = set()
        self._is_settling = False

    async def send(self, file: File) -> None:
        """Return when the server has what *file* held when this was called.

        Raises:
            FileSystemError: It has not; the file stays dirty, and is sent again in the background
                where that can help.
        """
        await self._send(file, alone=True)
        await self._keeping.settle()

    async def _send(self, file: File, *, alone: bool) -> None:
        """`send`; after a power cut the file may be found to be sent again, until it is settled.

        Args:
            alone: As for `upload`.
        """
        asked, hangs = trio.current_time(), file.entry.hangs if file.entry is not None else 0
        async with file.changing:
            if not file.is_dirty or file.parent is None:
                return
            container = self._tree.container_of(file)
            spool, entry = file.spool, file.entry
            assert spool is not None and entry is not None  # noqa: S101, PT018 - it is dirty
            # Who has waited for an attempt that hung does not wait as long again, nor in turn.
            since = asked if entry.hangs > hangs else None
            remote = await self.upload(
                file, container=container, path=file.path, alone=alone, since=since
            )
            try:
                replaced = self.sent(file, container, spool, remote)
            finally:
                spool.thaw()
            self._conflicts.sent(container, file)
            were_there = [
                await self._uploader.delete(container.remote.id, id, patience=PUT_OFF_AFTER)
                for id in replaced
            ]
            if not all(were_there):
                await self._conflicts.resolve(container, file)

    async def upload(
        self,
        file: File,
        *,
        container: ContainerDirectory,
        path: str,
        over: Collection[str] = (),
        alone: bool = True,
        since: float | None = None,
    ) -> RemoteFile:
        """Send the spool of *file* as *path*; `file.changing` is held.

        Args:
            over: The ids of other objects that it may take the place of.
            alone: That it is about to be sent is recorded at once, as somebody waits for this file;
                else in a moment, with others.
            since: As for `Patience.waiting`.

        Returns:
            What the server made of it: for `sent`. The spool stays frozen until the caller has
            recorded that, and thaws it: what is written before would be taken for what was sent.
        """
        spool, entry = file.spool, file.entry
        assert spool is not None and entry is not None  # noqa: S101, PT018 - the caller looked
        if container.is_snapshot:
            expired = Expired(f"container {container.remote.id} has expired")
            self._failed(file, entry, expired, may_be_there=False)
            raise expired
        was_sending = entry.state == "sending"
        if not was_sending:
            await self._batches.commit(
                partial(self._journal.update, entry, state="sending"), alone=alone
            )
        await self._keeping.record(entry)
        spool.freeze()
        remote, before = None, container.listing
        begun, superseded = False, set[str]()
        try:
            async with self._uncertain.sending(container.remote.id, path):
                if was_sending and entry.lost:
                    superseded = await self._find_superseded(container, entry, spool)
                begun = True
                remote = await self._delivery.put(
                    container,
                    path=path,
                    fd=spool.fd,
                    size=spool.size,
                    own=(*file.own_ids, *over),
                    may_be_there=was_sending,
                    others=entry.others,
                    since=since,
                )
        except FileSystemError as exc:
            await self._keeping.try_to_keep(file)
            if begun and may_have_arrived(exc):
                content = await fingerprint(spool.fd, spool.size)
                self._lose(entry, (container.remote.id, path, content))
                if not was_sending and before is not None:
                    entry.others.update(each.id for each in may_be_named(before.entries, path))
            is_lost = may_have_arrived(exc) if begun else was_sending
            self._failed(file, entry, exc, may_be_there=is_lost)
            raise
        finally:
            if remote is None:
                spool.thaw()
        for id in superseded - {remote.id, *file.own_ids}:
            self._metadata.forget(container.remote.id, id)
            await self._uploader.delete(container.remote.id, id, path=path, patience=PUT_OFF_AFTER)
        return remote

    async def _find_superseded(
        self, container: ContainerDirectory, entry: Entry, spool: Spool
    ) -> set[str]:
        """The ids of what has arrived of earlier attempts, where *spool* is newer than that."""
        own = await fingerprint(spool.fd, spool.size)
        contents = defaultdict(set)
        for id, path, content in entry.lost:
            if id == container.remote.id and content != own:
                contents[path].add(content)
        try:
            return {
                each.id
                for path in contents
                for each in await self._delivery.find(
                    container.remote.id, path=path, contents=contents[path], others=entry.others
                )
            }
        except (Expired, NotFound):
            raise
        except FileSystemError as exc:
            raise Uncertain(f"whether {entry.path!r} has arrived is not known: {exc}") from exc

    def _lose(self, entry: Entry, lost: Lost) -> None:
        try:
            self._journal.lose(entry, lost)
        except FileSystemError as exc:
            log.warning("%r: what may have arrived is not recorded: %s", entry.path, exc)
            entry.lost.add(lost)

    def _failed(
        self, file: File, entry: Entry, error: FileSystemError, *, may_be_there: bool
    ) -> None:
        file.error = str(error)
        entry.hangs += isinstance(error, TimedOut)
        state = entry.state if may_be_there else "dirty"
        try:
            self._journal.update(entry, state=state, error=file.error)
        except FileSystemError as exc:
            log.warning("%r: its state could not be recorded: %s", entry.path, exc)
        if error.retriable:
            self._uploader.retry_later(entry, partial(self._send_again, file))

    async def _send_again(self, file: File) -> None:
        """Try *file* again, unless it is open for writing: then its close sends it."""
        if not file.writers:
            try:
                await self.send(file)
            except FileSystemError as exc:
                file.unreported = exc
                raise

    def sent(
        self, file: File, container: ContainerDirectory, spool: Spool, remote: RemoteFile
    ) -> list[str]:
        """The server has *spool* as *remote*: make everything here agree.

        Returns:
            Ids of the objects that it replaced; they are hidden, and recorded to be deleted.
        """
        entry = file.entry
        assert entry is not None  # noqa: S101 - it was just sent
        replaced = [id for id in file.own_ids if id != remote.id]
        is_newest = file.spool is spool
        with self._state.transaction():
            if is_newest:
                self._journal.forget(entry)
            else:
                self._journal.update(entry, state="dirty", replaces=(remote.id,), error=None)
                self._journal.found(entry, entry.lost)
            self.replace_remote(file, container, remote, replaced)
            self._state.after_commit(partial(self._let_go, file, spool, remote))
        return replaced

    def _let_go(self, file: File, spool: Spool, remote: RemoteFile) -> None:
        """The journal does not name *spool* any more."""
        file.error = file.unreported = None
        if file.entry is not None:
            file.entry.failures = 0
        if file.spool is spool:
            file.spool = file.entry = None
            self._keep_content(file, spool, remote)
        else:
            spool.discard()

    def replace_remote(
        self, file: File, container: ContainerDirectory, remote: RemoteFile, replaced: list[str]
    ) -> None:
        """Let *file* be *remote* from now on; *replaced* objects are hidden and to be deleted."""
        self._metadata.learn(remote)
        for id in replaced:
            self._metadata.forget(container.remote.id, id)
            self._journal.delete_later(container.remote.id, id, path=file.path)
        self._objects.adopt_remote(container, file, remote)
        self._tree.local(file)
        self._tree.save(file)
        if self._uploader.may_be_twice(remote.id):
            self._conflicts.sent(container, file)

    def _keep_content(self, file: File, spool: Spool, remote: RemoteFile) -> None:
        """An upload is its own download: the spool becomes the cached content."""
        size = spool.size
        file.true_size = size if remote.size is None else None
        if file.content is not None:
            self._store.unpin(file.content)
            file.content = None
        try:
            content = self._kept(spool, remote)
        except (NoSpace, LocalFault) as exc:
            log.warning("%s", exc)
            spool.discard()
            return
        if file.opens:
            file.content = content
        else:
            self._store.unpin(content)

    def _kept(self, spool: Spool, remote: RemoteFile) -> Content:
        """What the cache makes of *spool*, pinned; a small one is copied to beside others."""
        size = spool.size
        if size != remote.size or not 0 < size <= SMALL:
            content = self._store.adopt(spool.path, spool.fd, remote, size=size)
            spool.hand_over()
            return content
        content = self._store.keep(remote, spool.read(0, size))
        spool.discard()
        return content

    # Not at once.

    def send_soon(self, file: File, *, after: float | None = None) -> None:
        """Send *file* in the background: an empty one only if it is still empty after a moment.

        Args:
            after: Seconds that it may wait, where it was closed without being sent.
        """
        entry = file.entry
        if entry is None or not file.is_dirty or entry.id in self._delayed:
            return
        self._delayed.add(entry.id)
        delay = max(self._empty_delay, after or 0.0) if file.size == 0 else after or 0.0
        self._departures.add(partial(self._depart, file, entry, after), after=delay)

    async def _depart(self, file: File, entry: Entry, after: float | None) -> None:
        self._delayed.discard(entry.id)
        if file.writers and file.size and after is None:
            return  # its close sends it
        await self.send_quietly(file)

    async def send_quietly(self, file: File) -> None:
        """Send it for nobody who waits: a failure is for who closes or syncs it next."""
        try:
            await self._send(file, alone=False)
            self._settle_soon()
        except FileSystemError as exc:
            file.error, file.unreported = str(exc), exc
            log.warning("%r is not on the server: %s", file.path, exc)
        except Exception:  # a bug: the journal keeps the file, and the mount lives on
            log.exception("sending %r failed", file.path)

    def _settle_soon(self) -> None:
        """Settle what was sent for nobody who waits, with what else is sent meanwhile."""
        if not self._is_settling:
            self._is_settling = True
            self._departures.aside(self._settle, after=SETTLED_AFTER)

    async def _settle(self) -> None:
        self._is_settling = False
        await self._keeping.try_to_settle()

    async def send_below(self, directory: Directory) -> None:
        """Send every dirty file below *directory*, many at once; then what is kept here only, such
        as modes, links and empty directories, survives a power cut too.

        Raises:
            FileSystemError: The first failure of those that still are dirty, once all were tried,
                or as many hang as are tried at one time.
        """
        failed: list[tuple[File, FileSystemError]] = []
        files = deque(node for node in directory.walk() if isinstance(node, File) and node.is_dirty)
        is_single = len(files) == 1

        async def work() -> None:
            while files:
                file = files.popleft()
                try:
                    await self._send(file, alone=is_single)
                except FileSystemError as exc:
                    failed.append((file, exc))
                    if isinstance(exc, TimedOut):
                        return  # what is left would hang as long, and one after the other

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(files), self._departures.most)):
                nursery.start_soon(work)
        for file, error in (*failed, *((file, failed[0][1]) for file in files)):
            if file.is_dirty and file.parent is not None:  # else it was sent again meanwhile
                await self._keeping.settle()
                raise error
        await self._keeping.sync()


def may_have_arrived(error: FileSystemError) -> bool:
    """Whether the server may have what could not be sent."""
    return isinstance(error, Uncertain | TimedOut)
