"""Asks the server for what is looked at, once what is known of it has had its time.

Nothing is asked that nobody looks at: the root asks for the list of containers, a container for
its files when it is entered.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from containerfs.api.types import Container, RemoteFile
from containerfs.cache.listing import Listing
from containerfs.cache.metadata import Metadata
from containerfs.errors import Expired, NotFound
from containerfs.fs.kernel.lookedup import LookedUp
from containerfs.fs.listings.alignment import Alignment
from containerfs.fs.names.layout import BY_ID
from containerfs.fs.tree.containers import Containers
from containerfs.fs.tree.early import Early, FirstListings, early_of
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.fs.tree.tree import Tree

log = logging.getLogger(__name__)

SHORT = 0.1  # seconds; a listing that takes no longer is shown as a whole, in the order of names


class Namespace:
    """Names looked up in a tree that is kept as fresh as was asked for."""

    def __init__(
        self,
        *,
        tree: Tree,
        containers: Containers,
        alignment: Alignment,
        first_listings: FirstListings,
        metadata: Metadata,
    ) -> None:
        self._tree = tree
        self._containers = containers
        self._alignment = alignment
        self._first_listings = first_listings
        self._metadata = metadata
        self._listing: Listing[Container] | None = None
        self._looked_up = LookedUp()

    async def lookup(self, directory: Directory, name: str, *, early: bool = False) -> Node:
        """The entry *name* of *directory*.

        Args:
            early: Do not wait for the end of a first listing that is certain to have it.

        Raises:
            NotFound: There is none.
            FileSystemError: The server could not be asked.
        """
        if directory is self._tree.root and name == BY_ID:
            return self._tree.by_id
        shown = self._first_listings.of(directory) if early else None
        if shown is not None:
            found = await shown.find(name)
            if found is not None:
                return found
            await self.end_reading(shown)
        else:
            await self._refresh(directory, fresh=False)
        node = self.entry(directory, name)
        if node is None:
            raise NotFound(f"no {name!r} in {directory.path!r}")
        return node

    def entry(self, directory: Directory, name: str) -> Node | None:
        """The entry *name* of a directory that is current; None where there is none."""
        node = directory.children.get(name)
        if node is not None:
            self._looked_up.add(node)
        return node

    def is_current(self, node: Node) -> bool:
        """Whether the files that *node* is among are as the server listed them, and believed now.

        False, too, where only `refresh` can tell.
        """
        container = node.container
        if container is None or container.listing is None or container.parent is None:
            return False
        return self._metadata.fresh_files(container.remote.id) is container.listing

    async def find(self, directory: Directory, name: str) -> Node:
        """As `lookup`, in a call for which the kernel has mostly looked the name up just now."""
        node = directory.children.get(name)
        if node is not None and node in self._looked_up:
            return node
        return await self.lookup(directory, name)

    async def refresh(self, node: Node, *, fresh: bool = False, early: bool = False) -> None:
        """Bring what *node* belongs to in line with the server, where its time has come.

        Whatever the time to live: a program's call that has just had *node* looked up is answered
        by that.

        Args:
            fresh: Ask the server even if its time has not come, and fail if it can't be asked.
            early: Do not wait for the end of a first listing that is certain to have *node*.

        Raises:
            NotFound, Expired: The container is gone.
        """
        if early and early_of(node) is not None:
            return
        if fresh or node not in self._looked_up:
            await self._refresh(node, fresh=fresh)

    async def settle(self, node: Node) -> None:
        """Return when *node* is no longer shown early: what is to be changed must be certain.

        Raises:
            NotFound: It was, and is not what has that name in the end.
        """
        container = node.container
        if not isinstance(node, File) or node.spool is not None or container is None:
            return
        early = container.early
        if early is None or container.listing is not None:
            return
        if early.is_over:
            await self._refresh_files(container, fresh=False)
        else:
            await self.end_reading(early)
        if node.parent is None:
            raise NotFound(f"{node.name!r} is gone")

    async def begin_reading(self, directory: Directory) -> Early | None:
        """Have the entries of *directory* ready, as `refresh` does, or the first of many.

        Returns:
            What has the following ones, as they come, until `end_reading`; None where all are here.
        """
        early = self._first_listings.of(directory)
        if early is None:
            await self.refresh(directory)
            return None
        with trio.move_on_at(early.arrival.begun + SHORT):
            await early.arrival.done.wait()
        await early.more(0)
        if not early.is_over:
            return early
        await self.end_reading(early)
        return None

    async def end_reading(self, early: Early) -> None:
        """Have all entries of the directory that *early* has shown.

        Raises:
            FileSystemError: They could not all be listed.
        """
        container = early.container
        if container.listing is None:
            listing = await self._listed(container, early.arrival.wait)
            if listing is not None and container.early is early:
                await self._alignment.bring_in_line(container, listing)

    async def _refresh(self, node: Node, *, fresh: bool) -> None:
        container = node.container
        if container is None or (container is node and container.parent is None):
            await self._refresh_containers(fresh=fresh)
        else:
            await self._refresh_files(container, fresh=fresh)

    async def _refresh_containers(self, *, fresh: bool) -> None:
        listing = None if fresh else self._metadata.fresh_containers()
        if listing is None:
            listing = await self._metadata.containers(fresh=fresh)
        if listing is not self._listing:
            self._listing = listing
            self._containers.reconcile(listing.entries)

    async def _refresh_files(self, container: ContainerDirectory, *, fresh: bool) -> None:
        if container.is_snapshot:
            return
        listing = None if fresh else self._metadata.fresh_files(container.remote.id)
        if listing is None:
            listing = await self._listed(
                container, lambda: self._metadata.files(container.remote.id, fresh=fresh)
            )
        if listing is not None and listing is not container.listing:
            await self._alignment.bring_in_line(container, listing)

    async def _listed(
        self, container: ContainerDirectory, ask: Callable[[], Awaitable[Listing[RemoteFile]]]
    ) -> Listing[RemoteFile] | None:
        """The listing that *ask* returns; None where the container turns out to have expired."""
        try:
            return await ask()
        except Expired:
            self._containers.expire(container)
            return None
        except NotFound:
            await self._refresh_containers(fresh=True)  # the list tells gone from expired
            if container.remote.is_expired:
                return None
            self._containers.remove(container)
            raise

    def expires(self, node: Node) -> float:
        """When what is known of *node* must be asked for again, on trio's clock."""
        container = None if node.container is node else node.container
        if container is None or container.is_snapshot or container.listing is None:
            return self._believed_until(container)
        return container.listing.known_until

    def entries_expire(self, directory: Directory) -> float:
        """When *directory* may have other entries: what is absent is believed until then."""
        return self._believed_until(directory.container)

    def _believed_until(self, container: ContainerDirectory | None) -> float:
        """The end of the container's listing; where it has none to come, of the top level's."""
        if container is None or container.is_snapshot:
            return self._listing.expires if self._listing is not None else 0.0
        if container.early is not None and container.listing is None:
            return container.early.arrival.expires
        return container.listing.expires if container.listing is not None else 0.0
