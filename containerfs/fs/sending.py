"""Getting changed files to the server: at close and fsync, after a moment, and after a crash.

One file's server side is changed by one task at a time (`File.changing`). What is being sent is
frozen: a write that comes meanwhile goes to a copy, so no upload ever mixes two contents.
"""

import logging
from contextlib import suppress
from functools import partial

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import (
    Expired,
    FileSystemError,
    Invalid,
    LocalFault,
    NotFound,
    TimedOut,
    Uncertain,
)
from containerfs.fs.names import is_upload, stripped, upload_name
from containerfs.fs.namespace import Namespace
from containerfs.fs.nodes import ContainerDirectory, Directory, File
from containerfs.fs.patience import Patience
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.spool import Spool
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

RECOVERY_RETRY = 15.0  # seconds between attempts to reach the server for what a crash left unsent


class Sending:
    """Sends dirty files, and makes the tree, the caches and the journal agree afterwards."""

    def __init__(
        self,
        *,
        namespace: Namespace,
        metadata: Metadata,
        state: State,
        store: ContentStore,
        journal: Journal,
        uploader: Uploader,
        nursery: trio.Nursery,
        patience: Patience,
        empty_delay: float,
    ) -> None:
        self._namespace = namespace
        self._metadata = metadata
        self._state = state
        self._store = store
        self._journal = journal
        self._uploader = uploader
        self._nursery = nursery
        self._patience = patience
        self._empty_delay = empty_delay
        self._delayed: set[int] = set()
        self._flat: set[str] = set()  # containers that refuse slashes in names
        self._deep: set[str] = set()  # containers that were seen to keep them

    async def send(self, file: File) -> None:
        """Return when the server has what *file* held when this was called.

        Raises:
            FileSystemError: It has not; the file stays dirty, and is sent again in the background
                where that can help.
        """
        async with file.changing:
            if not file.is_dirty or file.parent is None:
                return
            container = self._namespace.container_of(file)
            spool, entry = file.spool, file.entry
            assert spool is not None and entry is not None  # noqa: S101, PT018 - it is dirty
            remote = await self.upload(file, container=container, path=file.path)
            replaced = self.sent(file, container, spool, remote)
            for id in replaced:
                if not await self._uploader.delete(container.remote.id, id):
                    await self._resolve_conflict(container, file, lost=id)

    async def upload(self, file: File, *, container: ContainerDirectory, path: str) -> RemoteFile:
        """Send the spool of *file* as *path*; `file.changing` is held.

        Returns:
            What the server made of it: for `sent`.
        """
        spool, entry = file.spool, file.entry
        assert spool is not None and entry is not None  # noqa: S101, PT018 - the caller looked
        if container.is_snapshot:
            expired = Expired(f"container {container.remote.id} has expired")
            self._failed(file, entry, expired)
            raise expired
        was_sending = entry.state == "sending"
        self._journal.update(entry, state="sending")
        spool.freeze()
        try:
            remote = await self.put(
                container,
                path=path,
                fd=spool.fd,
                size=spool.size,
                may_be_there=was_sending,
            )
        except FileSystemError as exc:
            self._failed(file, entry, exc)
            raise
        finally:
            spool.thaw()
        return remote

    async def put(
        self,
        container: ContainerDirectory,
        *,
        path: str,
        fd: int,
        size: int,
        may_be_there: bool = False,
    ) -> RemoteFile:
        """Send *size* bytes of *fd* as *path*; changes nothing but the server.

        A server that refuses slashes in names gets the base name: the directory is kept here.
        """
        name = upload_name(path)
        base = name.rpartition("/")[2]
        if container.remote.id in self._flat:
            name = base
        with self._patience.waiting(f"sending {path!r}") as progress:
            send = partial(
                self._uploader.send,
                container_id=container.remote.id,
                fd=fd,
                size=size,
                known=partial(self._own_ids, container),
                is_named=partial(self._is_named, container, name),
                may_be_there=may_be_there,
                progress=progress,
            )
            try:
                remote = await send(name=name)
            except Expired:
                self._namespace.expire(container)
                raise
            except Invalid:
                if name == base or container.remote.id in self._deep:
                    raise  # it is not the slashes
                remote = await send(name=base)
                self._flat.add(container.remote.id)
        if len(stripped(remote.path, id=remote.id) or ()) > 1:
            self._deep.add(container.remote.id)
        return remote

    def _is_named(self, container: ContainerDirectory, name: str, file: RemoteFile) -> bool:
        """Whether *file* has the path that an upload as *name* gets, or its base name alone."""
        may_be_flat = container.remote.id not in self._deep
        return is_upload(file.path, name, id=file.id, may_be_flat=may_be_flat)

    def _own_ids(self, container: ContainerDirectory) -> set[str]:
        """The objects of *container* that are known to be something that was sent before."""
        remembered = self._state.nodes(container.remote.id).values()
        return {local.file_id for local in remembered if local.file_id is not None}

    def _failed(self, file: File, entry: Entry, error: FileSystemError) -> None:
        file.error = str(error)
        state = entry.state if isinstance(error, Uncertain | TimedOut) else "dirty"
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
        replaced = [
            id for id in dict.fromkeys((*entry.replaces, *file.remote_ids)) if id != remote.id
        ]
        is_newest = file.spool is spool
        with self._state.transaction():
            if is_newest:
                self._journal.forget(entry)
            else:
                self._journal.update(entry, state="dirty", replaces=(remote.id,), error=None)
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
            self._journal.delete_later(container.remote.id, id)
        self._namespace.adopt_remote(container, file, remote)
        self._namespace.local(file)
        self._namespace.save(file)

    def _keep_content(self, file: File, spool: Spool, remote: RemoteFile) -> None:
        """An upload is its own download: the spool becomes the cached content."""
        size = spool.size
        file.true_size = size if remote.size is None else None
        if file.content is not None:
            self._store.unpin(file.content)
            file.content = None
        try:
            content = self._store.adopt(spool.path, spool.fd, remote, size=size)
        except LocalFault as exc:
            log.warning("%s", exc)
            spool.discard()
            return
        spool.hand_over()
        if file.opens:
            file.content = content
        else:
            self._store.unpin(content)

    async def _resolve_conflict(
        self, container: ContainerDirectory, file: File, *, lost: str
    ) -> None:
        """Somebody replaced the object that *file* was opened from: the last upload wins.

        Whoever finds this out deletes all but the newest, by the server's own order: so several
        who do it at once agree, and never delete each other's.
        """
        remote = file.remote
        if remote is None or file.parent is None:
            return
        try:
            listed = (await self._metadata.files(container.remote.id, fresh=True)).entries
        except FileSystemError as exc:
            log.warning("container %s: %s", container.remote.id, exc)
            return
        rivals = self._rivals(container, file, remote, listed)
        if len(rivals) < 2:
            return
        for loser in rivals[1:]:
            log.warning("%r: %s wins over %s; both replace %s", file.path, rivals[0], loser, lost)
            self._metadata.forget(container.remote.id, loser)
            await self._uploader.delete(container.remote.id, loser)
        if rivals[0] != remote.id:
            try:
                await self._namespace.refresh(container, fresh=True)
            except FileSystemError as exc:
                log.info("container %s: %s", container.remote.id, exc)

    def _rivals(
        self,
        container: ContainerDirectory,
        file: File,
        remote: RemoteFile,
        listed: tuple[RemoteFile, ...],
    ) -> list[str]:
        """The objects that were uploaded as *file*, the newest first; *remote* is one of them."""
        path = tuple(file.path.split("/"))
        condemned = set(self._journal.deletions)
        found = [
            other
            for other in listed
            if other.id == remote.id
            or (
                stripped(other.path, id=other.id) == path
                and container.files.get(other.id, file) is file  # not shown elsewhere
                and (container.remote.id, other.id) not in condemned
            )
        ]
        # A sort is stable: among what came in one second the order of the listing holds.
        found.sort(key=lambda other: other.created, reverse=True)
        return [other.id for other in found]

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
        self._nursery.start_soon(self._send_soon, file, entry, after)

    async def _send_soon(self, file: File, entry: Entry, after: float | None) -> None:
        try:
            if file.size == 0:
                await trio.sleep(max(self._empty_delay, after or 0.0))
            elif after is not None:
                await trio.sleep(after)
        finally:
            self._delayed.discard(entry.id)
        if file.writers and file.size and after is None:
            return  # its close sends it
        await self._send_quietly(file)

    async def _send_quietly(self, file: File) -> None:
        """Send it for nobody who waits: a failure is for who closes or syncs it next."""
        try:
            await self.send(file)
        except FileSystemError as exc:
            file.error, file.unreported = str(exc), exc
            log.warning("%r is not on the server: %s", file.path, exc)
        except Exception:  # a bug: the journal keeps the file, and the mount lives on
            log.exception("sending %r failed", file.path)

    async def send_below(self, directory: Directory) -> None:
        """Send every dirty file below *directory*, many at once.

        Raises:
            FileSystemError: The first failure, once all were tried.
        """
        errors: list[FileSystemError] = []

        async def send(file: File) -> None:
            try:
                await self.send(file)
            except FileSystemError as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            for node in directory.walk():
                if isinstance(node, File) and node.is_dirty:
                    nursery.start_soon(send, node)
        if errors:
            raise errors[0]

    async def recover(self) -> None:
        """Send what an earlier mount left unsent, once the server can be asked."""
        while True:
            try:
                await self.show_unsent()
            except FileSystemError as exc:
                log.warning("unsent files are kept for later: %s", exc)
                await trio.sleep(RECOVERY_RETRY)
            else:
                break
        for container in list(self._namespace.containers.values()):
            for node in container.walk():
                if isinstance(node, File) and node.is_dirty and not node.opens:
                    self._nursery.start_soon(self._send_quietly, node)

    async def show_unsent(self) -> None:
        """Have every container in the tree that something is unsent for.

        Raises:
            FileSystemError: The server could not be asked.
        """
        await self._namespace.refresh(self._namespace.root)
        for id in {entry.container_id for entry in self._journal.entries if not entry.held}:
            await self._show_container(id)

    async def _show_container(self, id: str) -> None:
        container = self._namespace.containers.get(id)
        if container is None or container.is_snapshot:
            log.warning("container %s is gone; its unsent files are kept here", id)
            return
        with suppress(NotFound):
            await self._namespace.refresh(container)
