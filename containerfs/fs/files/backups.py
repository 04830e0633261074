"""Files that an editor renamed to a temporary name: the old content, until it is not needed.

A backup keeps its object on the server: until the editor's new file has arrived there, it may be
the only copy. When the mount stops cleanly, a backup whose file has been saved anew becomes local
like every other temporary file, and its object is deleted. Its content is here in any case as soon
as the new file is sent: a server may overwrite the old object with what has the same name.
"""

import logging
from collections.abc import Collection

from containerfs.errors import FileSystemError, NotFound
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.names.names import components, stripped
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.outgoing.flattening import is_sent_as
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.fs.tree.tree import Tree
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Backups:
    """Keeps backups when they are in the way, and retires them at the end of a mount."""

    def __init__(
        self, *, tree: Tree, spooling: Spooling, uploader: Uploader, scratch: NamePatterns
    ) -> None:
        self._tree = tree
        self._spooling = spooling
        self._uploader = uploader
        self._scratch = scratch

    async def make_way(
        self, container: ContainerDirectory, path: str, own: Collection[str]
    ) -> None:
        """Have the content here of the backups that may be overwritten by what is sent as *path*.

        Args:
            own: The ids of the objects that it takes the place of.

        Raises:
            FileSystemError: That of one can't be had: nothing may be sent yet.
        """
        if container.backups is None:
            container.backups = set(filter(self._may_be_backup, container.files.values()))
        for file in list(container.backups):
            remote = file.remote
            if remote is None or file.parent is None or not self._scratch.matches(file.name):
                container.backups.discard(file)
            elif remote.id not in own and is_sent_as(remote, path, may_be_flat=True):
                try:
                    await self._spooling.make_dirty(file)
                except NotFound as exc:
                    log.warning("backup %r is gone: %s", file.path, exc)

    def _may_be_backup(self, file: File) -> bool:
        return (
            file.local is not None
            and file.local.file_id is not None
            and self._scratch.matches(file.name)
        )

    async def retire(self) -> None:
        """Make every backup local that is not needed on the server any more."""
        for container in list(self._tree.containers.values()):
            for file in list(container.files.values()):
                if self._is_retired(container, file):
                    try:
                        await self._retire(container, file)
                    except FileSystemError as exc:
                        log.warning("backup %r stays on the server: %s", file.path, exc)

    def _is_retired(self, container: ContainerDirectory, file: File) -> bool:
        if container.is_snapshot or file.parent is None or file.remote is None:
            return False
        if not self._scratch.matches(file.name):
            return False
        parts = components(file.remote.path, id=file.remote.id)
        short = stripped(file.remote.path, id=file.remote.id)
        saved = self._tree.find(container, "/".join(short or parts))
        return (
            isinstance(saved, File)
            and saved is not file
            and saved.remote is not None
            and not saved.is_dirty
        )

    async def _retire(self, container: ContainerDirectory, file: File) -> None:
        ids = file.remote_ids
        await self._spooling.make_local(file)
        for id in ids:
            await self._uploader.delete(container.remote.id, id, path=file.path)
