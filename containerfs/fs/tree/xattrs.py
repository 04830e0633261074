"""Extended attributes: what the service says of an object, and what users keep beside it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from containerfs.errors import Invalid, NoAttribute, NoSpace, NotPermitted, NotSupported, OutOfRange
from containerfs.fs.tree.attributes import now_ns
from containerfs.fs.tree.nodes import ContainerDirectory, File, Node
from containerfs.fs.tree.tree import Tree

USER = "user."  # the namespace
OURS = "user.containerfs."
VALUE_MAX = 64 << 10  # bytes; the kernel's own limit (XATTR_SIZE_MAX)
TOTAL_MAX = 1 << 20  # bytes of names and values that one object may have


def _file_id(file: File) -> str | None:
    return file.remote.id if file.remote is not None else None


def _file_path(file: File) -> str | None:
    return file.remote.path if file.remote is not None else None


def _file_source(file: File) -> str | None:
    return file.remote.source if file.remote is not None else None


def _file_container(file: File) -> str | None:
    container = file.container
    return container.remote.id if container is not None else None


_FILE: dict[str, Callable[[File], str | None]] = {
    "id": _file_id,
    "path": _file_path,
    "source": _file_source,
    "container": _file_container,
    "error": lambda file: file.error,
}


def _expires_at(container: ContainerDirectory) -> str | None:
    at = container.remote.expires_at
    return datetime.fromtimestamp(at, UTC).isoformat() if at is not None else None


def _network_policy(container: ContainerDirectory) -> str | None:
    policy = container.remote.network_policy
    return json.dumps(policy) if policy is not None else None


_CONTAINER: dict[str, Callable[[ContainerDirectory], str | None]] = {
    "id": lambda container: container.remote.id,
    "name": lambda container: container.remote.name,
    "status": lambda container: container.remote.status,
    "expires_at": _expires_at,
    "memory_limit": lambda container: container.remote.memory_limit,
    "network_policy": _network_policy,
}


def _check_whole(name: str) -> None:
    """As `xattr_resolve_name` of the kernel, which does not do it for FUSE (fs/xattr.c)."""
    if name == USER:
        raise Invalid(f"{name} without a name")


class Xattrs:
    """The extended attributes of every node, answered from memory."""

    def __init__(self, *, tree: Tree) -> None:
        self._tree = tree

    def _facts(self, node: Node) -> dict[str, bytes]:
        values: dict[str, str | None] = {}
        if isinstance(node, File):
            values = {name: tell(node) for name, tell in _FILE.items()}
        elif isinstance(node, ContainerDirectory):
            values = {name: tell(node) for name, tell in _CONTAINER.items()}
        return {
            OURS + name: value.encode("utf-8", "surrogatepass")[:VALUE_MAX]
            for name, value in values.items()
            if value is not None
        }

    def get(self, node: Node, name: str) -> bytes:
        """Raises:
        Invalid: The name is that of a namespace.
        NoAttribute: It has none of this name.
        """
        _check_whole(name)
        if name.startswith(OURS):
            value = self._facts(node).get(name)
        else:
            value = node.local.xattrs.get(name) if node.local is not None else None
        if value is None:
            raise NoAttribute(name)
        return value

    def names(self, node: Node) -> list[str]:
        """All of them, ours first."""
        own = list(node.local.xattrs) if node.local is not None else []
        return [*self._facts(node), *own]

    def set(self, node: Node, name: str, value: bytes) -> None:
        """Set or replace a user attribute; ours stay what they are.

        Raises:
            Invalid: The name is that of a namespace.
            NotPermitted: The object is not in a container.
            NotSupported: It is not in the user namespace.
            OutOfRange, NoSpace: It is too much.
        """
        self._check_name(node, name)
        if name.startswith(OURS):
            return  # copied by a tool from another file, of which it tells
        if len(value) > VALUE_MAX:
            raise OutOfRange(f"{name}: {len(value)} bytes")
        local = self._tree.local(node)
        others = sum(len(key) + len(data) for key, data in local.xattrs.items() if key != name)
        if others + len(name) + len(value) > TOTAL_MAX:
            raise NoSpace(f"{name}: no room beside {others} bytes of other attributes")
        local.xattrs[name] = value
        self._changed(node)

    def remove(self, node: Node, name: str) -> None:
        """Remove a user attribute; ours stay.

        Raises:
            Invalid, NotPermitted, NotSupported: As by `set`.
            NoAttribute: It has none of this name.
        """
        self._check_name(node, name)
        if name.startswith(OURS):
            self.get(node, name)
            return  # a tool that makes a copy like its source, which lacks them, goes on
        if node.local is None or name not in node.local.xattrs:
            raise NoAttribute(name)
        del node.local.xattrs[name]
        self._changed(node)

    def _check_name(self, node: Node, name: str) -> None:
        is_above = node.container is None and node.parent is not None
        if is_above or node is self._tree.root:
            raise NotPermitted(name)
        if not name.startswith(USER):
            raise NotSupported(name)
        _check_whole(name)

    def _changed(self, node: Node) -> None:
        self._tree.local(node).ctime_ns = now_ns()
        self._tree.save(node)
