"""Inode numbers, and which nodes the kernel knows."""

import hashlib
from collections.abc import Iterable

from containerfs.errors import Stale
from containerfs.fs.tree.nodes import Directory, Node

ROOT_INO = 1


class Inodes:
    """Every node that has a name, that the kernel knows, or that is open, by number."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def allocate(self, container_id: str, path: str) -> int:
        """A free inode number: the same for the same path after a remount, as far as possible."""
        key = f"{container_id}/{path}".encode("utf-8", "surrogateescape")
        ino = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest())
        while ino in self._nodes or ino <= ROOT_INO:
            ino += 1
        return ino

    def add(self, node: Node) -> None:
        """Make *node* findable by its number."""
        self._nodes[node.ino] = node

    def is_free(self, ino: int) -> bool:
        return ino not in self._nodes

    def __getitem__(self, ino: int) -> Node:
        """Raises:
        Stale: There is no such node any more.
        """
        try:
            return self._nodes[ino]
        except KeyError:
            raise Stale(f"inode {ino}") from None

    def directory(self, ino: int) -> Directory:
        """The directory with this number; the kernel asks for entries of directories only."""
        node = self[ino]
        if not isinstance(node, Directory):
            raise Stale(f"inode {ino} is not a directory any more")
        return node

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Lower lookup counts; a node that nothing refers to any more is dropped.

        Args:
            counts: Pairs of inode number and how many lookups the kernel gives back.

        Source: pyfuse3 Operations.forget.
        """
        for ino, nlookup in counts:
            node = self._nodes.get(ino)
            if node is not None:
                node.nlookup = max(node.nlookup - nlookup, 0)
                self.drop_unused(node)

    def drop_unused(self, node: Node) -> None:
        """Forget *node* if it has no name, the kernel does not know it, and it is not open."""
        nameless = node.parent is None and node.ino != ROOT_INO
        if nameless and not node.nlookup and not node.opens and self._nodes.get(node.ino) is node:
            del self._nodes[node.ino]
