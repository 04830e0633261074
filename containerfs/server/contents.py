"""The bytes of files, each in a file of its own below the data directory.

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
from pathlib import Path

INLINE = 1024 * 1024  # bytes: up to here the disk is touched without a thread
_HEAD = 1024  # bytes of an upload's start that are kept for a look
_FEW = 100  # contents that are removed without a thread
REGISTRY = 0  # the place of registered files; containers count from 1


class Incoming:
    """Content that is arriving. Closed by `Contents.keep` or by `discard`.

    What is small is in memory until it is whole, and then written to its place at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0  # bytes so far
        self.head = b""  # the first of them
        self._fd = -1
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._lock = threading.Lock()  # whoever closes waits for the thread that writes

    async def write(self, data: bytes) -> None:
        """Append *data*; large amounts are written by a thread."""
        if len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        self.size += len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= INLINE:
            pending, self._pending, self._pending_size = self._pending, [], 0
            if self._fd < 0:
                self._fd = _create(self.path)
            await asyncio.to_thread(self._write_all, pending)

    def finish(self, place: Path) -> None:
        """Have all of it at *place*, closed.

        Raises:
            FileNotFoundError: There is no such directory; it can be tried again.
        """
        is_small = self._fd < 0
        if is_small:
            self._fd, self.path = _create(place), place
        self._write_all(self._pending)
        self._pending = []
        if not is_small:
            os.rename(self.path, place)
        self._close()

    def discard(self) -> None:
        """Forget it all; does nothing to content that was kept."""
        if self._close():
            self.path.unlink(missing_ok=True)

    def _close(self) -> bool:
        """Close the file; whether it was open."""
        with self._lock:
            if self._fd < 0:
                return False
            os.close(self._fd)
            self._fd = -1
            return True

    def _write_all(self, pieces: list[bytes]) -> None:
        data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)


class Contents:
    """All content of one server. A place is a container's sequence number, or REGISTRY."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"  # also of what is on its way out
        self._remover = ThreadPoolExecutor(max_workers=1)
        self._is_closing = threading.Event()
        shutil.rmtree(self._incoming, ignore_errors=True)  # what a former server left half done
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)

    def receive(self) -> Incoming:
        """A new incoming content, empty."""
        return Incoming(self._incoming / secrets.token_hex(16))

    def keep(self, incoming: Incoming, *, place: int) -> str:
        """Put an incoming content into its place; returns its key."""
        key = incoming.path.name
        try:
            incoming.finish(self.path(place, key))
        except FileNotFoundError:
            self._make(place)
            incoming.finish(self.path(place, key))
        return key

    def copy(self, *, source: int, key: str, place: int) -> str:
        """Give another place the same content; returns its key there."""
        copied = secrets.token_hex(16)
        self._make(place)
        try:
            os.link(self.path(source, key), self.path(place, copied))
        except OSError as exc:
            if exc.errno not in (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP):
                raise
            shutil.copyfile(self.path(source, key), self.path(place, copied))
        return copied

    def open(self, place: int, key: str) -> int:
        """A descriptor to read the content from; it stays readable after `remove`."""
        return os.open(self.path(place, key), os.O_RDONLY | os.O_NOFOLLOW)

    def remove(self, place: int, key: str) -> None:
        """Remove one content."""
        self.path(place, key).unlink(missing_ok=True)

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
        for place in self._root.iterdir():
            if place.name.isdecimal():
                for content in place.iterdir():
                    if (int(place.name), content.name) not in known:
                        content.unlink()

    def path(self, place: int, key: str) -> Path:
        """Where a content is on the disk."""
        return self._root / str(place) / key

    def _remove_all(self, condemned: Path) -> None:
        for content in condemned.iterdir():
            if self._is_closing.is_set():
                return
            content.unlink()
        condemned.rmdir()

    def _make(self, place: int) -> None:
        (self._root / str(place)).mkdir(mode=0o700, exist_ok=True)
