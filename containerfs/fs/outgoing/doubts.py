"""After a power cut: files that were being written, which nobody was told to be safe.

What is left of them may have holes, or be older than what the server has by now. So the server's
file is the file; what is left here is shown beside it, under a name that is never sent.
"""

import logging
import os

from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import Expired, FileSystemError, NotFound
from containerfs.fs.names.names import NAME_MAX
from containerfs.fs.outgoing.arrivals import Arrivals, still_replaced
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.spools import SpoolDirectory
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

SUFFIX = ".power-cut~"


class Doubts:
    """Resolves the journal's doubtful entries."""

    def __init__(
        self,
        *,
        journal: Journal,
        metadata: Metadata,
        state: State,
        spools: SpoolDirectory,
        uploader: Uploader,
        arrivals: Arrivals,
    ) -> None:
        self._journal = journal
        self._metadata = metadata
        self._state = state
        self._spools = spools
        self._uploader = uploader
        self._arrivals = arrivals

    async def resolve(self) -> None:
        """Resolve those that can be; where the server can't be asked, they wait unseen."""
        for entry in self._journal.doubtful:
            try:
                has_arrived = await self._has_arrived(entry)
            except (NotFound, Expired):
                has_arrived = False
            except FileSystemError as exc:
                log.warning("what became of %r is not known: %s", entry.path, exc)
                continue
            if has_arrived:
                await self._finish(entry)
            else:
                self._set_aside(entry)

    async def _has_arrived(self, entry: Entry) -> bool:
        """Whether the server has something under this name that is not what was replaced."""
        known = {*entry.replaces, *entry.others}
        return bool(await self._arrivals.of(entry.container_id, entry.path, known=known))

    async def _finish(self, entry: Entry) -> None:
        log.info("%r is on the server", entry.path)
        id, path = entry.container_id, entry.path
        replaced = still_replaced(self._state, id, path, entry.replaces)
        with self._state.transaction():
            self._journal.forget(entry)
            for each in replaced:
                self._metadata.forget(id, each)
                self._journal.delete_later(id, each, path=path)
        self._discard_spool(entry)
        for each in replaced:
            await self._uploader.delete(id, each)

    def _set_aside(self, entry: Entry) -> None:
        spool = self._spools.open(entry.spool)
        if spool is None or not spool.size:
            self._journal.forget(entry)
            self._discard_spool(entry)
            return
        path = self._free_path(entry)
        log.warning("%r was being written when the power failed: see %r", entry.path, path)
        self._journal.keep_aside(entry, path)

    def _free_path(self, entry: Entry) -> str:
        taken = {(each.container_id, each.path) for each in self._journal.entries}
        above, slash, name = entry.path.rpartition("/")
        number = 1
        while True:
            tail = SUFFIX if number == 1 else f".{number}{SUFFIX}"
            stem = os.fsencode(name)[: NAME_MAX - len(tail)]
            path = f"{above}{slash}{os.fsdecode(stem)}{tail}"
            if (entry.container_id, path) not in taken:
                return path
            number += 1

    def _discard_spool(self, entry: Entry) -> None:
        spool = self._spools.open(entry.spool)
        if spool is not None:
            spool.discard()
