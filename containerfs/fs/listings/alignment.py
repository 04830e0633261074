"""Brings a container in line with a listing that came, however long it is."""

import gc

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.listing import Listing
from containerfs.cache.metadata import Metadata
from containerfs.fs.outgoing.conflicts import Conflicts
from containerfs.fs.outgoing.uncertain import without_uncertain
from containerfs.fs.tree.nodes import ContainerDirectory
from containerfs.fs.tree.reconciling import Reconciliation
from containerfs.fs.turns import in_turns
from containerfs.upload.intents import Intents

MANY = 2_000  # entries of a first listing that is brought into the tree in turns with other work


class Alignment:
    """Does for the tree and for what was sent from here what each new listing asks for."""

    def __init__(
        self,
        *,
        reconciliation: Reconciliation,
        conflicts: Conflicts,
        metadata: Metadata,
        intents: Intents,
    ) -> None:
        self._reconciliation = reconciliation
        self._conflicts = conflicts
        self._metadata = metadata
        self._intents = intents
        self._showing = trio.Lock()

    async def bring_in_line(
        self, container: ContainerDirectory, listing: Listing[RemoteFile]
    ) -> None:
        """Show what *listing* has, and what was sent or removed here since it was made."""
        if container.listing is None and len(listing.entries) > MANY:
            async with self._showing:
                await self._show_many(container, listing)
        if listing is not container.listing:
            container.listing, container.early = listing, None
            self._reconciliation.restore(container)
            self._reconciliation.reconcile(container, self._entries(container, listing))
            self._conflicts.listed(container, self._seen(container, listing.entries))

    async def _show_many(self, container: ContainerDirectory, listing: Listing[RemoteFile]) -> None:
        """Show a container for the first time; nobody can change anything in it before."""
        if container.listing is None:
            self._reconciliation.restore(container)
            entries = self._entries(container, listing)
            gc.freeze()  # to look through all that for garbage would take longer than a turn
            await in_turns(self._reconciliation.reconciling(container, entries))
            gc.freeze()
            container.listing, container.early = listing, None
            self._conflicts.listed(container, self._seen(container, listing.entries))

    def _entries(
        self, container: ContainerDirectory, listing: Listing[RemoteFile]
    ) -> tuple[RemoteFile, ...]:
        """Those of *listing* with what was sent or removed here since it was made."""
        entries = self._metadata.corrected(container.remote.id, listing.entries)
        return self._seen(container, entries)

    def _seen(
        self, container: ContainerDirectory, entries: tuple[RemoteFile, ...]
    ) -> tuple[RemoteFile, ...]:
        return without_uncertain(container, entries, self._intents.doubtful.values())
