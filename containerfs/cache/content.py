"""File content on disk, by version: what was downloaded or uploaded once is not fetched again.

Small contents are side by side in packs, larger ones and those of unknown size have a file each.

Complete content only is indexed, so what a crash cut off is never taken for a file. Content in
use is pinned; the rest makes room for what arrives, so that all of it together stays within
`limit`. Only what was uploaded here, or is needed whole, may pass it while it is in use. On a full
disk, too, other content goes before anything fails.
"""

import logging
import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import (
    Content,
    PackedContent,
    Parked,
    content_name,
    local_disk,
    sync,
)
from containerfs.cache.index import ContentIndex
from containerfs.cache.packs import LARGEST, Packs
from containerfs.cache.room import Room
from containerfs.cache.shelf import Shelf
from containerfs.errors import NoSpace

log = logging.getLogger(__name__)

WRITE_INTERVAL = 5.0  # seconds; what came since is fetched again after a crash
SYNC_INTERVAL = 60.0  # seconds; what came since is fetched again after a power cut
UNORDERED = ".parts"  # what the file's name ends in while it is filled out of order
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ContentStore:
    """The cache directory and its index."""

    def __init__(
        self,
        *,
        directory: Path,
        connection: sqlite3.Connection,
        limit: int,
        largest_packed: int = LARGEST,
        after_power_cut: bool = False,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        directory: Ours alone; made if missing.
        limit: Bytes of disk to use.
        largest_packed: Bytes of a content that goes into a pack.
        after_power_cut: What was not synced may be lost.
        check_room: Raises NoSpace where others need what is left of the disk.
        """
        self._check_room = check_room
        self._directory = directory
        self._prefix = f"{directory}/"  # pathlib's joins are slow where there are many small files
        with local_disk("opening the cache"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = ContentIndex(connection, after_power_cut=after_power_cut)
        self._packs = Packs(directory)
        self._room = Room(directory=directory, index=self._index, packs=self._packs, limit=limit)
        self._largest_packed = largest_packed
        self._shelf = Shelf(directory=directory, index=self._index, packs=self._packs)
        self._shelf.tidy()
        self._room.evict()

    # Complete content.

    def pin(self, file: RemoteFile) -> Content | None:
        """This version's complete content, pinned; None where it is not here."""
        name = content_name(file)
        content = self._room.open.get(name)
        if content is not None and content.complete:
            content.pins += 1
            return content
        if name not in self._index:
            return None
        content = self._shelf.take(name)
        if content is None:
            self._room.remove(name)
            return None
        self._index.touch(name)
        return self._opened(content)

    def unpin(self, content: Content) -> None:
        """Give a pin back; the last one lets it be evicted."""
        self._room.unpin(content)

    def has(self, name: str) -> bool:
        """Whether the complete content of the version of this name is here."""
        return name in self._index

    def size_of(self, file: RemoteFile) -> int | None:
        """The true size of this version where its content is here, else None."""
        return self._index.size(content_name(file))

    def adopt(self, path: Path, fd: int, file: RemoteFile, *, size: int) -> Content:
        """Take the spool file at *path*, open as *fd*, as the pinned content of *file*.

        Raises:
            LocalFault: It can't be moved into the cache; *path* and *fd* stay the caller's.
        """
        name = content_name(file)
        with local_disk("keeping an upload"):
            os.rename(path, self._prefix + name)
        self._room.unpark(name)
        content = self._opened(Content(name=name, fd=fd, size=size, complete=True))
        self._keep(content, size)
        return content

    def keep(self, file: RemoteFile, data: bytes) -> Content:
        """Take *data* as the pinned content of *file*; what is small is copied so, to where it is
        cheap to keep, and its spool can be used again.

        Raises:
            NoSpace, LocalFault: It can't be kept.
        """
        content = self.begin(content_name(file), size=len(data))
        try:
            self.write(content, data, 0)
            self.commit(content, size=len(data))
        except BaseException:
            self.unpin(content)
            raise
        return content

    def alias(self, file: RemoteFile, other: RemoteFile) -> None:
        """Keep the complete content of *file* under *other* too: the same bytes, uploaded anew."""
        source, target = content_name(file), content_name(other)
        if source == target:
            return
        self._room.unpark(target)
        if target in self._index or target in self._room.open:
            # A server that keeps ids can tell two contents alike: the older is not to be believed.
            self._room.open.pop(target, None)
            self._room.remove(target)
            return
        self._shelf.link(source, target)
        self._room.evict()

    def discard(self, file: RemoteFile) -> None:
        """The version is gone from the server: its content need not be kept."""
        name = content_name(file)
        self._room.unpark(name)
        if name in self._index and name not in self._room.open:
            self._room.remove(name)

    def save(self) -> None:
        """Remember for the next mount in which order content was used."""
        self._index.save()

    async def run(self) -> None:
        """Index what is new now and again, until cancelled, and sync it less often: it outlives a
        crash, and a power cut, then."""
        while True:
            due = trio.current_time() + SYNC_INTERVAL
            while trio.current_time() < due:
                await trio.sleep(WRITE_INTERVAL)
                self._index.write()
            await self.sync()

    async def sync(self) -> None:
        """Have all complete content survive a power cut; what fails is tried again later."""
        names = self._index.unsynced()
        try:
            files = {self._shelf.file(name) for name in names}
            await trio.to_thread.run_sync(sync, [self._directory / file for file in files])
        except OSError as exc:
            log.warning("the cache can't be synced: %s", exc)
        else:
            self._index.synced(names)

    def _opened(self, content: Content) -> Content:
        self._room.open[content.name] = content
        return content

    def _keep(self, content: Content, size: int) -> None:
        """*content* is what is kept under its name from now on."""
        name = content.name
        if name in self._index and (content.address, self._index.address(name)) != (None, None):
            self._room.remove(name)  # a file in the place of a file has replaced it already
        self._shelf.put(content, size)
        self._room.evict()

    # Content that is being filled.

    def begin(self, name: str, *, size: int | None, in_order: bool = True) -> Content:
        """An empty, pinned content for this version, to be filled and then committed.

        Args:
            name: Of the version, as `content_name` has it.
            size: Bytes; None where nobody knows.
            in_order: It is filled from its start to its end; else it may be as long as the whole
                before it is complete, and its file has another name until then.

        Raises:
            NoSpace, LocalFault: The cache file can't be made.
        """
        self._room.unpark(name)
        if size is not None and 0 < size <= self._largest_packed and in_order:
            address = self._take(size)
            if address is not None:
                return self._opened(
                    PackedContent(
                        name=name,
                        packs=self._packs,
                        address=address,
                        size=size,
                        complete=False,
                    )
                )
        return self._make(name, size=size, file=name if in_order else name + UNORDERED)

    def _take(self, size: int) -> int | None:
        while True:
            try:
                return self._packs.take(size)
            except OSError as exc:
                self._room.free_or_fail(exc, "making a cache file")

    def begin_nameless(self) -> Content:
        """An empty, pinned content that is no version's; it is gone with its last pin.

        Raises:
            NoSpace, LocalFault: The cache file can't be made.
        """
        name = secrets.token_hex(20)
        return self._make(name, size=None, file=name)

    def begin_in_memory(self) -> Content:
        """`begin_nameless`, where the disk is full; it is in no file of the cache directory.

        Raises:
            LocalFault: It can't be made.
        """
        with local_disk("making a cache file in memory"):
            fd = os.memfd_create("content", os.MFD_CLOEXEC)
        return Content(name=secrets.token_hex(20), fd=fd, size=None, complete=False, in_memory=True)

    def _make(self, name: str, *, size: int | None, file: str) -> Content:
        path = self._prefix + file
        while True:
            try:
                fd = os.open(path, _NEW, 0o600)
                break
            except FileExistsError:
                with local_disk("making a cache file"):
                    os.unlink(path)
            except OSError as exc:
                self._room.free_or_fail(exc, "making a cache file")
        return self._opened(Content(name=name, fd=fd, size=size, complete=False, file=file))

    def could_hold(self, size: int) -> bool:
        """Whether *size* more bytes fit, if all is evicted that can be."""
        return self._room.could_hold(size)

    def make_room(self, content: Content, size: int, *, always: bool = False) -> bool:
        """Grant *content* the disk for its first *size* bytes, evicting others for it.

        Args:
            always: Grant it also where it does not fit.

        Returns:
            Whether it was granted; if not, nothing was evicted.
        """
        return self._room.grant(content, size, always=always)

    def write(self, content: Content, data: bytes | memoryview, offset: int) -> None:
        """Write all of *data*; on a full disk other content goes for it.

        Raises:
            NoSpace, LocalFault: Part of it may have been written.
        """
        view = memoryview(data)
        while view:
            try:
                if not content.in_memory:
                    self._check_room()
                count = content.write(view, offset)
            except (OSError, NoSpace) as exc:
                self._room.free_or_fail(exc, "writing the cache")
                continue
            view, offset = view[count:], offset + count

    def commit(self, content: Content, *, size: int) -> None:
        """All *size* bytes of *content* are there: keep it."""
        is_named = self._room.open.get(content.name) is content  # else it was begun anew
        if is_named and content.file != content.name:
            with local_disk("keeping a download"):
                os.rename(self._prefix + content.file, self._prefix + content.name)
            content.file = content.name
        content.size = size
        content.complete = True
        self._room.give_back(content)
        if is_named:
            self._keep(content, size)

    def park(self, parked: Parked) -> None:
        """Keep what there is of a content until room is needed; it takes a pin of its own."""
        content = parked.content
        if self._room.open.get(content.name) is content:
            content.pins += 1
            self._room.park(parked)

    def resume(self, name: str) -> Parked | None:
        """What was parked of the version of this name; its pin is the caller's."""
        return self._room.resume(name)

    def free(self, size: int) -> bool:
        """Evict *size* bytes for others on this disk, or all that can be; whether anything was."""
        return self._room.free(size)
