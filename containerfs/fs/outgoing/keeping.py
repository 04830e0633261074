"""Has what the server has not got survive a power cut, where somebody relies on it.

A spool and the journal survive a killed process by themselves. Syncing them costs several turns of
the disk: it is done for what was acknowledged, or failed, without the server having it.
"""

import logging

from containerfs.cache.state import State
from containerfs.errors import FileSystemError
from containerfs.fs.tree.nodes import File
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.spool import SMALL

log = logging.getLogger(__name__)


class Keeping:
    """Syncs spools and the journal, in this order."""

    def __init__(self, *, journal: Journal, state: State) -> None:
        self._journal = journal
        self._state = state
        self._synced = 0  # changes of the journal

    async def keep(self, file: File) -> None:
        """Return once the unsent content of *file* survives a power cut.

        Raises:
            NoSpace, LocalFault: It may not.
        """
        spool, entry = file.spool, file.entry
        if spool is not None and entry is not None and spool.size <= SMALL:
            # In the journal, too: one turn of the disk, not four.
            with self._state.transaction():
                self._journal.keep(entry, content=spool.read(0, spool.size))
            await self.sync()
            return
        synced = None
        while file.spool is not None and file.spool is not synced:  # it may be replaced meanwhile
            synced = file.spool
            await synced.sync()
        if file.entry is not None:
            self._journal.keep(file.entry)
            await self.sync()

    async def try_to_keep(self, file: File) -> None:
        """`keep`, where something else has failed already."""
        try:
            await self.keep(file)
        except FileSystemError as exc:
            log.warning("%r may not survive a power cut: %s", file.path, exc)

    async def record(self, entry: Entry) -> None:
        """Return once an upload that is about to begin can't be forgotten, where that matters.

        Else a power cut could leave what it replaces beside it for ever.

        Raises:
            NoSpace, LocalFault: It may be forgotten.
        """
        if entry.replaces and not entry.is_safe:
            await self._state.sync()

    async def settle(self) -> None:
        """Return once what was forgotten of what survives power cuts can't come back by one.

        It could take the place of what is newer.

        Raises:
            NoSpace, LocalFault: It may come back.
        """
        if self._journal.changes != self._synced:
            await self.sync()

    async def try_to_settle(self) -> None:
        """`settle`, for who has to go on in any case."""
        try:
            await self.settle()
        except FileSystemError as exc:
            log.warning("what was sent may be sent again after a power cut: %s", exc)

    async def sync(self) -> None:
        """Return once all that was recorded so far survives a power cut.

        Raises:
            NoSpace, LocalFault: It may not.
        """
        changes = self._journal.changes
        await self._state.sync()
        self._synced = max(self._synced, changes)
