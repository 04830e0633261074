"""A file as one part of a multipart request, framed here so that it streams from disk.

The length is known before the first byte is sent, the pieces are 1 MiB, and the file is read with
`pread`, so that several attempts and several readers never disturb one another.
"""

import mimetypes
import os
import secrets
from collections.abc import AsyncIterator, Callable

import httpx
import trio

from containerfs.errors import LocalFault, from_os_error

PIECE = 1024 * 1024


class FilePart(httpx.AsyncByteStream):
    """The body of an upload: exactly *size* bytes of *fd*, from its start, between two frames.

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
        self._at = -1  # bytes of the file handed out; -1 before the head
        self.is_whole = False  # the last byte has been handed out
        self.content_type = f"multipart/form-data; boundary={boundary}"

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.is_whole:
            raise StopAsyncIteration
        if self._progress is not None and self._at >= 0:
            self._progress(self._at)  # the piece before this one has been taken
        if self._at < 0:
            self._at = 0
            return self._head
        if self._at == self._size:
            self.is_whole = True
            return self._tail
        piece = await self._read()
        self._at += len(piece)
        return piece

    async def _read(self) -> bytes:
        # A piece may have to come from the disk: that is a thread's work, the loop goes on.
        wanted = min(PIECE, self._size - self._at)
        try:
            piece = await trio.to_thread.run_sync(os.pread, self._fd, wanted, self._at)
        except OSError as exc:
            raise from_os_error(exc, "reading the file to upload") from exc
        if not piece:
            raise LocalFault(f"the file to upload ended after {self._at} of {self._size} bytes")
        return piece


def quoted(name: str) -> str:
    """*name* for a quoted parameter: UTF-8 as it is, what would end or break the line escaped."""
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
