"""After a crash: of two files whose names were being exchanged, each has its content still.

A server that overwrites what has the name of what is sent may have one of the contents twice, and
the other nowhere. That one is sent again, from the copy that was made before: it is unsent content,
of which the rest that was cut off can be taken back as of any other (`Settling`).
"""

import logging
from collections.abc import Collection

from containerfs.cache.state import State
from containerfs.errors import Expired, FileSystemError, NotFound
from containerfs.fs.outgoing.arrivals import Arrivals
from containerfs.upload.fingerprint import Fingerprint, fingerprint
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.spools import SpoolDirectory
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Overwritten:
    """Takes up the copies that an earlier mount has left."""

    def __init__(
        self,
        *,
        intents: Intents,
        journal: Journal,
        state: State,
        spools: SpoolDirectory,
        uploader: Uploader,
        arrivals: Arrivals,
    ) -> None:
        self._intents = intents
        self._journal = journal
        self._state = state
        self._spools = spools
        self._uploader = uploader
        self._arrivals = arrivals

    async def restore(self) -> None:
        """Let every copy that is needed be unsent content, and remove the others. Where the server
        does not tell, it is needed.
        """
        left = [each for each in self._intents.all.items() if not each[1].is_doubtful]
        copies = {id: await self._fingerprint(each.copy) for id, each in left if each.copy}
        sent = {each for each in copies.values() if each is not None}
        is_sure = len(copies) == len(left)  # else what was not sent yet may have been written to
        is_silent = False
        for id, rename in left:
            own = copies.get(id)
            if own is None:
                continue
            is_lost = True
            try:
                if not is_silent:
                    is_lost = await self._is_lost(rename, own, sent, is_sure=is_sure)
            except (NotFound, Expired):
                is_lost = False  # with all that was in its container
            except FileSystemError as exc:
                log.warning("what %r was exchanged with is not known: %s", rename.source_path, exc)
                is_silent = exc.retriable  # it is not waited for once for each of them
            self._end(id, rename, is_lost=is_lost)

    async def _fingerprint(self, name: str) -> Fingerprint | None:
        spool = self._spools.open(name)
        if spool is None:
            return None
        try:
            return await fingerprint(spool.fd, spool.size)
        finally:
            spool.close()

    async def _is_lost(
        self,
        rename: Rename,
        own: Fingerprint,
        sent: Collection[Fingerprint],
        *,
        is_sure: bool,
    ) -> bool:
        """Whether what has the old name now is what was sent, perhaps with the same id. What
        somebody else has put there stays.

        Args:
            own: The content that it had.
            is_sure: What was sent is one of *sent*.
        """
        id, path, objects = rename.source_id, rename.source_path, rename.source_objects
        source = await self._uploader.find_any(id, objects)
        there = [source] if source else await self._arrivals.of(id, path, known=objects)
        sizes = {each.size for each in sent}
        found = [
            await self._uploader.contents.fingerprint(file)
            for file in there
            if file.size is None or file.size in sizes
        ]
        if source is not None and own in found:
            return False
        return not there or not is_sure or any(each in sent for each in found)

    def _end(self, id: int, rename: Rename, *, is_lost: bool) -> None:
        is_used, entry_id = False, rename.entry_id
        with self._state.transaction():
            if is_lost:
                entry = self._newer(rename)
                is_used = entry is None
                if entry is None:
                    log.warning("%r is sent again: its exchange was cut off", rename.source_path)
                    entry = self._journal.begin(
                        container_id=rename.source_id,
                        path=rename.source_path,
                        spool=rename.copy,
                        replaces=rename.source_objects,
                        held=False,
                    )
                    self._journal.keep(entry)  # it was synced
                entry_id = entry.id
            self._intents.drop_copy(id, entry_id=entry_id)
        copy = None if is_used else self._spools.open(rename.copy)
        if copy is not None:
            copy.discard()

    def _newer(self, rename: Rename) -> Entry | None:
        """What was written to the file since, or kept of it where the exchange had failed."""
        name = rename.source_id, rename.source_path
        entries = self._journal.entries
        return next((each for each in entries if (each.container_id, each.path) == name), None)
