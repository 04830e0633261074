"""The bytes of files: large ones each in a file of its own, small ones in the pack of their place.

Content never changes once it is in place; what is coming in is elsewhere until it is whole.
"""

import asyncio
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from containerfs.server import packs
from containerfs.server.packs import Stretch, stretch_of

INLINE = 1024 * 1024  # bytes: up to here the disk is touched without a thread
_HEAD = 1024  # bytes of an upload's start that are kept for a look
_FEW = 100  # contents that are removed without a thread
REGISTRY = 0  # the place of registered files; containers count from 1


class Incoming:
    """Content that is arriving. Closed by `Contents.keep` or by `discard`.

    What is small is in memory until it is whole, and then written to its place at once.

    Args:
        directory: Where a large one is until it is whole.
    """

    def __init__(self, directory: Path) -> None:
        self.size = 0  # bytes so far
        self._directory = directory
        self._path = directory  # of its file, once there is one
        self._fd = -1
        self._buffer = memoryview(bytearray(packs.LARGEST))
        self._filled = 0  # bytes of the buffer
        self._head = b""  # once the buffer no longer begins with it
        self._lock = threading.Lock()  # whoever closes waits for the thread that writes

    @property
    def head(self) -> bytes:
        """The first bytes."""
        return self._head or bytes(self._buffer[: min(_HEAD, self._filled)])

    @property
    def pending(self) -> memoryview:
        """What is in memory: all of it, up to INLINE bytes."""
        return self._buffer[: self._filled]

    async def write(self, data: bytes | memoryview) -> None:
        """Append *data*; large amounts are written by a thread."""
        rest = memoryview(data)
        while rest:
            if self._filled == len(self._buffer):
                await self._make_room()
            piece = rest[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            self.size += len(piece)
            rest = rest[len(piece) :]

    async def _make_room(self) -> None:
        if len(self._buffer) < INLINE:
            larger = memoryview(bytearray(INLINE))
            larger[: self._filled] = self._buffer
            self._buffer = larger
            return
        if self._fd < 0:
            self._head = self.head
            self._open(self._directory / secrets.token_hex(16))
        await asyncio.to_thread(self._write_all)

    def finish(self, place: Path) -> None:
        """Have all of it in a file at *place*, closed.

        Raises:
            FileNotFoundError: There is no such directory; it can be tried again.
        """
        is_in_memory = self._fd < 0
        if is_in_memory:
            self._open(place)
        self._write_all()
        if not is_in_memory:
            os.rename(self._path, place)
        self._close()

    def discard(self) -> None:
        """Forget it all; does nothing to content that was kept."""
        if self._close():
            self._path.unlink(missing_ok=True)

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._fd, self._path = os.open(path, flags, 0o600), path

    def _close(self) -> bool:
        """Close the file; whether it was open."""
        with self._lock:
            if self._fd < 0:
                return False
            os.close(self._fd)
            self._fd = -1
            return True

    def _write_all(self) -> None:
        with self._lock:
            rest = self.pending
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._filled = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A content to read: where in which file it begins. Whoever reads closes it.

    What is in a pack is gone as soon as it is removed; a file of its own stays readable.
    """

    fd: int
    start: int


class Contents:
    """All content of one server. A place is a container's sequence number, or REGISTRY."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"  # also of what is on its way out
        self._remover = ThreadPoolExecutor(max_workers=1)
        self._is_closing = threading.Event()
        shutil.rmtree(self._incoming, ignore_errors=True)  # what a former server left half done
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._largest_packed = packs.LARGEST if packs.can_punch(self._incoming) else -1

    def receive(self) -> Incoming:
        """A new incoming content, empty."""
        return Incoming(self._incoming)

    def keep(self, incoming: Incoming, *, place: int) -> str:
        """Put an incoming content into its place; returns its key."""
        try:
            return self._place(incoming, place)
        except FileNotFoundError:
            self._make(place)
            return self._place(incoming, place)

    def _place(self, incoming: Incoming, place: int) -> str:
        if incoming.size <= self._largest_packed:
            return packs.append(self._path(place, packs.NAME), incoming.pending).key
        key = secrets.token_hex(16)
        incoming.finish(self._path(place, key))
        return key

    def copy(self, *, source: int, key: str, place: int) -> str:
        """Give another place the same content; returns its key there."""
        self._make(place)
        stretch = stretch_of(key)
        if stretch:
            opened = self.open(source, key)
            data = os.pread(opened.fd, stretch.size, opened.start)
            os.close(opened.fd)
            return packs.append(self._path(place, packs.NAME), data).key
        copied = secrets.token_hex(16)
        try:
            os.link(self._path(source, key), self._path(place, copied))
        except OSError as exc:
            if exc.errno not in (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP):
                raise
            shutil.copyfile(self._path(source, key), self._path(place, copied))
        return copied

    def open(self, place: int, key: str) -> Opened:
        """The content, to read from."""
        stretch = stretch_of(key)
        path = self._path(place, packs.NAME if stretch else key)
        return Opened(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), stretch.start if stretch else 0)

    def remove(self, place: int, key: str) -> None:
        """Remove one content."""
        stretch = stretch_of(key)
        if stretch:
            packs.remove(self._path(place, packs.NAME), stretch)
        else:
            self._path(place, key).unlink(missing_ok=True)

    def remove_place(self, place: int) -> None:
        """Remove all content of a container; a thread goes on with a large one."""
        condemned = self._incoming / secrets.token_hex(16)
        try:
            os.rename(self._root / str(place), condemned)
        except FileNotFoundError:
            return
        if len(os.listdir(condemned)) <= _FEW:
            shutil.rmtree(condemned)
        else:
            self._remover.submit(self._remove_all, condemned)

    def close(self) -> None:
        """Stop removing; the next start goes on with it."""
        self._is_closing.set()
        self._remover.shutdown(cancel_futures=True)

    def sweep(self, known: Collection[tuple[int, str]]) -> None:
        """Remove content that isn't known: what was in its place before its row could be."""
        packed = _packed(known)
        for directory in self._root.iterdir():
            if directory.name.isdecimal():
                place = int(directory.name)
                for content in directory.iterdir():
                    if content.name == packs.NAME:
                        packs.tidy(content, packed.get(place, ()))
                    elif (place, content.name) not in known:
                        content.unlink()

    def extend(self, known: Collection[tuple[int, str]]) -> None:
        """Have each pack reach to its last known content: a power cut may have cut it short, and
        what is appended must not come to lie where something else should be."""
        for place, stretches in _packed(known).items():
            self._make(place)
            packs.extend(self._path(place, packs.NAME), max(each.end for each in stretches))

    def _path(self, place: int, key: str) -> Path:
        return self._root / str(place) / key

    def _remove_all(self, condemned: Path) -> None:
        for content in condemned.iterdir():
            if self._is_closing.is_set():
                return
            content.unlink()
        condemned.rmdir()

    def _make(self, place: int) -> None:
        (self._root / str(place)).mkdir(mode=0o700, exist_ok=True)


def _packed(known: Collection[tuple[int, str]]) -> dict[int, list[Stretch]]:
    """What of this is in packs, by place."""
    packed: dict[int, list[Stretch]] = {}
    for place, key in known:
        stretch = stretch_of(key)
        if stretch:
            packed.setdefault(place, []).append(stretch)
    return packed
