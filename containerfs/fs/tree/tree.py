"""The nodes that the mount shows, by their names, and how the tree of them is changed.

Nodes are kept over any number of listings, so that inode numbers, open files and unsent changes
outlive them. The tree knows the journal and what is remembered on this machine, which follow a
node that moves; it asks nothing of the server.
"""

import logging

from containerfs.cache.state import LocalNode, State
from containerfs.errors import Stale
from containerfs.fs.names.layout import BY_ID
from containerfs.fs.names.names import escape_id
from containerfs.fs.tree.attributes import now_ns
from containerfs.fs.tree.inodes import ROOT_INO, Inodes
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.upload.journal import Journal

log = logging.getLogger(__name__)


class Tree:
    """Directories and their entries, from the root down.

    Attributes:
        by_id: The directory of links to the containers by their ids.
        containers: Those that are shown, by id.
        differing: Directories that changed since this was last cleared.
    """

    def __init__(self, *, state: State, journal: Journal, inodes: Inodes) -> None:
        self._state = state
        self._journal = journal
        self.inodes = inodes
        self.root = Directory(ino=ROOT_INO, name="", parent=None)
        self.by_id = Directory(ino=inodes.allocate("", BY_ID), name=BY_ID, parent=self.root)
        self.containers: dict[str, ContainerDirectory] = {}
        self.differing: set[Directory] = set()
        inodes.add(self.root)
        inodes.add(self.by_id)

    def find(self, container: ContainerDirectory, path: str) -> Node | None:
        """What is shown at *path* now, without asking anybody."""
        node: Node = container
        for part in path.split("/"):
            if not isinstance(node, Directory) or part not in node.children:
                return None
            node = node.children[part]
        return node

    def container_of(self, node: Node) -> ContainerDirectory:
        """The container that *node* is in.

        Raises:
            Stale: It is in none any more.
        """
        container = node.container
        if container is None:
            raise Stale(f"inode {node.ino} has no name any more")
        return container

    def by_id_name(self, container: ContainerDirectory) -> str:
        """The container's name in `.by-id`."""
        return escape_id(container.remote.id)

    def total_size(self) -> int:
        """Bytes of all files that are known of now."""
        sizes = (
            file.size or 0
            for container in self.containers.values()
            for file in list(container.files.values())
        )
        return sum(sizes)

    # What is remembered of it.

    def local(self, node: Node) -> LocalNode:
        """What is remembered of *node*, made if need be; `save` it after a change."""
        if node.local is None:
            node.local = LocalNode(kind=node.kind, ino=node.ino)
        if isinstance(node, File) and node.remote is not None:
            node.local.file_id = node.remote.id
        return node.local

    def save(self, node: Node) -> None:
        """Remember `node.local`, where there is something to remember."""
        container = node.container
        if node.local is not None and container is not None:
            self._state.save_node(container.remote.id, node.path, node.local)
            if isinstance(node, File):
                node.stamp_spool()

    def keep_directory(self, directory: Directory) -> None:
        """Let *directory* stay when its last entry goes, as a directory does on a disk."""
        is_ours = directory.container not in (None, directory)
        if is_ours and directory.local is None:
            self.local(directory)
            self.save(directory)

    def touch_directory(self, directory: Directory) -> None:
        """An entry of *directory* came or went now: like on a disk, it stays when it is empty."""
        if directory.container is not None:
            local = self.local(directory)
            local.mtime_ns = local.ctime_ns = now_ns()
            self.save(directory)

    # Changing it. What is on the server is the caller's business.

    def add(self, directory: Directory, node: Node, name: str) -> None:
        """Give a new *node* the free name *name* in *directory*."""
        self.differ(directory)
        self.inodes.add(node)
        directory.attach(node, name)

    def differ(self, directory: Directory | None) -> None:
        """Something in *directory* is not what it was."""
        if directory is not None:
            self.differing.add(directory)

    def orphan(self, node: Node) -> None:
        """Take *node* out of the tree; whoever has it open keeps it."""
        container, path = node.container, node.path
        parent = node.parent
        if parent is None:
            return
        self.differ(parent)
        parent.detach(node)
        self.drop(node)
        if container is not None and node.local is not None and path:
            self._state.forget_node(container.remote.id, path)
        if isinstance(node, File) and node.remote is not None and container is not None:
            self.unindex(container, node.remote.id, node)

    def drop(self, node: Node) -> None:
        """*node* has no name any more: it lives for as long as somebody refers to it."""
        node.parent = None
        self.inodes.drop_unused(node)

    def move(self, node: Node, directory: Directory, name: str) -> None:
        """Give *node* the free name *name* in *directory*; what is remembered of it follows."""
        source, old_path = node.container, node.path
        assert node.parent is not None  # noqa: S101 - only what has a name can be renamed
        moved = [node, *(node.walk() if isinstance(node, Directory) else ())]
        with self._state.transaction():
            if source is not None:
                for each in moved:
                    if each.local is not None:
                        self._state.forget_node(source.remote.id, each.path)
                    if isinstance(each, File) and each.remote is not None:
                        self.unindex(source, each.remote.id, each)
            node.parent.detach(node)
            directory.attach(node, name)
            target = node.container
            if target is None:
                return
            for each in moved:
                if isinstance(each, File):
                    if each.remote is not None:
                        target.files[each.remote.id] = each
                    if each.entry is not None:
                        self._journal.update(
                            each.entry, container_id=target.remote.id, path=each.path
                        )
                self.save(each)
        log.debug("moved %r to %r", old_path, node.path)

    def unindex(self, container: ContainerDirectory, id: str, file: File) -> None:
        """The object *id* is not shown by *file* any more."""
        if container.files.get(id) is file:
            del container.files[id]
