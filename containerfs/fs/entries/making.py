"""Making names: containers, directories, symbolic links, pipes and sockets."""

import logging
import stat
from collections.abc import Collection, Mapping
from typing import Any

import trio

from containerfs.api.client import Client
from containerfs.api.types import Container
from containerfs.cache.metadata import Metadata
from containerfs.errors import Exists, FileSystemError, NotPermitted, Uncertain
from containerfs.fs.names.layout import BY_ID
from containerfs.fs.names.names import container_name
from containerfs.fs.tree.attributes import begin
from containerfs.fs.tree.containers import Containers
from containerfs.fs.tree.nodes import SPECIAL, ContainerDirectory, Directory, Node, Symlink
from containerfs.fs.tree.permissions import check_can_change
from containerfs.fs.tree.tree import Tree

log = logging.getLogger(__name__)

CLOCKS_DIFFER = 2.0  # seconds, at most, between the machines of one server


class Making:
    """New entries, but for files: those are made by opening them."""

    def __init__(
        self,
        *,
        tree: Tree,
        containers: Containers,
        metadata: Metadata,
        client: Client,
        containers_are_fixed: bool,
        container_settings: Mapping[str, Any],
    ) -> None:
        """Args:
        containers_are_fixed: Containers can't be made here.
        container_settings: What `Client.create_container` is given beside the name.
        """
        self._tree = tree
        self._containers = containers
        self._metadata = metadata
        self._client = client
        self._containers_are_fixed = containers_are_fixed
        self._container_settings = container_settings

    async def mkdir(
        self, parent: Directory, name: str, mode: int, *, uid: int, gid: int
    ) -> Directory:
        """Make a directory; at the top level, a container.

        Raises:
            Exists: The name is taken.
            NotPermitted: Directories can't be made there.
        """
        if parent is self._tree.root:
            container = await self._make_container(name)
            begin(container, self._tree.local(container), mode=mode, uid=uid, gid=gid)
            self._tree.save(container)
            return container
        ino = self._new_ino(parent, name)
        directory = Directory(ino=ino, name=name, parent=None)
        self._add(parent, directory, name, mode=mode, uid=uid, gid=gid)
        return directory

    async def _make_container(self, name: str) -> ContainerDirectory:
        if self._containers_are_fixed:
            raise NotPermitted("this mount neither makes nor removes containers")
        self._check_free(self._tree.root, name)
        known = frozenset(self._tree.containers)
        asked, begun = container_name(name), trio.current_time()
        try:
            remote = await self._client.create_container(name=asked, **self._container_settings)
        except Uncertain as exc:
            remote = await self._arrived(asked, known=known, begun=begun, lost=exc)
        self._metadata.learn_container(remote)
        container = self._tree.containers.get(remote.id)
        if container is None:
            container = self._containers.add(remote, name)
        self._containers.keep_name(container)
        return container

    async def _arrived(
        self, name: str, *, known: Collection[str], begun: float, lost: Uncertain
    ) -> Container:
        """The container that was made though the answer was lost.

        It is not asked for again where there is none: a list may lag, and what is made twice is
        billed twice. One that was there before, and that nobody here knew of, is somebody else's.

        Args:
            name: That was asked for.
            known: Ids of the containers there were before.
            begun: When it was asked for, by trio's clock.

        Raises:
            Uncertain: *lost*: the list does not tell of it.
        """
        try:
            listed = await self._metadata.containers(fresh=True)
        except FileSystemError as exc:
            log.info("whether container %r was made is not known: %s", name, exc)
            raise lost from exc
        earliest = (self._client.server_time(begun) or 0.0) - CLOCKS_DIFFER
        made = [
            each
            for each in listed.entries
            if each.name == name
            and each.id not in known
            and not each.is_expired
            and not 0 < each.created < int(earliest)
        ]
        if len(made) != 1:
            raise lost
        log.info("container %r was made, as %s: %s", name, made[0].id, lost)
        return made[0]

    def symlink(
        self, parent: Directory, name: str, target: bytes, *, uid: int, gid: int
    ) -> Symlink:
        """Make a symbolic link, on this machine only.

        Raises:
            Exists: The name is taken.
        """
        ino = self._new_ino(parent, name)
        link = Symlink(ino=ino, name=name, parent=None, target=target)
        self._add(parent, link, name, mode=0o777, uid=uid, gid=gid)
        return link

    def special(self, parent: Directory, name: str, mode: int, *, uid: int, gid: int) -> Node:
        """Make a named pipe or a socket, on this machine only.

        Args:
            mode: What it is, and its permissions.

        Raises:
            NotPermitted: It would be a device.
            Exists: The name is taken.
        """
        made = next((each for each in SPECIAL if each.format == stat.S_IFMT(mode)), None)
        if made is None:
            raise NotPermitted("there are no devices here")
        ino = self._new_ino(parent, name)
        node = made(ino=ino, name=name, parent=None)
        self._add(parent, node, name, mode=mode, uid=uid, gid=gid)
        return node

    def _add(
        self, parent: Directory, node: Node, name: str, *, mode: int, uid: int, gid: int
    ) -> None:
        self._tree.add(parent, node, name)
        local = self._tree.local(node)
        begin(node, local, mode=mode, uid=uid, gid=gid)
        if isinstance(node, Symlink):
            local.target = node.target
        self._tree.save(node)
        self._tree.touch_directory(parent)

    def _new_ino(self, parent: Directory, name: str) -> int:
        """An inode number for the new entry *name*, which may be made in *parent*."""
        check_can_change(parent)
        self._check_free(parent, name)
        container = self._tree.container_of(parent)
        path = parent.path_of(name)
        return self._tree.inodes.allocate(container.remote.id, path)

    def _check_free(self, parent: Directory, name: str) -> None:
        if name in parent.children or (parent is self._tree.root and name == BY_ID):
            raise Exists(name)
