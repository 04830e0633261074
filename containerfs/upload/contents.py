"""Compares what the server holds with what is known here, for which it is fetched and not kept."""

import os
from collections.abc import Callable

from containerfs.api.client import Client
from containerfs.api.streams import persistently
from containerfs.api.types import RemoteFile
from containerfs.errors import NotFound
from containerfs.upload.fingerprint import Fingerprint, Fingerprinting


class Contents:
    """The contents of the server's objects. A stream that breaks off is taken up again."""

    def __init__(self, *, client: Client) -> None:
        self._client = client

    async def match(
        self,
        file: RemoteFile,
        fd: int,
        size: int,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Whether an object has the content of *fd*.

        Args:
            size: Of that content, in bytes.
            progress: Told the bytes compared so far.

        Raises:
            FileSystemError: The server does not say.
        """
        compared = 0

        def is_like(piece: bytes) -> bool:
            nonlocal compared
            if os.pread(fd, len(piece), compared) != piece:
                return False
            compared += len(piece)
            if progress is not None:
                progress(compared)
            return True

        try:
            return await self._read(file, is_like) and compared == size
        except NotFound:
            return False

    async def are_alike(self, one: RemoteFile, other: RemoteFile) -> bool:
        """Whether two objects have the same content.

        Raises:
            FileSystemError: The server does not say.
        """
        return await self.fingerprint(one) == await self.fingerprint(other)

    async def fingerprint(self, file: RemoteFile) -> Fingerprint:
        """Of an object's content.

        Raises:
            FileSystemError: The server does not say.
        """
        content = Fingerprinting()

        def add(piece: bytes) -> bool:
            content.add(piece)
            return True

        await self._read(file, add)
        return content.result()

    async def _read(self, file: RemoteFile, take: Callable[[bytes], bool]) -> bool:
        """Hand the content over, piece by piece, until *take* has enough; whether it never had."""
        taken, is_wanted = 0, True

        async def stream() -> None:
            nonlocal taken, is_wanted
            async with self._client.download_file(file.container_id, file.id, offset=taken) as body:
                position = body.offset  # the start, where the server does not grant ranges
                async for chunk in body:
                    piece = chunk[max(0, taken - position) :]
                    position += len(chunk)
                    if piece:
                        is_wanted = take(piece)
                        taken += len(piece)
                    if not is_wanted:
                        return

        await persistently(stream, available=lambda: taken, what=f"content of {file.id}")
        return is_wanted
