"""Closing and syncing files: what was written gets to the server, and is waited for."""

from pathlib import Path

from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import Downloads
from containerfs.fs.files.descriptors import is_open_elsewhere
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.kernel.handles import FileHandle, Handles
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.outgoing.writeback import WriteBack
from containerfs.fs.tree.nodes import File
from containerfs.fs.tree.tree import Tree
from containerfs.upload.outstanding import Outstanding


class Closing:
    """Ends what was begun with an open."""

    def __init__(
        self,
        *,
        handles: Handles[FileHandle],
        tree: Tree,
        spooling: Spooling,
        sending: Sending,
        store: ContentStore,
        downloads: Downloads,
        write_back: WriteBack,
        outstanding: Outstanding,
        keeping: Keeping,
        transient: NamePatterns,
        transient_delay: float,
        mountpoint: Path,
    ) -> None:
        self._handles = handles
        self._tree = tree
        self._spooling = spooling
        self._sending = sending
        self._store = store
        self._downloads = downloads
        self._write_back = write_back
        self._outstanding = outstanding
        self._keeping = keeping
        self._transient = transient
        self._transient_delay = transient_delay
        self._mountpoint = mountpoint

    async def flush(self, fh: int) -> None:
        """One descriptor of *fh* is closed: what was written through it gets to the server.

        A new empty file waits a moment for its content, and one of a transient name for its rename;
        who renames it waits for the server then. Where a shell and its children share one
        open file, the first close sends it, and after that only the last one.

        Raises:
            FileSystemError: The server has not got it, now or in the background before; the
                journal keeps it.
        """
        handle = self._handles[fh]
        file = handle.file
        if handle.wrote and file.is_dirty and file.parent is not None:
            await self._close(handle, file)
        if handle.can_write:
            _report(file)

    async def _close(self, handle: FileHandle, file: File) -> None:
        """Send what was written, or have it sent."""
        if self._write_back.is_on:
            handle.flushed, handle.wrote = True, False
            await self._write_back.close(file)
        elif file.size == 0:
            self._sending.send_soon(file)
        elif self._transient.matches(file.name):
            self._sending.send_soon(file, after=self._transient_delay)
        elif not handle.flushed or not await is_open_elsewhere(self._shown_path(file)):
            handle.flushed, handle.wrote = True, False
            await self._send(file)

    async def _send(self, file: File) -> None:
        """Send it now: an earlier failure in the background counts no more."""
        file.unreported = None
        await self._sending.send(file)

    def _shown_path(self, file: File) -> Path:
        container = self._tree.container_of(file)
        return self._mountpoint / container.name / file.path

    async def fsync(self, fh: int) -> None:
        """Return when the server has the file as it is now, empty or not.

        What it replaced is deleted then, or will be.

        A file that stays on this machine is safe on its disk then.
        """
        handle = self._handles[fh]
        if handle.file.is_dirty and handle.file.parent is not None:
            handle.wrote = False
            await self._send(handle.file)
        elif handle.file.is_held:
            await self._keeping.keep(handle.file)
        if not handle.file.is_held and handle.file.parent is not None:
            container = self._tree.container_of(handle.file)
            await self._outstanding.sync(container.remote.id, handle.file.path)
        _report(handle.file)

    def release(self, fh: int) -> None:
        """The last descriptor of *fh* is closed; never fails."""
        handle = self._handles.remove(fh)
        if handle is None:
            return
        file = handle.file
        file.opens -= 1
        file.writers -= handle.can_write
        # Tried and failed, or it would not be dirty.
        was_tried = not handle.wrote and (handle.flushed or file.error is not None)
        is_last = handle.can_write and not file.writers
        if is_last and file.is_dirty and file.parent is not None and not was_tried:
            self._sending.send_soon(file)
        if not file.opens:
            self._let_go(file)

    def _let_go(self, file: File) -> None:
        """Nobody has *file* open any more: give back what was held for that."""
        if file.content is not None:
            self._store.unpin(file.content)
            file.content = None
        if file.download is not None:
            self._downloads.leave(file.download)
            file.download = None
        if file.spool is not None and file.parent is None:
            self._spooling.forget_spool(file)
        elif file.spool is not None and not file.spool.frozen:
            file.stamp_spool()
            file.spool.close()
        self._tree.inodes.drop_unused(file)


def _report(file: File) -> None:
    """Raise what went wrong in the background, once."""
    error, file.unreported = file.unreported, None
    if error is not None:
        raise type(error)(str(error), retriable=error.retriable) from error
