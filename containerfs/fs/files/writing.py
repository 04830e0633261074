"""Writing to files, and cutting them off."""

from containerfs.errors import BadHandle, NotFound, Stale, TooLarge
from containerfs.fs.files.reading import Reading
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.kernel.handles import FileHandle, Handles
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.tree.attributes import now_ns
from containerfs.fs.tree.nodes import File
from containerfs.fs.tree.permissions import check_writable
from containerfs.fs.tree.tree import Tree


class Writing:
    """Changes the content of files; closing them sends it."""

    def __init__(
        self,
        *,
        handles: Handles[FileHandle],
        tree: Tree,
        reading: Reading,
        spooling: Spooling,
        sending: Sending,
        max_file_size: int,
    ) -> None:
        self._handles = handles
        self._tree = tree
        self._reading = reading
        self._spooling = spooling
        self._sending = sending
        self._max_file_size = max_file_size

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write all of *data*; where the handle appends, at what is the end by now.

        What a shared mapping of an appending handle changed comes back below the end, and stays
        there: the kernel's `fuse_writepages` uses the handle that was mapped. So does what comes
        beyond it: the kernel appends where it takes the end to be, so that this handle appends no
        more (fcntl's F_SETFL).

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
                await self._spooling.make_spool(file, keep=None)
            except NotFound as exc:  # write(2) knows no ENOENT
                raise Stale(f"{file.path!r} was replaced by others meanwhile") from exc
        told = max(file.told_size, offset + len(data))
        if handle.appends and offset == file.told_size:
            offset = file.spool.size
            self._check_size(file, offset + len(data))
        handle.wrote = True
        file.told_size = told
        self._spooling.write(file.spool, offset, data)
        self._touch(file)
        return len(data)

    async def truncate(self, file: File, size: int) -> None:
        """Cut, or grow with zeros; the content becomes dirty, unless that is its size already.

        Raises:
            TooLarge: *size* is over `max_file_size`.
        """
        self._check_size(file, size)
        if file.size is None and size:
            await self._reading.find_size(file)
        if file.size != size:
            while file.spool is None or file.spool.frozen:
                await self._spooling.make_spool(file, keep=size)
            file.spool.truncate(size)
        file.told_size = size
        self._touch(file)
        if file.spool is None:
            self._tree.save(file)  # nothing is sent, after which that would be done

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

    def _check_size(self, file: File, size: int) -> None:
        if size > self._max_file_size:
            raise TooLarge(f"{file.path!r} would pass {self._max_file_size} bytes")

    def _touch(self, file: File) -> None:
        """The content changed now."""
        local = self._tree.local(file)
        local.mtime_ns = local.ctime_ns = now_ns()
