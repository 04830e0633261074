"""What a server makes of the slashes in names: some keep them, some refuse them, some drop them.

Where they are dropped, `d/x` and `x` are one name to the server, and one that overwrites what has a
name already would lose one file for the other. So what would get the name of another file's object
is sent under a name of its own; here it has its own path in any case. A prefix of uploads says
nothing of this: one that overwrites may go by the name without it.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import trio

from containerfs.api.types import RemoteFile
from containerfs.fs.names.names import (
    DATA,
    components,
    is_upload,
    marked_name,
    stripped,
    upload_name,
)
from containerfs.fs.tree.nodes import ContainerDirectory, File


class Flattening:
    """What is known of the containers' server, by what it made of the names of uploads."""

    def __init__(self) -> None:
        self._flat: set[str] = set()  # containers where directories are refused or dropped
        self._deep: set[str] = set()  # and where they were seen to be kept
        self._known: set[str] = set()  # those whose files were looked at
        self._under_way: dict[tuple[str, str], tuple[str, trio.Event]] = {}

    def is_deep(self, container_id: str) -> bool:
        """Whether directories were seen to be kept, and never to be refused."""
        return container_id in self._deep and container_id not in self._flat

    def listed(self, container: ContainerDirectory) -> None:
        """Whether they are kept may show in what is listed."""
        entries = container.listing.entries if container.listing is not None else ()
        if keeps_directories(entries):
            self._deep.add(container.remote.id)

    def refused(self, container: ContainerDirectory) -> None:
        """A name with directories was refused, and was not without them."""
        self._flat.add(container.remote.id)

    def learn(self, container: ContainerDirectory, name: str, remote: RemoteFile) -> None:
        """What was sent as *name* has become *remote*."""
        id = container.remote.id
        if "/" not in name or id in self._deep:
            return
        short = stripped(remote.path, id=remote.id)
        if len(short or ()) > 1 or _is(remote, name, may_be_flat=False):
            self._deep.add(id)
        elif _is(remote, name, may_be_flat=True):
            self._flat.add(id)

    def certain_name(self, container: ContainerDirectory, path: str) -> str | None:
        """The name to send *path* under; None where it may be another file's: see `name`."""
        self._look_at(container)
        return upload_name(path) if self.is_deep(container.remote.id) else None

    @asynccontextmanager
    async def name(
        self,
        container: ContainerDirectory,
        path: str,
        *,
        own: Collection[str],
        claimed: Iterable[RemoteFile],
    ) -> AsyncIterator[str]:
        """The name to send *path* under, inside.

        Even if it can't be another file's, what is sent under it could be taken for another one of
        the same name that is sent now, should the answer be lost.

        Args:
            own: The ids of the objects that it takes the place of.
            claimed: Objects that are about to be other files', whatever they were before.
        """
        name = upload_name(path)
        id, base = container.remote.id, name.rpartition("/")[2]
        key = id, base
        while (another := self._under_way.get(key)) is not None and another[0] != path:
            await another[1].wait()
        is_over = trio.Event()
        self._under_way[key] = path, is_over
        try:
            is_taken = self._is_taken(container, path, base, own) or any(
                each.container_id == id and _has_name(each, base, ()) for each in claimed
            )
            name = marked_name(path) if is_taken else name
            yield name.rpartition("/")[2] if id in self._flat else name
        finally:
            self._under_way.pop(key, None)
            is_over.set()

    def _look_at(self, container: ContainerDirectory) -> None:
        """Learn from what an earlier mount has sent, once."""
        id = container.remote.id
        if id in self._known:
            return
        if container.listing is not None:
            self._known.add(id)
        for file in container.files.values():
            remote = file.remote
            if file.parent is container or file.parent is None or remote is None:
                continue
            if file.spool is not None:
                continue  # the server may have it under the name that it had before
            if "/" not in remote.path.removeprefix(DATA):
                for name in (upload_name(file.path), marked_name(file.path)):
                    self.learn(container, name, remote)
                if id in self._flat:
                    return

    def _is_taken(
        self, container: ContainerDirectory, path: str, base: str, own: Collection[str]
    ) -> bool:
        """Whether another file's object has the name *base* on the server."""
        if container.remote.id in self._flat:
            return any(
                _has_name(file.remote, base, own)
                for file in container.files.values()
                if file.remote is not None and file.remote.path.endswith(base)  # few, and soon told
            )
        top = container.children.get(base)  # nothing has gone into a directory yet
        return "/" in path and isinstance(top, File) and _has_name(top.remote, base, own)


def keeps_directories(listed: Iterable[RemoteFile]) -> bool:
    """Whether what is *listed* shows that a server keeps directories: an upload is in one.

    What the model's code has written is where that has put it, whatever its name looks like.
    """
    return any(
        file.source == "user" and len(stripped(file.path, id=file.id) or ()) > 1 for file in listed
    )


def is_sent_as(file: RemoteFile, path: str, *, may_be_flat: bool) -> bool:
    """Whether *file* has a path on the server that an upload of *path* may get.

    Args:
        may_be_flat: Or its base name alone; not for what was written by the model's code, which
            has its own path.
    """
    may_be_elsewhere = file.source != "assistant"
    may_be_flat = may_be_flat and may_be_elsewhere
    names = (upload_name(path), marked_name(path)) if may_be_flat else (upload_name(path),)
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


def _is(remote: RemoteFile, name: str, *, may_be_flat: bool) -> bool:
    return is_upload(
        remote.path, name, id=remote.id, may_be_flat=may_be_flat, may_be_elsewhere=True
    )


def _has_name(remote: RemoteFile | None, base: str, own: Collection[str]) -> bool:
    return (
        remote is not None
        and remote.id not in own
        and _has_base(remote, base)
        and (remote.source != "assistant" or "/" not in remote.path.removeprefix(DATA))
    )


def _has_base(remote: RemoteFile, base: str) -> bool:
    if not remote.path.endswith(base):
        return False
    wanted = components(DATA + base, id=remote.id)
    shown = components(remote.path, id=remote.id), stripped(remote.path, id=remote.id) or ()
    return any(each[-1:] == wanted for each in shown)
