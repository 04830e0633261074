"""Hands content to the server under a path, whatever it makes of the slashes in names."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial

from containerfs.api.types import RemoteFile
from containerfs.cache.state import State
from containerfs.errors import Expired, Invalid
from containerfs.fs.containers import Containers
from containerfs.fs.flattening import Flattening
from containerfs.fs.names import is_upload, marked_name, upload_name
from containerfs.fs.nodes import ContainerDirectory
from containerfs.fs.patience import Patience
from containerfs.upload.fingerprint import Fingerprint
from containerfs.upload.uploader import Uploader


class Delivery:
    """Uploads, and learns what names the server takes."""

    def __init__(
        self,
        *,
        containers: Containers,
        state: State,
        uploader: Uploader,
        patience: Patience,
    ) -> None:
        self._containers = containers
        self._state = state
        self._uploader = uploader
        self._patience = patience
        self._flattening = Flattening()

    async def put(
        self,
        container: ContainerDirectory,
        *,
        path: str,
        fd: int,
        size: int,
        own: Collection[str] = (),
        may_be_there: bool = False,
    ) -> RemoteFile:
        """Send *size* bytes of *fd* as *path*; changes nothing but the server.

        A server that refuses slashes in names gets the base name: the directory is kept here.

        Args:
            own: The ids of the objects that it takes the place of.
        """
        with self._patience.waiting(f"sending {path!r}") as progress:
            send = partial(
                self._uploader.send,
                container_id=container.remote.id,
                fd=fd,
                size=size,
                known=partial(self._own_ids, container),
                is_named=partial(self._is_named, container, path),
                progress=progress,
            )
            try:
                async with self._flattening.name(container, path, own=own) as name:
                    remote = await self._sent(send, container, name, may_be_there=may_be_there)
                if self._flattening.is_deep(container) and name != upload_name(path):
                    marked, remote = remote, await send(name=upload_name(path))
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
            if name == base or self._flattening.is_deep(container):
                raise  # it is not the slashes
            remote = await send(name=base)
            self._flattening.refused(container)
        self._flattening.learn(container, name, remote)
        return remote

    async def find(
        self, container: ContainerDirectory, *, path: str, contents: Collection[Fingerprint]
    ) -> list[RemoteFile]:
        """What earlier `put`s of these contents have made, whose answers were lost.

        Raises:
            FileSystemError: The server does not say.
        """
        return await self._uploader.copies(
            container.remote.id,
            contents=contents,
            known=partial(self._own_ids, container),
            is_named=partial(self._is_named, container, path),
        )

    def _is_named(self, container: ContainerDirectory, path: str, file: RemoteFile) -> bool:
        """Whether *file* has the path that an upload of *path* gets, or its base name alone."""
        may_be_flat = not self._flattening.is_deep(container)
        names = (upload_name(path), marked_name(path)) if may_be_flat else (upload_name(path),)
        may_be_elsewhere = file.source != "assistant"
        return any(
            is_upload(
                file.path,
                name,
                id=file.id,
                may_be_flat=may_be_flat,
                may_be_elsewhere=may_be_elsewhere,
            )
            for name in names
        )

    def _own_ids(self, container: ContainerDirectory) -> set[str]:
        """The objects of *container* that are known to be something that was sent before."""
        remembered = self._state.nodes(container.remote.id).values()
        return {local.file_id for local in remembered if local.file_id is not None}
