"""Asks what there is now, where what came as a file's content is not what was listed."""

import logging
import time

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.metadata import Metadata
from containerfs.errors import Expired, FileSystemError, NotFound, WrongLength
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.fs.tree.tree import Tree

log = logging.getLogger(__name__)

LIMIT = 5.0  # seconds that a program waits for it
LATELY = 60.0  # seconds in which a server may come to have what it has taken
REST = 10.0  # times what a renewal that changed nothing took, until the next for such a reason


class Renewal:
    """Lists a container anew for the sake of one file."""

    def __init__(self, *, tree: Tree, namespace: Namespace, metadata: Metadata) -> None:
        self._tree = tree
        self._namespace = namespace
        self._metadata = metadata
        self._rests: dict[ContainerDirectory, float] = {}  # until when

    async def contradicted(
        self, file: File, remote: RemoteFile, error: NotFound | WrongLength
    ) -> None:
        """Asking for *remote* as the content of *file* ended with *error*: have the version of now
        shown.

        Afterwards it shows that, or has left its directory; or the server stays with what it
        listed, and it is as before.

        Raises:
            Expired: The whole container is gone; the file stays in its snapshot.
        """
        container = file.container
        if container is None or file.remote is not remote:  # it has become another meanwhile
            return
        is_missing = isinstance(error, NotFound)
        begun = trio.current_time()
        if not is_missing and begun < self._rests.get(container, begun):
            return
        with trio.move_on_after(LIMIT):
            try:
                await self._namespace.refresh(file, fresh=True)
            except FileSystemError as exc:
                log.info("container %s: %s", container.remote.id, exc)
        if container.is_snapshot:
            raise Expired(f"container {container.remote.id} has expired")
        if file.remote is not remote or file.parent is None:
            self._rests.pop(container, None)
        elif is_missing and _was_sent_lately(file, remote):
            log.info("%r was sent, and is not to be had yet: %s", file.path, error)
        elif is_missing:
            self._metadata.hide(container.remote.id, remote.id)  # it is listed, and is not there
            if file.spool is None:
                self._tree.orphan(file)
        else:  # a server that tells wrong lengths is not to be asked again for each file
            self._rests[container] = begun + REST * (trio.current_time() - begun)


def _was_sent_lately(file: File, remote: RemoteFile) -> bool:
    """Whether *remote* is known to have been there, for it came from here a moment ago."""
    local = file.local
    if local is None or local.file_id != remote.id or local.ctime_ns is None:
        return False
    return abs(time.time() - local.ctime_ns / 1e9) < LATELY
