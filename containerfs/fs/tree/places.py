"""What stands at a visible path: found there, or made, with the directories above it."""

from containerfs.cache.state import LocalNode
from containerfs.fs.names.names import tailed
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.fs.tree.tree import Tree


class Places:
    """Makes the files and directories of a container."""

    def __init__(self, *, tree: Tree) -> None:
        self._tree = tree

    def new_file(self, directory: Directory, name: str) -> File:
        """A new, empty file of the free name *name*."""
        container = directory.container
        assert container is not None  # noqa: S101 - files are made in containers only
        path = directory.path_of(name)
        return self.make_file(container, directory, name, path, None)

    def make_file(
        self,
        container: ContainerDirectory,
        directory: Directory,
        name: str,
        path: str,
        local: LocalNode | None,
    ) -> File:
        """A new, empty file of the free *name*; *local* is what is remembered of it."""
        file = File(ino=self.ino(container, path, local), name=name, parent=None)
        file.local = local
        if local is not None:
            local.ino = file.ino
        self._tree.add(directory, file, name)
        return file

    def file(self, container: ContainerDirectory, path: str, local: LocalNode | None) -> File:
        """The file at *path*, made if need be, in the place of anything but a file."""
        directory, name = self.parent(container, path) if "/" in path else (container, path)
        node = directory.children.get(name)
        if isinstance(node, File):
            return node
        if node is not None:
            self._tree.orphan(node)
        if local is not None and local.kind != "file":
            local = None
        return self.make_file(container, directory, name, path, local)

    def parent(self, container: ContainerDirectory, path: str) -> tuple[Directory, str]:
        """The directory that *path* is in, made if need be, and the name that it has there."""
        parent, _, name = path.rpartition("/")
        return self.directory(container, parent), name

    def directory(
        self, container: ContainerDirectory, path: str, local: LocalNode | None = None
    ) -> Directory:
        """The directory at *path*, made with those above it if need be."""
        directory: Directory = container
        if not path:
            return directory
        done = ""
        for part in path.split("/"):
            done = f"{done}/{part}" if done else part
            node = directory.children.get(part)
            if not isinstance(node, Directory):
                if node is not None:
                    self._make_way(directory, node)
                ino = self.ino(container, done, local if done == path else None)
                node = Directory(ino=ino, name=part, parent=None)
                self._tree.add(directory, node, part)
            directory = node
        return directory

    def _make_way(self, directory: Directory, node: Node) -> None:
        """A directory appeared where *node* is: what is not on the server moves aside."""
        if isinstance(node, File) and node.spool is not None:
            self._tree.move(node, directory, tailed(node.name, id=f"{node.ino:08x}"))
        else:
            self._tree.orphan(node)

    def ino(self, container: ContainerDirectory, path: str, local: LocalNode | None) -> int:
        """The inode number for what is made at *path*: the remembered one, if it is free."""
        if local is not None and self._tree.inodes.is_free(local.ino):
            return local.ino
        return self._tree.inodes.allocate(container.remote.id, path)

    def remove_empty_directories(self, container: ContainerDirectory) -> bool:
        """Directories exist by what is in them, unless they were made here, or are open.

        Returns:
            Whether none is left that goes once it is closed.
        """
        are_gone = True
        for directory in reversed([*container.walk_directories()]):
            if directory.children or directory.is_kept:
                continue
            if directory.opens:
                are_gone = False
            else:
                self._tree.orphan(directory)
        return are_gone
