"""Directories that are open, and read name by name while their first listing may be on its way."""

import trio

from containerfs.errors import TimedOut
from containerfs.fs.kernel.handles import DirectoryHandle, Handles
from containerfs.fs.kernel.lookedup import AT_ONCE
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.tree.nodes import Directory
from containerfs.fs.tree.tree import Tree


class Browsing:
    """opendir(3), readdir(3), rewinddir(3) and closedir(3)."""

    def __init__(self, *, tree: Tree, namespace: Namespace, op_timeout: float) -> None:
        """Args:
        op_timeout: Seconds after which a listing is given up by who reads it.
        """
        self._tree = tree
        self._namespace = namespace
        self._op_timeout = op_timeout
        self._handles: Handles[DirectoryHandle] = Handles()

    def __getitem__(self, fh: int) -> DirectoryHandle:
        """Raises:
        BadHandle: It is not open.
        """
        return self._handles[fh]

    async def open(self, directory: Directory) -> int:
        """Open *directory*, once its listing is here, or the first names of a long one.

        Raises:
            FileSystemError: It can't be listed.
        """
        early = await self._namespace.begin_reading(directory)
        directory.opens += 1
        handle = DirectoryHandle(directory)
        handle.early = early
        handle.patience = self._op_timeout
        handle.believed_until = trio.current_time() + AT_ONCE
        return self._handles.add(handle)

    def close(self, fh: int) -> Directory | None:
        """What *fh* was, open no more; None where it was not."""
        handle = self._handles.remove(fh)
        if handle is None:
            return None
        handle.directory.opens -= 1
        return handle.directory

    async def rewind(self, handle: DirectoryHandle) -> None:
        """Begin to read it anew: with what it holds now.

        Raises:
            FileSystemError: It can't be listed.
        """
        directory, early = handle.directory, handle.early
        is_believed = trio.current_time() <= handle.believed_until
        handle.believed_until = 0.0
        if early is not None and early.is_over:
            handle.early = None
            if is_believed:  # it has ended since, one way or the other
                await self._namespace.end_reading(early)
                is_believed = early.container.listing is not None
        is_shown = directory.parent is not None or directory is self._tree.root
        if handle.early is None and is_shown and not is_believed:
            handle.early = await self._namespace.begin_reading(directory)
            handle.patience = self._op_timeout
        handle.rewind()

    async def has_name(self, handle: DirectoryHandle, position: int) -> bool:
        """Whether there is a name at this place, or further on; it may have to come yet.

        Raises:
            TimedOut: It did not come in time.
            FileSystemError: The rest can't be listed.
        """
        count = handle.read_on()
        while handle.early is not None and position >= len(handle.names):
            if handle.patience < 0 and not handle.early.is_over:
                raise TimedOut(f"{handle.directory.name!r}: its listing does not come")
            begun = trio.current_time()
            await handle.early.more(count)
            handle.patience -= trio.current_time() - begun
            count = handle.read_on()
            if handle.early.is_over:
                await self._namespace.end_reading(handle.early)
                handle.end()
        return position < len(handle.names)
