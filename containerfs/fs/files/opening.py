"""Opening files, and making new ones."""

import logging
import os

from containerfs.errors import (
    Conflict,
    Exists,
    FileSystemError,
    IsADirectory,
    NotFound,
    Stale,
    WrongLength,
)
from containerfs.fs.files.closing import Closing
from containerfs.fs.files.prefetch import Prefetch
from containerfs.fs.files.reading import Reading
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.files.writing import Writing
from containerfs.fs.kernel.handles import FileHandle, Handles
from containerfs.fs.kernel.pages import take_attributes_back
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.tree.attributes import begin, drop_privileges
from containerfs.fs.tree.nodes import Directory, File
from containerfs.fs.tree.permissions import check_can_change, check_writable
from containerfs.fs.tree.places import Places
from containerfs.fs.tree.tree import Tree

log = logging.getLogger(__name__)

VERSIONS = 3  # of a file that is replaced while it is being opened: as many are tried


class Opening:
    """Gives out handles of files."""

    def __init__(
        self,
        *,
        handles: Handles[FileHandle],
        tree: Tree,
        places: Places,
        namespace: Namespace,
        reading: Reading,
        writing: Writing,
        closing: Closing,
        spooling: Spooling,
        prefetch: Prefetch,
    ) -> None:
        self._handles = handles
        self._tree = tree
        self._places = places
        self._namespace = namespace
        self._reading = reading
        self._writing = writing
        self._closing = closing
        self._spooling = spooling
        self._prefetch = prefetch

    async def open(self, file: File, flags: int, *, pid: int = 0, uid: int = 0) -> tuple[int, bool]:
        """Open *file*.

        Args:
            pid: The process that does.
            uid: Who does.

        Returns:
            The handle, and whether what the kernel has cached of the content still holds.

        Raises:
            Stale: It is gone; the kernel looks the name up again.
            NotFound: The server lists it and does not have it.
            FileSystemError: Its content is needed, and can't be had.
            ReadOnly, NotPermitted: It can't be written.
        """
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if file.spool is None and file.parent is not None:
            await self._namespace.refresh(file, early=not (writes or flags & os.O_TRUNC))
        _check_is_there(file)
        if writes or flags & os.O_TRUNC:
            check_writable(file)
        if file.size is None and not flags & os.O_TRUNC:
            await self._reading.find_size(file)
        if _reads(flags):
            is_elsewhere = self._reading.is_elsewhere(file)
            if not writes:
                self._prefetch.opened(file, pid, is_elsewhere=is_elsewhere)
            if is_elsewhere:
                await self._begin_reading(file, writes=writes)
                _check_is_there(file)
        fh = self._add_handle(file, flags)
        keep_cache = file.pages_valid
        if not keep_cache:
            take_attributes_back(file)
        if flags & os.O_TRUNC:
            was_empty = file.size == 0
            if uid and file.local is not None:
                drop_privileges(file.local)
            try:
                await self._writing.truncate(file, 0)  # an empty one's times change, too
            except BaseException:
                self._closing.release(fh)
                raise
            if not was_empty:
                self._handles[fh].wrote = True
                keep_cache = False
        file.pages_valid = True
        return fh, keep_cache

    async def _begin_reading(self, file: File, *, writes: bool) -> None:
        """Have the beginning of a small *file* here; that of now, where it was just replaced.

        Until it is open it can still become what the server has now. Then it keeps its version,
        and could only fail to be read. Who may want to write only is not kept from that.
        """
        for _ in range(VERSIONS):
            remote = file.remote
            try:
                return await self._reading.begin(file)
            except (NotFound, WrongLength) as exc:
                if file.parent is None:
                    raise Stale(f"inode {file.ino} is gone") from exc
                if file.remote is remote and file.spool is None:
                    raise
            except FileSystemError:
                if file.spool is None and not writes:
                    raise
                return None
        raise Conflict(f"{file.path!r} is replaced again and again")

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
        spool = self._spooling.new()
        file = self._places.new_file(directory, name)
        begin(file, self._tree.local(file), mode=mode, uid=uid, gid=gid)
        try:
            self._spooling.take_spool(file, spool, new_in=directory)
        except FileSystemError:
            self._take_back(file)
            raise
        return self._add_handle(file, flags), file

    def _take_back(self, file: File) -> None:
        """*file* could not be made: nothing of it stays, but what the journal can't forget."""
        try:
            self._spooling.drop_changes(file)
            self._tree.orphan(file)
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


def _check_is_there(file: File) -> None:
    """Have the kernel look the name up again where *file* has none, and nobody has it open."""
    if file.parent is None and not file.opens:
        raise Stale(f"inode {file.ino} is gone")


def _reads(flags: int) -> bool:
    """Whether a file that is opened with these flags is likely to be read: appending does, too."""
    if flags & os.O_TRUNC:
        return False
    return flags & os.O_ACCMODE != os.O_WRONLY or bool(flags & os.O_APPEND)
