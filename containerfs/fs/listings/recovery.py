"""What an earlier mount left unsent: shown, and sent once the server can be asked."""

import logging
from contextlib import suppress

import trio

from containerfs.errors import FileSystemError, NotFound
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.tree.nodes import File
from containerfs.fs.tree.tree import Tree
from containerfs.upload.journal import Journal

log = logging.getLogger(__name__)

RECOVERY_RETRY = 15.0  # seconds between attempts to reach the server


class Recovery:
    """Takes up the journal where the last mount left it."""

    def __init__(
        self,
        *,
        tree: Tree,
        namespace: Namespace,
        journal: Journal,
        sending: Sending,
        nursery: trio.Nursery,
    ) -> None:
        self._tree = tree
        self._namespace = namespace
        self._journal = journal
        self._sending = sending
        self._nursery = nursery

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
        for container in list(self._tree.containers.values()):
            for node in container.walk():
                if isinstance(node, File) and node.is_dirty and not node.writers:
                    self._nursery.start_soon(self._sending.send_quietly, node)

    async def show_unsent(self) -> None:
        """Have every container in the tree that something is unsent for.

        Raises:
            FileSystemError: The server could not be asked.
        """
        await self._namespace.refresh(self._tree.root)
        for id in {entry.container_id for entry in self._journal.entries if not entry.held}:
            await self._show_container(id)

    async def _show_container(self, id: str) -> None:
        container = self._tree.containers.get(id)
        if container is None or container.is_snapshot:
            log.warning("container %s is gone; its unsent files are kept here", id)
            return
        with suppress(NotFound):
            await self._namespace.refresh(container)
