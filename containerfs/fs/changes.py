"""Making and removing names: containers, directories, symbolic links, pipes, sockets, files."""

import logging
import stat
from collections.abc import Mapping
from typing import Any

from containerfs.api.client import Client
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.errors import (
    Exists,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    ReadOnly,
)
from containerfs.fs.attributes import now_ns
from containerfs.fs.files import Files, check_can_change
from containerfs.fs.layout import BY_ID
from containerfs.fs.names import container_name
from containerfs.fs.namespace import Namespace
from containerfs.fs.nodes import SPECIAL, ContainerDirectory, Directory, File, Node, Symlink
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Changes:
    """What programs do with names, but for renaming."""

    def __init__(
        self,
        *,
        namespace: Namespace,
        files: Files,
        metadata: Metadata,
        store: ContentStore,
        uploader: Uploader,
        client: Client,
        containers_are_fixed: bool,
        container_settings: Mapping[str, Any],
    ) -> None:
        """Args:
        containers_are_fixed: Containers can be neither made nor removed here.
        container_settings: What `Client.create_container` is given beside the name.
        """
        self._namespace = namespace
        self._files = files
        self._metadata = metadata
        self._store = store
        self._uploader = uploader
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
        if parent is self._namespace.root:
            return await self._make_container(name)
        ino = self._new_ino(parent, name)
        directory = Directory(ino=ino, name=name, parent=None)
        self._add(parent, directory, name, mode=mode, uid=uid, gid=gid)
        return directory

    async def _make_container(self, name: str) -> ContainerDirectory:
        if self._containers_are_fixed:
            raise NotPermitted("this mount neither makes nor removes containers")
        self._check_free(self._namespace.root, name)
        remote = await self._client.create_container(
            name=container_name(name), **self._container_settings
        )
        self._metadata.learn_container(remote)
        container = self._namespace.containers.get(remote.id)
        if container is None:
            container = self._namespace.add_container(remote, name)
        self._namespace.keep_name(container)
        return container

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
        self._namespace.add(parent, node, name)
        local = self._namespace.local(node)
        local.mode, local.uid, local.gid = mode & 0o7777, uid, gid
        local.atime_ns = local.mtime_ns = local.ctime_ns = now_ns()
        if isinstance(node, Symlink):
            local.target = node.target
        self._namespace.save(node)
        self._files.touch_directory(parent)

    def _new_ino(self, parent: Directory, name: str) -> int:
        """An inode number for the new entry *name*, which may be made in *parent*."""
        check_can_change(parent)
        self._check_free(parent, name)
        container = self._namespace.container_of(parent)
        path = parent.path_of(name)
        return self._namespace.inodes.allocate(container.remote.id, path)

    def _check_free(self, parent: Directory, name: str) -> None:
        if name in parent.children or (parent is self._namespace.root and name == BY_ID):
            raise Exists(name)

    async def rmdir(self, parent: Directory, name: str) -> None:
        """Remove an empty directory; at the top level, a container without files, or the snapshot
        of an expired one without unsent files.

        Raises:
            NotEmpty: There is something in it, or the server has something there.
        """
        node = await self._namespace.lookup(parent, name)
        if not isinstance(node, Directory):
            raise NotADirectory(name)
        if isinstance(node, ContainerDirectory):
            await self._remove_container(node)
            return
        check_can_change(parent)
        if node.children:
            raise NotEmpty(name)
        self._namespace.keep_directory(parent)
        self._namespace.orphan(node)
        self._files.touch_directory(parent)

    async def _remove_container(self, container: ContainerDirectory) -> None:
        if self._containers_are_fixed:
            raise NotPermitted("this mount neither makes nor removes containers")
        files = [node for node in container.walk() if isinstance(node, File)]
        try:
            if not container.is_snapshot:
                await self._namespace.refresh(container, fresh=True)
                is_empty = not container.children
            else:  # its data is gone: what was read here can't be removed one by one
                is_empty = not any(file.is_dirty for file in files)
            if not is_empty:
                raise NotEmpty(container.name)
            await self._client.delete_container(container.remote.id)
        except NotFound as exc:
            log.info("container %s was gone already: %s", container.remote.id, exc)
        for file in files:
            self._files.drop_changes(file)
        self._metadata.forget_container(container.remote.id)
        self._namespace.remove_container(container)

    async def unlink(self, parent: Directory, name: str) -> None:
        """Remove a file, with the older objects it hides, or a symbolic link.

        Raises:
            FileSystemError: The server did not delete it; it stays.
        """
        node = await self._namespace.lookup(parent, name)
        if isinstance(node, Directory):
            raise IsADirectory(name)
        container = node.container
        if container is None:
            raise NotPermitted(name)
        if container.is_snapshot:
            raise ReadOnly(f"container {container.remote.id} has expired")
        if isinstance(node, File):
            async with node.changing:
                await self.remove_remote(node, container)
                self.forget_file(node)
        else:
            self._namespace.keep_directory(parent)
            self._namespace.orphan(node)
        self._files.touch_directory(parent)

    async def remove_remote(self, file: File, container: ContainerDirectory) -> None:
        """Delete what the server has of *file*; `file.changing` is held.

        Who has the file open can read on: its content is fetched before it goes.
        """
        ids = dict.fromkeys((*file.remote_ids, *(file.entry.replaces if file.entry else ())))
        if file.opens and file.spool is None and file.size != 0 and file.remote is not None:
            await self.keep_content(file)
        for id in reversed(ids):  # the newest last: what is shown goes when nothing is below it
            if container.files.get(id, file) is not file:
                continue  # a server that keeps the id of what is overwritten: it is another's now
            await self._uploader.remove(container.remote.id, id)
            self._metadata.forget(container.remote.id, id)

    async def keep_content(self, file: File) -> None:
        """Have the whole content of an open file here, before the server loses it."""
        try:
            content = await self._files.whole(file)
        except NotFound:
            return
        if file.content is None and file.spool is None and file.opens:
            file.content = content
        else:
            self._store.unpin(content)

    def forget_file(self, file: File) -> None:
        """*file* has no name any more: take it out of the tree, the journal and the cache."""
        if file.parent is not None:
            self._namespace.keep_directory(file.parent)
            self._namespace.orphan(file)
        self._files.drop_changes(file)
        if file.remote is not None:
            self._store.discard(file.remote)
        if file.local is not None:
            file.local.ctime_ns = now_ns()
