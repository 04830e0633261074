"""After a crash: renames that were cut off are taken back, or brought to their end.

While the old object is there, the new one goes: the file has its old name again. Once it is gone,
the new object is the file. An object is removed only if its content is that of the file renamed;
whatever else has come to that name is somebody else's, and stays.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import LocalNode, State
from containerfs.errors import Expired, FileSystemError, NotFound
from containerfs.fs.outgoing.arrivals import Arrivals, still_replaced
from containerfs.fs.tree.inodes import ROOT_INO
from containerfs.upload.fingerprint import fingerprint
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
        arrivals: Arrivals,
    ) -> None:
        self._intents = intents
        self._journal = journal
        self._metadata = metadata
        self._state = state
        self._store = store
        self._spools = spools
        self._uploader = uploader
        self._arrivals = arrivals

    async def settle(self) -> None:
        """End every rename that was cut off; what the server does not tell of is doubtful then."""
        is_silent = False
        for id, rename in self._intents.all.items():
            if rename.sent:
                continue  # what arrived of it is looked for by itself
            if not is_silent:
                try:
                    await self.end(id, rename)
                    continue
                except FileSystemError as exc:
                    log.warning("the rename of %r to %r is not over: %s", *_paths(rename), exc)
                    is_silent = exc.retriable  # it is not waited for once for each of them
            await self._doubt(id, rename)

    async def end(self, id: int, rename: Rename) -> None:
        """End one that was cut off; nothing was done to its names since.

        Raises:
            FileSystemError: The server does not tell what became of it.
        """
        try:
            await self._end(rename)
        except (NotFound, Expired) as exc:
            log.warning("the rename of %r to %r is over: %s", *_paths(rename), exc)
        self._intents.end(id)

    async def _doubt(self, id: int, rename: Rename) -> None:
        """Unsent content may be written to before the server tells: what was sent is kept."""
        entry = self._entry(rename)
        spool = None if entry is None else self._spools.open(entry.spool)
        try:
            sent = () if spool is None else (await fingerprint(spool.fd, spool.size),)
            self._intents.doubt(id, sent)
        except FileSystemError as exc:
            log.warning("that a rename may have arrived is not recorded: %s", exc)
        finally:
            if spool is not None:
                spool.close()

    async def _end(self, rename: Rename) -> None:
        arrived = await self._arrivals.of(rename.container_id, rename.path, known=rename.known)
        made = [file for file in arrived if file.size in (None, rename.size)]
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
        return await self._uploader.find_any(rename.source_id, rename.source_objects)

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
        contents = self._uploader.contents
        for file in made:
            if fd is not None:
                is_copy = await contents.match(file, fd, rename.size)
            else:
                is_copy = source is not None and await contents.are_alike(file, source)
            if not is_copy:
                log.warning("%s stays: it came while %r was renamed", file.id, rename.source_path)
                continue
            if await self._uploader.are_gone(rename.container_id, rename.replaces):
                log.warning("%r was replaced, though its rename was cut off", rename.path)
                self._let_be(
                    file,
                    rename.path,
                    was=(rename.container_id, rename.path),
                    ids=rename.replaces,
                )
                return  # it would be lost, and nobody has asked for that
            log.warning("the rename of %r to %r is taken back", *_paths(rename))
            self._metadata.forget(rename.container_id, file.id)
            await self._uploader.delete(rename.container_id, file.id, path=rename.path)
            return  # another one like it is somebody else's

    async def _finish(self, rename: Rename, made: list[RemoteFile]) -> None:
        """The new object is the only one: let it have what was remembered of the old name."""
        if not made:
            return
        log.warning("the rename of %r to %r is brought to its end", *_paths(rename))
        over = self._overwritten(rename)
        is_used = bool(over) and rename.is_left  # it was shown since, and perhaps changed
        self._let_be(
            made[0],
            rename.source_path if is_used else rename.path,
            was=(rename.source_id, rename.source_path),
            ids=rename.source_objects,
        )
        if is_used:
            return  # both are kept
        doubtful = [each for each in self._journal.doubtful if each.id == rename.entry_id]
        for entry in (*over, *doubtful):
            self._forget(entry)
        container_id, path = rename.container_id, rename.path
        for id in still_replaced(self._state, container_id, path, rename.replaces):
            self._metadata.forget(container_id, id)
            await self._uploader.delete(container_id, id, path=path)

    def _let_be(
        self, file: RemoteFile, path: str, *, was: tuple[str, str], ids: Collection[str]
    ) -> None:
        """Let *file*, as *path*, be another file from now on.

        Args:
            was: Container id and visible path of that.
            ids: The objects that it had.
        """
        local = self._state.node(*was)
        if local is None:
            local = LocalNode(kind="file", ino=ROOT_INO)  # it gets a number of its own
        if local.kind == "file" and local.file_id in (None, *ids):
            local.file_id = file.id
            with self._state.transaction():
                self._state.forget_node(*was)
                self._state.save_node(file.container_id, path, local)

    def _overwritten(self, rename: Rename) -> list[Entry]:
        """What was unsent of the file that had the new name: it would be sent over this one."""
        name = rename.container_id, rename.path
        return [each for each in self._journal.entries if (each.container_id, each.path) == name]

    def _forget(self, entry: Entry) -> None:
        self._journal.forget(entry)
        spool = self._spools.open(entry.spool)
        if spool is not None:
            spool.discard()


def _paths(rename: Rename) -> tuple[str, str]:
    return rename.source_path, rename.path
