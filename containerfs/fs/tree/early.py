"""What is shown of a container while its first listing is still on its way.

A name is shown early if it is certain to be there in the end: the rest of the listing can't take
it away. Names that hang on the rest of it, or on what this machine remembers, come in the end,
when the tree is brought in line with the whole (`Reconciliation`). Changes wait for that, too.
"""

from containerfs.api.types import RemoteFile
from containerfs.cache.listing import Arrival
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.fs.names.certainty import Certainty
from containerfs.fs.names.layout import newest_first
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.places import Places
from containerfs.fs.tree.reconciling import Reconciliation
from containerfs.upload.intents import Intents
from containerfs.upload.journal import Journal


class Early:
    """The entries of one container that are shown early.

    Attributes:
        container: What they are in.
        arrival: The listing that brings them.
        names: In the order in which they came; a name keeps its place.
    """

    def __init__(
        self,
        *,
        container: ContainerDirectory,
        arrival: Arrival[RemoteFile],
        certainty: Certainty,
        places: Places,
        objects: Objects,
        metadata: Metadata,
    ) -> None:
        self.container = container
        self.arrival = arrival
        self.names: list[str] = []
        self._certainty = certainty
        self._places = places
        self._objects = objects
        self._metadata = metadata
        # Those of an earlier listing, which broke off: they may have gone since.
        self._doubtful: set[Node] = set(container.files.values())
        self._seen = 0  # entries of the arrival

    @property
    def is_over(self) -> bool:
        """The whole listing is there, or failed, or another one came before it."""
        is_current = self.container.early is self and self.container.parent is not None
        return not is_current or self.arrival.done.is_set()

    def __contains__(self, node: Node) -> bool:
        is_shown = isinstance(node, File) and node.remote is not None
        is_here = is_shown and node.parent is self.container and node not in self._doubtful
        return is_here and not self.is_over

    async def more(self, known: int) -> None:
        """Return when it is over, or there are more than *known* names."""
        while not self.is_over:
            self._show()
            if len(self.names) > known:
                return
            await self.arrival.more(self._seen)

    async def find(self, name: str) -> File | None:
        """The entry *name*, as soon as it is there; None where only the whole listing can tell."""
        known = 0
        while not self.is_over:
            await self.more(known)
            node = self.container.children.get(name)
            if isinstance(node, File) and node in self:
                return node
            known = len(self.names)
        return None

    def _show(self) -> None:
        """Put what came since the last time into the tree."""
        touched = self._metadata.touched(self.container.remote.id)
        for file in newest_first(self.arrival.entries[self._seen :]):
            name = self._certainty.name(file)
            if name is not None and file.id not in touched:
                self._place(name, file)
        self._seen = len(self.arrival.entries)

    def _place(self, name: str, file: RemoteFile) -> None:
        container = self.container
        node = container.children.get(name)
        if node is None and file.id not in container.files:
            local = self._certainty.remembered.get(name)
            node = self._places.make_file(container, container, name, name, local)
        elif not isinstance(node, File) or node not in self._doubtful or not _shows(node, file):
            return  # another one has the name, which may be a newer one
        self._objects.set_remote(container, node, file)
        self._doubtful.discard(node)
        self.names.append(name)


class FirstListings:
    """Shows containers while their first listings are on their way."""

    def __init__(
        self,
        *,
        reconciliation: Reconciliation,
        places: Places,
        objects: Objects,
        metadata: Metadata,
        state: State,
        journal: Journal,
        intents: Intents,
        raw_names: bool,
    ) -> None:
        self._reconciliation = reconciliation
        self._places = places
        self._objects = objects
        self._metadata = metadata
        self._state = state
        self._journal = journal
        self._intents = intents
        self._raw_names = raw_names

    def of(self, directory: Directory) -> Early | None:
        """What is shown early of *directory*, whose listing is asked for if need be.

        Returns:
            None where a listing is here, or another way to show it.
        """
        container = directory
        if not isinstance(container, ContainerDirectory):
            return None
        if container.listing is not None or container.is_snapshot:
            return None
        if any(
            each.container_id == container.remote.id for each in self._intents.doubtful.values()
        ):
            return None
        if container.early is None or container.early.is_over:
            arrival = self._metadata.first_files(container.remote.id)
            if arrival is None:
                return None
            self._reconciliation.restore(container)
            container.early = Early(
                container=container,
                arrival=arrival,
                certainty=self._certainty(container.remote.id),
                places=self._places,
                objects=self._objects,
                metadata=self._metadata,
            )
        return container.early

    def _certainty(self, container_id: str) -> Certainty:
        unsent = [
            entry.path for entry in self._journal.entries if entry.container_id == container_id
        ]
        remembered = self._state.nodes(container_id)
        return Certainty(remembered, unsent=unsent, raw_names=self._raw_names)


def _shows(node: File, file: RemoteFile) -> bool:
    """Whether an earlier listing, which broke off, had *node* show *file*."""
    return node.spool is None and node.remote is not None and node.remote.id == file.id


def early_of(node: Node) -> Early | None:
    """What shows *node* before the whole listing that has it is here; None where it is."""
    container = node.container
    early = None if container is None else container.early
    return early if early is not None and node in early else None
