"""A file as one part of a multipart request, framed here so that it streams from disk.

The length is known before the first byte is sent, a small file goes out in one piece, and the file
is read with `pread`, so that several attempts and several readers never disturb one another.
"""

import mimetypes
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable

import httpx
import trio

from containerfs.errors import LocalFault, from_os_error

PIECE = 256 * 1024  # bytes read at a time: what fits the processor's cache is copied fastest
SMALL = 64 * 1024  # bytes of a file that is sent together with its frames

_PLAIN = re.compile('[^\x00-\x1f\x7f"\\\\\ud800-\udfff]*')  # what needs no escape


class FilePart(httpx.AsyncByteStream):
    """The body of an upload: exactly *size* bytes of *fd*, from its start, between two frames.

    A piece is valid until the next one is asked for.

    Args:
        name: What the server is to call the file; any text, also with slashes.
        fd: A regular file, open for reading, whose position is neither used nor moved.
        progress: Told how many bytes of the file have been handed to the network so far.
    """

    def __init__(
        self, *, name: str, fd: int, size: int, progress: Callable[[int], None] | None
    ) -> None:
        boundary = secrets.token_hex(16)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{quoted(name)}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._fd = fd
        self._size = size
        self._progress = progress
        self._buffer = memoryview(b"")  # until something is read
        self._at = -1  # bytes of the file handed out; -1 before the head
        self.is_whole = False  # the last byte has been handed out
        self.content_type = f"multipart/form-data; boundary={boundary}"

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    @property
    def is_brief(self) -> bool:
        """It is sent in one piece."""
        return self._size <= SMALL

    def at_once(self) -> bytes | None:
        """The whole body, to be sent in place of the pieces; `taken` tells that it was.

        Returns:
            None where it is not brief, or some of it must come from the disk.
        """
        if not self.is_brief:
            return None
        content = bytearray(self._size)
        try:
            count = os.preadv(self._fd, [content], 0, os.RWF_NOWAIT) if content else 0
        except OSError:  # a file system that cannot tell, or the pieces will
            return None
        if count < self._size:
            return None
        return b"".join((self._head, content, self._tail))

    def taken(self) -> None:
        """The network has what `at_once` gave."""
        self.is_whole = True
        if self._progress is not None:
            self._progress(self._size)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._progress is not None and self._at >= 0:
            self._progress(self._at)  # the piece before this one has been taken
        if self.is_whole:
            raise StopAsyncIteration
        if self._at < 0:
            self._at = 0
            return await self._whole() if self.is_brief else self._head
        if self._at == self._size:
            self.is_whole = True
            return self._tail
        await trio.lowlevel.checkpoint()  # a fast server would let nobody else go on
        return await self._read()  # type: ignore[return-value]  # whoever sends it takes views

    async def _whole(self) -> bytes:
        content = await self._read() if self._size else b""
        self.is_whole = True
        return b"".join((self._head, content, self._tail))

    async def _read(self) -> memoryview:
        """The next bytes of the file, as many as the buffer holds."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(min(self._size, PIECE)))
        piece = self._buffer[: self._size - self._at]
        try:
            count = await self._fill(piece)
        except OSError as exc:
            raise from_os_error(exc, "reading the file to upload") from exc
        if count < len(piece):
            end = self._at + count
            raise LocalFault(f"the file to upload ended after {end} of {self._size} bytes")
        self._at += count
        return piece

    async def _fill(self, piece: memoryview) -> int:
        # What was just written is in memory; what must come from the disk is a thread's work,
        # so that the loop goes on.
        try:
            count = os.preadv(self._fd, [piece], self._at, os.RWF_NOWAIT)
        except OSError:  # not in memory, or a file system that cannot tell
            count = 0
        if count == len(piece):
            return count
        return await trio.to_thread.run_sync(os.preadv, self._fd, [piece], self._at)


def quoted(name: str) -> str:
    """*name* for a quoted parameter: UTF-8 as it is, what would end or break the line escaped."""
    if _PLAIN.fullmatch(name):
        return name
    return "".join(_escaped(char) for char in name)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char < " " or char == "\x7f":
        return f"%{ord(char):02X}"
    if "\ud800" <= char <= "\udfff":
        # U+DC80 and on stand for bytes that are no UTF-8 (surrogateescape), the rest for itself.
        errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
        raw = char.encode("utf-8", errors)
        return "".join(f"%{byte:02X}" for byte in raw)
    return char
