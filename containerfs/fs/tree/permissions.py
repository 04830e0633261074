"""What can't be changed whoever asks: expired containers, the top level, other directories."""

from containerfs.errors import NotPermitted, ReadOnly
from containerfs.fs.names.names import OUTSIDE
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, Node


def check_writable(node: Node) -> None:
    """Raises:
    ReadOnly: The container has expired.
    NotPermitted: Uploads can't get there.
    """
    container = node.container
    if container is None:
        return
    _check_lives(container)
    if node.path.partition("/")[0] == OUTSIDE:
        raise NotPermitted("files outside /mnt/data can be read and removed, not written")


def check_can_change(directory: Directory) -> None:
    """Raises:
    ReadOnly: The container has expired.
    NotPermitted: Files can't be made in this directory.
    """
    check_can_remove(directory)
    check_writable(directory)


def check_can_remove(directory: Directory) -> None:
    """Raises:
    ReadOnly: The container has expired.
    NotPermitted: What is in this directory can't be taken out of it.
    """
    if directory.container is None:
        raise NotPermitted("the top level holds containers only")
    _check_lives(directory.container)


def _check_lives(container: ContainerDirectory) -> None:
    if container.is_snapshot:
        raise ReadOnly(f"container {container.remote.id} has expired")
