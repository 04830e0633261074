"""Content that the server has not got: its spool, and the journal's record of that."""

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from containerfs.cache.content import ContentStore
from containerfs.cache.room import FREED_AT_ONCE
from containerfs.cache.state import State
from containerfs.errors import FileSystemError, NoSpace
from containerfs.fs.files.reading import Reading
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.outgoing.flattening import Flattening
from containerfs.fs.tree.nodes import Directory, File
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.tree import Tree
from containerfs.upload.fingerprint import fingerprint
from containerfs.upload.journal import Journal, Lost
from containerfs.upload.spool import Spool
from containerfs.upload.spools import SpoolDirectory

T = TypeVar("T")


class Spooling:
    """Gives files their spools, and takes them away."""

    def __init__(
        self,
        *,
        tree: Tree,
        objects: Objects,
        reading: Reading,
        state: State,
        store: ContentStore,
        journal: Journal,
        spools: SpoolDirectory,
        scratch: NamePatterns,
        flattening: Flattening,
    ) -> None:
        self._tree = tree
        self._objects = objects
        self._reading = reading
        self._state = state
        self._store = store
        self._journal = journal
        self._spools = spools
        self._scratch = scratch
        self._flattening = flattening

    async def make_spool(self, file: File, *, keep: int | None) -> None:
        """Give *file* a spool that may be written, beginning with its content.

        Args:
            keep: How many bytes of the content are wanted; None for all.
        """
        async with file.copying:
            old, lost = file.spool, None
            if old is not None and not old.frozen:
                return
            if old is not None:
                lost = await self._sent_of(file, old)
                spool = await self.copy(old.fd, min(old.size, _or_all(keep, old.size)))
            elif file.remote is None or file.size == 0 or keep == 0:
                spool = self.new()
            else:
                content = await self._reading.whole(file)
                try:
                    size = content.size or 0
                    spool = await self.copy(content.fd, min(size, _or_all(keep, size)))
                finally:
                    self._store.unpin(content)
            if file.entry is not None and file.entry.is_safe:  # and this is its content now
                await spool.sync()
            if file.spool is not old:  # it changed hands while this one was made
                spool.discard()
                return
            self.take_spool(file, spool, lost=lost)
            if file.content is not None:
                self._store.unpin(file.content)
                file.content = None

    def new(self) -> Spool:
        """An empty spool; on a full disk cached content goes for it.

        Raises:
            NoSpace, LocalFault: It can't be made.
        """
        return self._with_room(self._spools.new)

    def _with_room(self, act: Callable[[], T]) -> T:
        """Do it, where the disk is full once more with less cached content."""
        try:
            return act()
        except NoSpace:
            if not self._store.free(FREED_AT_ONCE):
                raise
        return act()

    async def copy(self, fd: int, size: int) -> Spool:
        """A spool that begins with the first *size* bytes of *fd*; raises as `new`."""
        try:
            return await self._spools.copy(fd, size)
        except NoSpace:
            if not self._store.free(max(size, FREED_AT_ONCE)):
                raise
        return await self._spools.copy(fd, size)

    def write(self, spool: Spool, offset: int, data: bytes) -> None:
        """Write all of *data*; on a full disk cached content goes for it.

        Raises:
            NoSpace, LocalFault: Part of it may have been written.
        """
        self._with_room(partial(self._spools.write, spool, offset, data))

    async def make_dirty(self, file: File) -> None:
        """The server has the content of *file* no more: keep it here, to be sent again."""
        if file.spool is None:
            await self.make_spool(file, keep=None)

    async def make_local(self, file: File) -> None:
        """Keep the content of a held file here only; the caller deletes what the server has."""
        await self.make_dirty(file)
        self._objects.lose_remote(file)

    async def _sent_of(self, file: File, spool: Spool) -> Lost | None:
        """What is being sent of *file*, where a later mount could know it by its content only: a
        server may drop the directory from its name.
        """
        entry, container = file.entry, file.container
        if entry is None or container is None or "/" not in entry.path:
            return None
        if self._flattening.is_deep(container.remote.id):
            return None
        own, size = os.dup(spool.fd), spool.size  # it may be sent, and gone, meanwhile
        try:
            return container.remote.id, entry.path, await fingerprint(own, size)
        finally:
            os.close(own)

    def take_spool(
        self,
        file: File,
        spool: Spool,
        *,
        new_in: Directory | None = None,
        lost: Lost | None = None,
    ) -> None:
        """Let *spool* be what *file* holds, once the journal knows it: a crash does not lose it.

        Args:
            new_in: The directory in which it was just made.
            lost: What is being sent meanwhile, and may arrive.

        Raises:
            NoSpace, LocalFault: It can't be recorded; the file is as it was, the spool gone.
        """
        try:
            self._with_room(partial(self._record, file, spool, new_in, lost))
        except FileSystemError:
            spool.discard()
            raise
        file.spool = spool

    def _record(
        self, file: File, spool: Spool, new_in: Directory | None, lost: Lost | None
    ) -> None:
        with self._state.transaction(may_use_ballast=False):  # this is what fills a disk
            self._record_spool(file, spool)
            if lost is not None and file.entry is not None:
                self._journal.lose(file.entry, lost)
            if new_in is not None:
                self._tree.touch_directory(new_in)

    def _record_spool(self, file: File, spool: Spool) -> None:
        container = file.container
        if container is None:
            return
        self._tree.local(file)
        self._tree.save(file)
        if file.entry is None:
            file.entry = self._journal.begin(
                container_id=container.remote.id,
                path=file.path,
                spool=spool.path.name,
                replaces=file.remote_ids,
                held=self._scratch.matches(file.name),
            )
            self._state.on_rollback(partial(setattr, file, "entry", None))
        else:
            self._journal.update(file.entry, spool=spool.path.name)

    def drop_changes(self, file: File) -> None:
        """*file* was removed: its unsent content is nobody's but of those who have it open."""
        if file.entry is not None:
            self._journal.forget(file.entry)
            file.entry = None
        if file.spool is not None and not file.opens:
            self.forget_spool(file)

    def forget_spool(self, file: File) -> None:
        """Nobody needs the spool of a nameless *file* any more, unless the journal still does."""
        assert file.spool is not None  # noqa: S101 - the callers looked
        if file.entry is None:
            self._state.after_commit(file.spool.discard)
            file.spool = None
        else:
            file.spool.close()


def _or_all(keep: int | None, size: int) -> int:
    return size if keep is None else keep
