"""Hands content to the server under a path, whatever it makes of the slashes in names."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial

from containerfs.api.types import RemoteFile
from containerfs.cache.listing import Listing
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import Expired, Invalid
from containerfs.fs.names.names import upload_name
from containerfs.fs.outgoing.arrivals import own_objects
from containerfs.fs.outgoing.flattening import Flattening, is_sent_as
from containerfs.fs.patience import Patience
from containerfs.fs.tree.containers import Containers
from containerfs.fs.tree.nodes import ContainerDirectory
from containerfs.upload.fingerprint import Fingerprint
from containerfs.upload.uploader import Uploader


class Delivery:
    """Uploads, and learns what names the server takes."""

    def __init__(
        self,
        *,
        containers: Containers,
        metadata: Metadata,
        state: State,
        uploader: Uploader,
        make_way: Callable[[ContainerDirectory, str, Collection[str]], Awaitable[None]],
        patience: Patience,
        flattening: Flattening,
    ) -> None:
        """Args:
        make_way: Called before a path of a container is sent, with the `own` of `put`.
        """
        self._containers = containers
        self._metadata = metadata
        self._state = state
        self._uploader = uploader
        self._make_way = make_way
        self._patience = patience
        self._flattening = flattening
        self._claimed: dict[str, RemoteFile] = {}

    async def put(
        self,
        container: ContainerDirectory,
        *,
        path: str,
        fd: int,
        size: int,
        own: Collection[str] = (),
        may_be_there: bool = False,
        others: Collection[str] = (),
        since: float | None = None,
    ) -> RemoteFile:
        """Send *size* bytes of *fd* as *path*; changes nothing but the server.

        A server that refuses slashes in names gets the base name: the directory is kept here.

        Args:
            own: The ids of the objects that it takes the place of.
            may_be_there: An earlier attempt may have arrived.
            others: Ids of objects that were listed before that: they are something else.
            since: As for `Patience.waiting`.
        """
        before = None if may_be_there else container.listing
        if may_be_there:
            self.learn(container)
        await self._make_way(container, path, own)
        with self._patience.waiting(f"sending {path!r}", since=since) as progress:
            send = partial(
                self._uploader.send,
                container_id=container.remote.id,
                fd=fd,
                size=size,
                known=partial(self._known, container.remote.id, before, others),
                is_named=partial(self._is_named, container.remote.id, path),
                progress=progress,
            )
            try:
                certain = self._flattening.certain_name(container, path)
                if certain is not None:
                    return await self._sent(send, container, certain, may_be_there=may_be_there)
                claimed = self._claimed.values()
                async with self._flattening.name(container, path, own=own, claimed=claimed) as name:
                    remote = await self._sent(send, container, name, may_be_there=may_be_there)
                if self._flattening.is_deep(container.remote.id) and name != upload_name(path):
                    marked = remote
                    try:
                        remote = await send(name=upload_name(path))
                    finally:
                        self._metadata.forget(container.remote.id, marked.id, is_new=True)
                        await self._uploader.delete(container.remote.id, marked.id)
            except Expired:
                self._containers.expire(container)
                raise
        return remote

    async def _sent(
        self,
        send: Callable[..., Awaitable[RemoteFile]],
        container: ContainerDirectory,
        name: str,
        *,
        may_be_there: bool,
    ) -> RemoteFile:
        base = name.rpartition("/")[2]
        try:
            remote = await send(name=name, may_be_there=may_be_there)
        except Invalid:
            if name == base or self._flattening.is_deep(container.remote.id):
                raise  # it is not the slashes
            remote = await send(name=base)
            self._flattening.refused(container)
        self._flattening.learn(container, name, remote)
        return remote

    async def find(
        self,
        container_id: str,
        *,
        path: str,
        contents: Collection[Fingerprint],
        others: Collection[str] = (),
    ) -> list[RemoteFile]:
        """What earlier `put`s of these contents have made, whose answers were lost.

        Args:
            others: As for `put`.

        Raises:
            FileSystemError: The server does not say.
        """
        return await self._uploader.copies(
            container_id,
            contents=contents,
            known=partial(self._known, container_id, None, others),
            is_named=partial(self._is_named, container_id, path),
        )

    def claim(self, remote: RemoteFile) -> None:
        """*remote* is about to be a file's: until `let_go`, when that is recorded, it is known."""
        self._claimed[remote.id] = remote

    def let_go(self, remote: RemoteFile) -> None:
        """What became of it is recorded."""
        self._claimed.pop(remote.id, None)

    def learn(self, container: ContainerDirectory) -> None:
        """Whether the server keeps directories may show in what an earlier mount sent."""
        self._flattening.listed(container)

    def _is_named(self, container_id: str, path: str, file: RemoteFile) -> bool:
        """Whether *file* has the path that an upload of *path* gets, or its base name alone."""
        return is_sent_as(file, path, may_be_flat=not self._flattening.is_deep(container_id))

    def _known(
        self, container_id: str, before: Listing[RemoteFile] | None, others: Collection[str]
    ) -> set[str]:
        """The objects of a container that are known to be something else."""
        listed = {file.id for file in before.entries} if before is not None else set()
        return own_objects(self._state, container_id) | listed | {*self._claimed, *others}
