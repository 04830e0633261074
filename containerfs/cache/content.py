"""File content on disk, by version: what was downloaded or uploaded once is not fetched again.

Complete content only is indexed, so what a crash cut off is never taken for a file. Content in
use is pinned; of the rest the least recently used goes first once `limit` is passed.
"""

import hashlib
import logging
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from containerfs.api.types import RemoteFile
from containerfs.errors import LocalFault, NoSpace, from_os_error

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS content(
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
"""


@contextmanager
def local_disk(what: str) -> Iterator[None]:
    """Turn our own disk's failures inside into ours: a missing cache file is not a missing file."""
    try:
        yield
    except OSError as exc:
        raise from_os_error(exc, what) from exc


@contextmanager
def _not_indexed() -> Iterator[None]:
    """Go on where the index fails inside: the next mount checks it against what is on disk."""
    try:
        yield
    except (NoSpace, LocalFault) as exc:
        log.warning("the index of the cache is not up to date: %s", exc)


def content_name(file: RemoteFile) -> str:
    """The cache file's name for this version of a file: hex, whatever the ids hold."""
    key = "\0".join((file.container_id, file.id, str(file.created), str(file.size)))
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


class Content:
    """One version's bytes in an open cache file.

    Attributes:
        size: Bytes; while it is being filled, None where the server did not tell.
        complete: All bytes are there. Until then only who fills it knows how many are.
    """

    __slots__ = ("complete", "fd", "name", "pins", "size")

    def __init__(self, *, name: str, fd: int, size: int | None, complete: bool) -> None:
        self.name = name
        self.fd = fd
        self.size = size
        self.complete = complete
        self.pins = 1

    def read(self, offset: int, size: int) -> bytes:
        """What is on disk there; the caller knows that it has arrived.

        Raises:
            LocalFault: The cache file can't be read.
        """
        try:
            return os.pread(self.fd, size, offset)
        except OSError as exc:
            raise from_os_error(exc, "reading the cache") from exc


class ContentStore:
    """The cache directory and its index."""

    def __init__(self, *, directory: Path, connection: sqlite3.Connection, limit: int) -> None:
        """Args:
        directory: Ours alone; made if missing.
        limit: Bytes to keep. Content in use is never evicted, so more may be there for a while.
        """
        self._directory = directory
        self._connection = connection
        self._limit = limit
        self._open: dict[str, Content] = {}
        with local_disk("opening the cache"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection.executescript(SCHEMA)
        self._sizes: OrderedDict[str, int] = OrderedDict(
            connection.execute("SELECT name, size FROM content ORDER BY used")
        )
        self._total = sum(self._sizes.values())
        self._remove_strangers()
        self._evict()

    def _remove_strangers(self) -> None:
        with local_disk("tidying the cache"):
            present = {entry.name for entry in os.scandir(self._directory)}
            for name in present - self._sizes.keys():
                (self._directory / name).unlink()
        for name in self._sizes.keys() - present:
            self._drop(name)

    def pin(self, file: RemoteFile) -> Content | None:
        """This version's complete content, pinned; None where it is not here."""
        name = content_name(file)
        content = self._open.get(name)
        if content is not None and content.complete:
            content.pins += 1
            return content
        size = self._sizes.get(name)
        if size is None:
            return None
        try:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            log.warning("cache file %s is lost: %s", name, exc)
            self._drop(name)
            return None
        if os.fstat(fd).st_size != size:
            log.warning("cache file %s has the wrong size, dropped", name)
            os.close(fd)
            self._drop(name)
            return None
        self._sizes.move_to_end(name)
        content = self._open[name] = Content(name=name, fd=fd, size=size, complete=True)
        return content

    def begin(self, file: RemoteFile) -> Content:
        """An empty, pinned content for this version, to be filled and then committed.

        Raises:
            NoSpace, LocalFault: The cache file can't be made.
        """
        name = content_name(file)
        path = self._directory / name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with local_disk("making a cache file"):
            path.unlink(missing_ok=True)
            fd = os.open(path, flags, 0o600)
        content = self._open[name] = Content(name=name, fd=fd, size=file.size, complete=False)
        return content

    def commit(self, content: Content, *, size: int) -> None:
        """All *size* bytes of *content* are in its file: keep it."""
        content.size = size
        content.complete = True
        self._index(content.name, size)

    def adopt(self, path: Path, fd: int, file: RemoteFile, *, size: int) -> Content:
        """Take the spool file at *path*, open as *fd*, as the pinned content of *file*.

        Raises:
            LocalFault: It can't be moved into the cache; *path* and *fd* stay the caller's.
        """
        name = content_name(file)
        with local_disk("keeping an upload"):
            os.rename(path, self._directory / name)
        content = self._open[name] = Content(name=name, fd=fd, size=size, complete=True)
        self._index(name, size)
        return content

    def alias(self, file: RemoteFile, other: RemoteFile) -> None:
        """Keep the complete content of *file* under *other* too: the same bytes, uploaded anew."""
        source, target = content_name(file), content_name(other)
        if source == target:
            return
        if target in self._sizes or target in self._open:
            # A server that keeps ids can tell two contents alike: the older is not to be believed.
            self._open.pop(target, None)
            self._remove(target)
            return
        size = self._sizes.get(source)
        if size is None:
            return
        with local_disk("keeping an upload"):
            (self._directory / target).unlink(missing_ok=True)
            os.link(self._directory / source, self._directory / target)
        self._index(target, size)

    def unpin(self, content: Content) -> None:
        """Give a pin back; the last one closes the file, and lets it be evicted."""
        content.pins -= 1
        if content.pins:
            return
        os.close(content.fd)
        if self._open.get(content.name) is content:
            del self._open[content.name]
            if not content.complete:
                (self._directory / content.name).unlink(missing_ok=True)
        self._evict()

    def size_of(self, file: RemoteFile) -> int | None:
        """The true size of this version where its content is here, else None."""
        return self._sizes.get(content_name(file))

    def discard(self, file: RemoteFile) -> None:
        """The version is gone from the server: its content need not be kept."""
        name = content_name(file)
        if name in self._sizes and name not in self._open:
            self._remove(name)

    def save(self) -> None:
        """Remember for the next mount in which order content was used."""
        rows = [(rank, name) for rank, name in enumerate(self._sizes)]
        update = "UPDATE content SET used = ? WHERE name = ?"
        with _not_indexed():
            self._connection.execute("BEGIN")
            try:
                self._connection.executemany(update, rows)
            finally:
                self._connection.execute("COMMIT")

    def _index(self, name: str, size: int) -> None:
        self._total += size - self._sizes.pop(name, 0)
        self._sizes[name] = size
        with _not_indexed():
            self._connection.execute(
                "INSERT OR REPLACE INTO content "
                "VALUES(?, ?, (SELECT 1 + ifnull(max(used), 0) FROM content))",
                (name, size),
            )
        self._evict()

    def _evict(self) -> None:
        if self._total <= self._limit:
            return
        for name in [name for name in self._sizes if name not in self._open]:
            self._remove(name)
            if self._total <= self._limit:
                return

    def _remove(self, name: str) -> None:
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as exc:
            log.warning("can't remove cache file %s: %s", name, exc)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._total -= self._sizes.pop(name, 0)
        with _not_indexed():
            self._connection.execute("DELETE FROM content WHERE name = ?", (name,))
