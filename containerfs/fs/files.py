"""Open files: reading, writing, truncating, closing."""

import logging
import os
from pathlib import Path

from containerfs.api.types import RemoteFile
from containerfs.cache.content import Content, ContentStore
from containerfs.cache.downloads import Download, Downloads
from containerfs.cache.state import State
from containerfs.errors import (
    BadHandle,
    Exists,
    FileSystemError,
    IsADirectory,
    NotFound,
    NotPermitted,
    ReadOnly,
    Stale,
    TooLarge,
)
from containerfs.fs.attributes import now_ns
from containerfs.fs.descriptors import is_open_elsewhere
from containerfs.fs.handles import FileHandle, Handles
from containerfs.fs.names import OUTSIDE
from containerfs.fs.namespace import Namespace
from containerfs.fs.nodes import Directory, File, Node
from containerfs.fs.patience import Patience
from containerfs.fs.patterns import NamePatterns
from containerfs.fs.prefetch import Prefetch
from containerfs.fs.sending import Sending
from containerfs.fs.writeback import WriteBack
from containerfs.upload.journal import Journal
from containerfs.upload.spool import Spool, SpoolDirectory

log = logging.getLogger(__name__)

ALL = 1 << 62  # an offset past the end of every file


class Files:
    """What programs do with files they opened."""

    def __init__(
        self,
        *,
        namespace: Namespace,
        sending: Sending,
        state: State,
        store: ContentStore,
        downloads: Downloads,
        journal: Journal,
        spools: SpoolDirectory,
        scratch: NamePatterns,
        transient: NamePatterns,
        transient_delay: float,
        patience: Patience,
        prefetch: Prefetch,
        write_back: WriteBack,
        max_file_size: int,
        mountpoint: Path,
    ) -> None:
        self._namespace = namespace
        self._sending = sending
        self._state = state
        self._store = store
        self._downloads = downloads
        self._journal = journal
        self._spools = spools
        self._scratch = scratch
        self._transient = transient
        self._transient_delay = transient_delay
        self._patience = patience
        self._prefetch = prefetch
        self._write_back = write_back
        self._max_file_size = max_file_size
        self._mountpoint = mountpoint
        self._handles: Handles[FileHandle] = Handles()

    # Opening and closing.

    async def open(self, file: File, flags: int, *, pid: int = 0) -> tuple[int, bool]:
        """Open *file*.

        Args:
            pid: The process that does.

        Returns:
            The handle, and whether what the kernel has cached of the content still holds.

        Raises:
            Stale: It is gone; the kernel looks the name up again.
            NotFound: The server lists it and does not have it.
            ReadOnly, NotPermitted: It can't be written.
        """
        if file.spool is None and file.parent is not None:
            await self._namespace.refresh(file)
        if file.parent is None and not file.opens:
            raise Stale(f"inode {file.ino} is gone")
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes or flags & os.O_TRUNC:
            check_writable(file)
        if file.size is None and not flags & os.O_TRUNC:
            await self.find_size(file)
        if not writes:
            self._prefetch.opened(file, pid)
        fh = self._add_handle(file, flags)
        keep_cache, file.pages_valid = file.pages_valid, True
        if flags & os.O_TRUNC and file.size != 0:
            try:
                await self.truncate(file, 0)
                self._handles[fh].wrote = True
            except BaseException:
                self.release(fh)
                raise
            keep_cache = False
        return fh, keep_cache

    def create(
        self, directory: Directory, name: str, mode: int, flags: int, *, uid: int, gid: int
    ) -> tuple[int, File]:
        """Make and open a new file; nothing is sent yet.

        Raises:
            Exists: The name is taken.
            NotPermitted, ReadOnly: No files can be made there.
            NoSpace, LocalFault: The spool can't be made.
        """
        check_can_change(directory)
        if name in directory.children:
            raise Exists(name)
        spool = self._spools.new()
        file = self._namespace.new_file(directory, name)
        local = self._namespace.local(file)
        local.mode, local.uid, local.gid = mode & 0o7777, uid, gid
        local.atime_ns = local.mtime_ns = local.ctime_ns = now_ns()
        try:
            self._take_spool(file, spool)
            self.touch_directory(directory)
        except FileSystemError:
            self._take_back(file)
            raise
        return self._add_handle(file, flags), file

    def _take_back(self, file: File) -> None:
        """*file* could not be made: nothing of it stays, but what the journal can't forget."""
        try:
            self.drop_changes(file)
            self._namespace.orphan(file)
        except FileSystemError as exc:
            log.warning("%r could not be taken back: %s", file.name, exc)

    def _add_handle(self, file: File, flags: int) -> int:
        handle = FileHandle(file, flags)
        file.opens += 1
        file.writers += handle.can_write
        return self._handles.add(handle)

    def existing(self, directory: Directory, name: str, flags: int) -> File | None:
        """The file that an `open` with O_CREAT finds in place of making one.

        Raises:
            Exists, IsADirectory: What is there can't be opened so.
        """
        node = directory.children.get(name)
        if node is None:
            return None
        if isinstance(node, Directory) and not flags & os.O_EXCL:
            raise IsADirectory(name)
        if flags & os.O_EXCL or not isinstance(node, File):
            raise Exists(name)
        return node

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
        container = self._namespace.container_of(file)
        return self._mountpoint / container.name / file.path

    async def fsync(self, fh: int) -> None:
        """Return when the server has the file as it is now, empty or not."""
        handle = self._handles[fh]
        if handle.file.is_dirty and handle.file.parent is not None:
            handle.wrote = False
            await self._send(handle.file)
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
            self.let_go(file)

    def let_go(self, file: File) -> None:
        """Nobody has *file* open any more: give back what was held for that."""
        if file.content is not None:
            self._store.unpin(file.content)
            file.content = None
        if file.download is not None:
            self._downloads.leave(file.download)
            file.download = None
        if file.spool is not None and file.parent is None:
            self._forget_spool(file)
        elif file.spool is not None and not file.spool.frozen:
            file.spool.close()
        self._namespace.inodes.drop_unused(file)

    def drop_changes(self, file: File) -> None:
        """*file* was removed: its unsent content is nobody's but of those who have it open."""
        if file.entry is not None:
            self._journal.forget(file.entry)
            file.entry = None
        if file.spool is not None and not file.opens:
            self._forget_spool(file)

    def _forget_spool(self, file: File) -> None:
        assert file.spool is not None  # noqa: S101 - the callers looked
        if file.entry is None:
            self._state.after_commit(file.spool.discard)
            file.spool = None
        else:
            file.spool.close()

    # Reading.

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        """Up to *size* bytes; fewer only at the end.

        Raises:
            NotFound: The server does not have what it listed.
            FileSystemError: The content can't be had.
        """
        file = self._handles[fh].file
        while True:
            if file.spool is not None:
                return file.spool.read(offset, size)
            if file.content is not None:
                return file.content.read(offset, size)
            if file.remote is None or offset >= (
                file.size if file.size is not None else offset + 1
            ):
                return b""
            download = self._find_content(file, file.remote)
            if download is None:
                continue
            await self._wait(file, download, offset + size)
            if file.download is download and not download.content.complete:
                return download.content.read(offset, min(size, download.available - offset))

    def _find_content(self, file: File, remote: RemoteFile) -> Download | None:
        """The download of the file's content; None where `file.content` has it."""
        if file.download is not None and not file.download.is_over:
            return file.download
        if file.download is not None:
            self._downloads.leave(file.download)
            file.download = None
        file.content = self._store.pin(remote)
        if file.content is not None:
            return None
        file.download = self._downloads.join(remote)
        return file.download

    async def _wait(self, file: File, download: Download, end: int) -> None:
        try:
            await download.wait_for(end if download.total is None else min(end, download.total))
        except NotFound:
            await self._namespace.lost(file)
            raise
        if download.content.complete:
            file.true_size = download.content.size

    async def find_size(self, file: File) -> int:
        """The size of a file that the server does not tell the size of, asked for once a version.

        Raises:
            NotFound: The server lists it and does not have it; it leaves the directory.
        """
        remote = file.remote
        if file.size is not None or remote is None:
            return file.size or 0
        size = self._store.size_of(remote)
        if size is None:
            try:
                size = await self._downloads.probe(remote)
            except NotFound:
                await self._namespace.lost(file)
                raise
        if file.remote is remote:
            file.true_size = size
        return size

    async def whole(self, file: File) -> Content:
        """The complete content of a clean file, pinned for the caller; downloaded if need be."""
        remote = file.remote
        if remote is None:
            raise NotFound(f"{file.path!r} has no content on the server")
        while (content := self._store.pin(remote)) is None:
            download = self._downloads.join(remote)
            try:
                with self._patience.waiting(f"fetching {file.path!r}") as progress:
                    await download.wait_for(ALL, progress=progress)
            except NotFound:
                await self._namespace.lost(file)
                raise
            finally:
                self._downloads.leave(download)
        return content

    # Writing.

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write all of *data*; where the handle appends, at what is the end by now.

        What a shared mapping of an appending handle changed comes back below the end, and stays
        there: the kernel's `fuse_writepages` uses the handle that was mapped.

        Raises:
            TooLarge: The file would pass `max_file_size`; nothing was written.
            Stale: Others replaced the file, and its content can't be had any more.
            NoSpace, LocalFault: The local disk failed.
        """
        handle = self._handles[fh]
        file = handle.file
        if not handle.can_write:
            raise BadHandle("not opened for writing")
        self._check_size(file, offset + len(data))  # a refused write leaves no spool behind
        while file.spool is None or file.spool.frozen:
            try:
                await self._make_spool(file, keep=None)
            except NotFound as exc:  # write(2) knows no ENOENT
                raise Stale(f"{file.path!r} was replaced by others meanwhile") from exc
        told = max(file.told_size, offset + len(data))
        if handle.appends and offset >= file.told_size:
            offset = file.spool.size
            self._check_size(file, offset + len(data))
        handle.wrote = True
        file.told_size = told
        file.spool.write(offset, data)
        self.touch(file)
        return len(data)

    async def truncate(self, file: File, size: int) -> None:
        """Cut, or grow with zeros; the content becomes dirty, unless that is its size already.

        Raises:
            TooLarge: *size* is over `max_file_size`.
        """
        self._check_size(file, size)
        if file.size is None and size:
            await self.find_size(file)
        if file.size != size:
            while file.spool is None or file.spool.frozen:
                await self._make_spool(file, keep=size)
            file.spool.truncate(size)
        file.told_size = size
        self.touch(file)

    def _check_size(self, file: File, size: int) -> None:
        if size > self._max_file_size:
            raise TooLarge(f"{file.path!r} would pass {self._max_file_size} bytes")

    async def truncate_now(self, file: File, size: int, *, fh: int | None) -> None:
        """`truncate`, and get it to the server where no later close will."""
        check_writable(file)
        await self.truncate(file, size)
        if fh is not None:
            self._handles[fh].wrote = True
        elif file.is_dirty and not file.writers and file.parent is not None:
            if size:
                await self._sending.send(file)
            else:
                self._sending.send_soon(file)

    def touch(self, file: File) -> None:
        """The content changed now."""
        local = self._namespace.local(file)
        local.mtime_ns = local.ctime_ns = now_ns()

    def touch_directory(self, directory: Directory) -> None:
        """An entry of *directory* came or went now: like on a disk, it stays when it is empty."""
        if directory.container is not None:
            local = self._namespace.local(directory)
            local.mtime_ns = local.ctime_ns = now_ns()
            self._namespace.save(directory)

    async def _make_spool(self, file: File, *, keep: int | None) -> None:
        """Give *file* a spool that may be written, beginning with its content.

        Args:
            keep: How many bytes of the content are wanted; None for all.
        """
        async with file.copying:
            old = file.spool
            if old is not None and not old.frozen:
                return
            if old is not None:
                spool = await self._spools.copy(old.fd, min(old.size, _or_all(keep, old.size)))
            elif file.remote is None or file.size == 0 or keep == 0:
                spool = self._spools.new()
            else:
                content = await self.whole(file)
                try:
                    size = content.size or 0
                    spool = await self._spools.copy(content.fd, min(size, _or_all(keep, size)))
                finally:
                    self._store.unpin(content)
            if file.spool is not old:  # it changed hands while this one was made
                spool.discard()
                return
            self._take_spool(file, spool)
            if file.content is not None:
                self._store.unpin(file.content)
                file.content = None

    async def make_dirty(self, file: File) -> None:
        """The server has the content of *file* no more: keep it here, to be sent again."""
        if file.spool is None:
            await self._make_spool(file, keep=None)

    async def make_local(self, file: File) -> None:
        """Keep the content of a held file here only; the caller deletes what the server has."""
        await self.make_dirty(file)
        self._namespace.lose_remote(file)

    def _take_spool(self, file: File, spool: Spool) -> None:
        """Let *spool* be what *file* holds, once the journal knows it: a crash does not lose it.

        Raises:
            NoSpace, LocalFault: It can't be recorded; the file is as it was, the spool gone.
        """
        try:
            self._record(file, spool)
        except FileSystemError:
            spool.discard()
            raise
        file.spool = spool

    def _record(self, file: File, spool: Spool) -> None:
        container = file.container
        if container is None:
            return
        self._namespace.local(file)
        self._namespace.save(file)
        if file.entry is None:
            file.entry = self._journal.begin(
                container_id=container.remote.id,
                path=file.path,
                spool=spool.path.name,
                replaces=file.remote_ids,
                held=self._scratch.matches(file.name),
            )
        else:
            self._journal.update(file.entry, spool=spool.path.name)


def _report(file: File) -> None:
    """Raise what went wrong in the background, once."""
    error, file.unreported = file.unreported, None
    if error is not None:
        raise type(error)(str(error), retriable=error.retriable) from error


def _or_all(keep: int | None, size: int) -> int:
    return size if keep is None else keep


def check_writable(node: Node) -> None:
    """Raises:
    ReadOnly: The container has expired.
    NotPermitted: Uploads can't get there.
    """
    container = node.container
    if container is None:
        return
    if container.is_snapshot:
        raise ReadOnly(f"container {container.remote.id} has expired")
    if node.path.partition("/")[0] == OUTSIDE:
        raise NotPermitted("files outside /mnt/data can be read and removed, not written")


def check_can_change(directory: Directory) -> None:
    """Raises:
    ReadOnly: The container has expired.
    NotPermitted: Files can't be made in this directory.
    """
    if directory.container is None:
        raise NotPermitted("the top level holds containers only")
    check_writable(directory)
