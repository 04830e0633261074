"""The top level: which containers are shown, under which names, and what is left of dead ones."""

import logging
from collections.abc import Iterable

from containerfs.api.types import Container
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.fs.names.layout import BY_ID, place_containers
from containerfs.fs.tree.nodes import ContainerDirectory, Symlink
from containerfs.fs.tree.reconciling import Reconciliation
from containerfs.fs.tree.tree import Tree
from containerfs.upload.journal import Journal

log = logging.getLogger(__name__)


class Containers:
    """The containers of the tree."""

    def __init__(
        self,
        *,
        tree: Tree,
        reconciliation: Reconciliation,
        metadata: Metadata,
        state: State,
        journal: Journal,
        show_expired: bool,
    ) -> None:
        self._tree = tree
        self._reconciliation = reconciliation
        self._metadata = metadata
        self._state = state
        self._journal = journal
        self._show_expired = show_expired
        self._names = state.container_names()

    def reconcile(self, listed: Iterable[Container]) -> None:
        """Show the containers that were *listed*, and what is here of others."""
        found = {container.id: container for container in listed}
        shown = [container for container in found.values() if self._is_shown(container)]
        shown += self._only_in_the_journal(found)
        names = place_containers(shown, kept=self._names)
        for id in [id for id in self._tree.containers if id not in names]:
            self.remove(self._tree.containers[id], forget=False)
        for container in shown:
            self._place_container(container, names[container.id])
        if names != self._names:
            self._names = names
            self._state.keep_container_names(names)

    def _is_shown(self, container: Container) -> bool:
        """Live, asked for, or expired with something of it still here."""
        if not container.is_expired or self._show_expired:
            return True
        known = self._tree.containers.get(container.id)
        return (known is not None and known.listing is not None) or any(
            entry.container_id == container.id for entry in self._journal.entries
        )

    def _only_in_the_journal(self, found: Iterable[str]) -> list[Container]:
        """Containers that the server lists no more, while unsent files for them are here."""
        ids = {entry.container_id for entry in self._journal.entries} - set(found)
        return [
            Container(id=id, name=self._names.get(id, id), created=0, status="expired")
            for id in ids
        ]

    def _place_container(self, remote: Container, name: str) -> None:
        container = self._tree.containers.get(remote.id)
        if container is None:
            self.add(remote, name)
            return
        container.remote = remote
        if container.name != name:
            self._tree.root.detach(container)
            self._tree.root.attach(container, name)
        if remote.is_expired and not container.is_snapshot:
            self.expire(container)

    def add(self, remote: Container, name: str) -> ContainerDirectory:
        """Show *remote* as directory *name*."""
        ino = self._tree.inodes.allocate(remote.id, "")
        container = ContainerDirectory(ino=ino, name=name, parent=None, remote=remote)
        container.local = self._state.node(remote.id, "")
        self._tree.inodes.add(container)
        self._tree.root.attach(container, name)
        self._tree.containers[remote.id] = container
        link_name = self._tree.by_id_name(container)
        link = Symlink(
            ino=self._tree.inodes.allocate(remote.id, BY_ID),
            name=link_name,
            parent=None,
            target=b"",
        )
        self._tree.inodes.add(link)
        self._tree.by_id.attach(link, link_name)
        if remote.is_expired:
            self.expire(container)
        return container

    def keep_name(self, container: ContainerDirectory) -> None:
        """Remember the name that the container was made under here."""
        self._names = {**self._names, container.remote.id: container.name}
        self._state.keep_container_names(self._names)

    def remove(self, container: ContainerDirectory, *, forget: bool = True) -> None:
        """Stop showing a container.

        Args:
            forget: It is gone for good: what is remembered of it goes too, but for what the
                journal holds. A list without it proves nothing: lists lag, and break off.
        """
        if self._tree.containers.pop(container.remote.id, None) is None:
            return
        for node in list(container.walk()):
            self._tree.drop(node)
        self._tree.root.detach(container)
        self._tree.inodes.drop_unused(container)
        link = self._tree.by_id.children[self._tree.by_id_name(container)]
        self._tree.by_id.detach(link)
        self._tree.inodes.drop_unused(link)
        if forget and not any(
            entry.container_id == container.remote.id for entry in self._journal.entries
        ):
            self._state.forget_container(container.remote.id)

    def expire(self, container: ContainerDirectory) -> None:
        """The container is dead: keep what is here as a snapshot that can be read."""
        if not container.is_snapshot:
            if container.listing is not None:
                log.warning("container %s has expired", container.remote.id)
            self._reconciliation.restore(container)
            if container.listing is None:
                self._reconciliation.reconcile(
                    container, self._metadata.last_files(container.remote.id)
                )
            container.is_snapshot = True
