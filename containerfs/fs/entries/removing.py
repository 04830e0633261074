"""Removing names: containers, directories, files and what exists on this machine only."""

import logging

from containerfs.api.client import Client
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.errors import (
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooLarge,
)
from containerfs.fs.files.reading import Reading
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.lostanswers import LostAnswers
from containerfs.fs.tree.attributes import now_ns
from containerfs.fs.tree.containers import Containers
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File
from containerfs.fs.tree.permissions import check_can_remove
from containerfs.fs.tree.tree import Tree
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Removing:
    """Takes entries away, here and on the server."""

    def __init__(
        self,
        *,
        tree: Tree,
        containers: Containers,
        namespace: Namespace,
        reading: Reading,
        spooling: Spooling,
        keeping: Keeping,
        lost_answers: LostAnswers,
        metadata: Metadata,
        store: ContentStore,
        uploader: Uploader,
        client: Client,
        containers_are_fixed: bool,
    ) -> None:
        """Args:
        containers_are_fixed: Containers can't be removed here.
        """
        self._tree = tree
        self._containers = containers
        self._namespace = namespace
        self._reading = reading
        self._spooling = spooling
        self._keeping = keeping
        self._lost_answers = lost_answers
        self._metadata = metadata
        self._store = store
        self._uploader = uploader
        self._client = client
        self._containers_are_fixed = containers_are_fixed

    async def rmdir(self, parent: Directory, name: str) -> None:
        """Remove an empty directory; at the top level, a container without files, or the snapshot
        of an expired one without unsent files.

        Raises:
            NotEmpty: There is something in it, or the server has something there.
        """
        node = await self._namespace.find(parent, name)
        if not isinstance(node, Directory):
            raise NotADirectory(name)
        if isinstance(node, ContainerDirectory):
            await self._remove_container(node)
            return
        check_can_remove(parent)
        if node.children:
            raise NotEmpty(name)
        self._tree.keep_directory(parent)
        self._tree.orphan(node)
        self._tree.touch_directory(parent)

    async def _remove_container(self, container: ContainerDirectory) -> None:
        if self._containers_are_fixed:
            raise NotPermitted("this mount neither makes nor removes containers")
        files = [node for node in container.walk() if isinstance(node, File)]
        try:
            if not container.is_snapshot:
                await self._lost_answers.settle_container(container)
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
            self._spooling.drop_changes(file)
        self._metadata.forget_container(container.remote.id)
        self._containers.remove(container)

    async def unlink(self, parent: Directory, name: str) -> None:
        """Remove a file, with the older objects it hides, or a symbolic link.

        Raises:
            FileSystemError: The server did not delete it, or could not be asked whether it has it;
                it stays.
        """
        node = await self._namespace.find(parent, name)
        if isinstance(node, Directory):
            raise IsADirectory(name)
        check_can_remove(parent)
        if isinstance(node, File):
            async with node.changing:
                await self._lost_answers.settle([node])
                await self._keeping.try_to_settle()  # or it might be sent again after a power cut
                await self._remove_remote(node)
                self.forget_file(node)
        else:
            self._tree.keep_directory(parent)
            self._tree.orphan(node)
        self._tree.touch_directory(parent)

    async def _remove_remote(self, file: File) -> None:
        """Delete what the server has of *file*; `file.changing` is held.

        Who has the file open can read on: its content is fetched before it goes.

        Raises:
            NotFound: It has no name any more.
        """
        container = file.container  # a directory above it may have got into another one
        if container is None:
            raise NotFound(f"{file.name!r} is gone")
        ids = file.own_ids
        if file.opens and file.spool is None and file.size != 0 and file.remote is not None:
            await self.keep_content(file)
        for id in reversed(ids):  # the newest last: what is shown goes when nothing is below it
            if container.files.get(id, file) is not file:
                continue  # it has become another's since
            await self._uploader.remove(container.remote.id, id)
            self._metadata.forget(container.remote.id, id)

    async def keep_content(self, file: File) -> None:
        """Have the whole content of an open file here, before the server loses it."""
        try:
            content = await self._reading.whole(file)
        except (NotFound, TooLarge):  # it can't be kept: who reads on finds it gone
            return
        if file.content is None and file.spool is None and file.opens:
            file.content = content
        else:
            self._store.unpin(content)

    def forget_file(self, file: File) -> None:
        """*file* has no name any more: take it out of the tree, the journal and the cache."""
        self._spooling.drop_changes(file)  # first: where that fails, it is there as it was
        if file.parent is not None:
            self._tree.keep_directory(file.parent)
            self._tree.orphan(file)
        if file.remote is not None:
            self._store.discard(file.remote)
        if file.local is not None:
            file.local.ctime_ns = now_ns()
