"""Nodes that a program's call has just had looked up.

To open a file by its path the kernel asks for the name, mostly for its attributes, and to open
it. With a time to live of 0 each would list the container anew, though it is one call of the
program: what was just looked up answers the other questions on the same node. Each call that has
a path begins with a lookup, so that the next call is not answered by the last one's.
"""

import trio

from containerfs.fs.tree.nodes import ContainerDirectory, Node

AT_ONCE = 0.05  # seconds between the parts of one call
MOST = 64  # calls under way at once


class LookedUp:
    """The nodes, each until its time is over."""

    def __init__(self) -> None:
        self._nodes: dict[Node, float] = {}

    def add(self, node: Node) -> None:
        """*node* was looked up now; a container's own list is not what tells of its files."""
        if isinstance(node, ContainerDirectory):
            return
        if len(self._nodes) >= MOST:
            self._nodes.clear()
        self._nodes[node] = trio.current_time()

    def __contains__(self, node: Node) -> bool:
        """Whether *node* was looked up by the call that goes on now."""
        looked_up = self._nodes.get(node)
        if looked_up is None:
            return False
        if node.parent is None or trio.current_time() - looked_up > AT_ONCE:
            del self._nodes[node]
            return False
        return True
