"""After a crash: renames that were cut off are taken back, or brought to their end.

While the old object is there, the new one goes: the file has its old name again. Once it is gone,
the new object is the file. An object is removed only if its content is that of the file renamed;
whatever else has come to that name is somebody else's, and stays.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import Expired, FileSystemError, NotFound
from containerfs.fs.flattening import is_sent_as
from containerfs.fs.names import stripped
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.spools import SpoolDirectory
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Settling:
    """Ends what an earlier mount was in the middle of."""

    def __init__(
        self,
        *,
        intents: Intents,
        journal: Journal,
        metadata: Metadata,
        state: State,
        store: ContentStore,
        spools: SpoolDirectory,
        uploader: Uploader,
    ) -> None:
        self._intents = intents
        self._journal = journal
        self._metadata = metadata
        self._state = state
        self._store = store
        self._spools = spools
        self._uploader = uploader

    async def settle(self) -> None:
        """End every rename that was cut off; what can't be ended now is left for the next time."""
        doubtful = self._intents.doubtful
        for id, rename in self._intents.all.items():
            if id in doubtful:
                continue  # it failed while the mount went on: `UncertainRenames`
            try:
                await self._end(rename)
                self._intents.end(id)
            except (NotFound, Expired) as exc:
                log.warning("the rename of %r to %r is over: %s", *_paths(rename), exc)
                self._intents.end(id)
            except FileSystemError as exc:
                log.warning("the rename of %r to %r is not over: %s", *_paths(rename), exc)

    async def _end(self, rename: Rename) -> None:
        listing = await self._metadata.files(rename.container_id, fresh=True)
        is_deep = any(len(stripped(file.path, id=file.id) or ()) > 1 for file in listing.entries)
        made = [
            file
            for file in listing.entries
            if file.id not in rename.known
            and is_sent_as(file, rename.path, may_be_flat=not is_deep)
            and file.size in (None, rename.size)
        ]
        entry = self._entry(rename)
        source = await self._source(rename) if entry is None else None
        if entry is None and source is None:
            await self._finish(rename, made)
        else:
            with self._content(entry, source) as fd:
                await self._take_back(rename, made, fd, source)

    def _entry(self, rename: Rename) -> Entry | None:
        entries = {entry.id: entry for entry in self._journal.entries}
        return None if rename.entry_id is None else entries.get(rename.entry_id)

    async def _source(self, rename: Rename) -> RemoteFile | None:
        """The object of the old name; the server is asked for it, as lists may lag behind."""
        for id in rename.source_objects:
            file = await self._uploader.find(rename.source_id, id)
            if file is not None:
                return file
        return None

    @contextmanager
    def _content(self, entry: Entry | None, source: RemoteFile | None) -> Iterator[int | None]:
        """What was being renamed, as an open file; None where it is not here."""
        if entry is not None:
            spool = self._spools.open(entry.spool)
            yield None if spool is None else spool.fd
            if spool is not None:
                spool.close()
            return
        content = None if source is None else self._store.pin(source)
        yield None if content is None else content.fd
        if content is not None:
            self._store.unpin(content)

    async def _take_back(
        self, rename: Rename, made: list[RemoteFile], fd: int | None, source: RemoteFile | None
    ) -> None:
        for file in made:
            if fd is not None:
                is_copy = await self._uploader.holds(file, fd, rename.size)
            else:
                is_copy = source is not None and await self._uploader.are_alike(file, source)
            if not is_copy:
                log.warning("%s stays: it came while %r was renamed", file.id, rename.source_path)
                continue
            log.warning("the rename of %r to %r is taken back", *_paths(rename))
            self._metadata.forget(rename.container_id, file.id)
            await self._uploader.delete(rename.container_id, file.id, path=rename.path)
            return  # another one like it is somebody else's

    async def _finish(self, rename: Rename, made: list[RemoteFile]) -> None:
        """The new object is the only one: let it have what was remembered of the old name."""
        if not made:
            return
        log.warning("the rename of %r to %r is brought to its end", *_paths(rename))
        local = self._state.nodes(rename.source_id).get(rename.source_path)
        if local is not None:
            local.file_id = made[0].id
            with self._state.transaction():
                self._state.forget_node(rename.source_id, rename.source_path)
                self._state.save_node(rename.container_id, rename.path, local)
        for entry in self._journal.doubtful:
            if entry.id == rename.entry_id:
                self._forget(entry)
        for id in rename.replaces:
            self._metadata.forget(rename.container_id, id)
            await self._uploader.delete(rename.container_id, id, path=rename.path)

    def _forget(self, entry: Entry) -> None:
        self._journal.forget(entry)
        spool = self._spools.open(entry.spool)
        if spool is not None:
            spool.discard()


def _paths(rename: Rename) -> tuple[str, str]:
    return rename.source_path, rename.path
