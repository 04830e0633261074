"""Where a body ends: after its length, after its last chunk, or with the connection.

A framing takes what the connection brings and gives out what of it is content. It knows no
connection.
"""

import re
from typing import Protocol

import httpx

from containerfs.api.head import AnswerHead, is_field

UNKNOWN = 1 << 62  # bytes that may still come, where nobody says how many
LONGEST_LINE = 16 * 1024  # bytes of a chunk's first line; also of all trailers together

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*+;[^\x00\r\n]*+)?[ \t]*+\r\n")


class Framing(Protocol):
    """How one body is cut out of what a connection brings."""

    wanted: int  # the most bytes that can still belong to the answer; 0 once it is over
    has_excess: bool  # more came than belongs to the answer: the connection cannot go on

    def take(self, data: bytes) -> bytes:
        """The content in *data*, which came next; it may be empty.

        Raises:
            httpx.RemoteProtocolError: It does not go on as announced.
        """

    def end(self) -> None:
        """The connection has ended.

        Raises:
            httpx.RemoteProtocolError: The answer has not.
        """


class Measured:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self.wanted = length
        self.has_excess = False

    def take(self, data: bytes) -> bytes:
        if len(data) > self.wanted:
            self.has_excess = True
            data = data[: self.wanted]
        self.wanted -= len(data)
        return data

    def end(self) -> None:
        raise httpx.RemoteProtocolError(f"the connection ended {self.wanted} bytes too early")


class Unmeasured:
    """A body that goes on until the connection ends."""

    has_excess = False

    def __init__(self) -> None:
        self.wanted = UNKNOWN

    def take(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        self.wanted = 0


class Chunked:
    """A body in chunks, each with its length before it."""

    def __init__(self) -> None:
        self.wanted = UNKNOWN
        self.has_excess = False
        self._line = b""  # the part of a line that has come
        self._left = 0  # bytes of the chunk, its line end included, that have not come
        self._trailers: int | None = None  # bytes of them, once the last chunk has come

    def take(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        data = self._line + data if self._line else data
        self._line = b""
        at = 0
        while at < len(data) and self.wanted:
            if self._left:
                at = self._take_chunk(data, at, pieces)
                continue
            end = data.find(b"\n", at) + 1
            if not end or end - at > LONGEST_LINE:
                self._keep(data[at:])
                break
            self._take_line(data[at:end])
            at = end
        self.has_excess = not self.wanted and at < len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end(self) -> None:
        raise httpx.RemoteProtocolError("the connection ended before the last chunk")

    def _take_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        whole = data[at : at + self._left]
        content = whole[: max(0, self._left - 2)]
        line_end = whole[len(content) :]
        if not b"\r\n"[max(0, 2 - self._left) :].startswith(line_end):
            raise httpx.RemoteProtocolError("a chunk is longer than announced")
        if content:
            pieces.append(content)
        self._left -= len(whole)
        return at + len(whole)

    def _take_line(self, line: bytes) -> None:
        if self._trailers is not None:
            self._take_trailer(line)
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise httpx.RemoteProtocolError("a chunk without a length")
        size = int(match[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = 0

    def _take_trailer(self, line: bytes) -> None:
        if line in (b"\r\n", b"\n"):
            self.wanted = 0
            return
        self._trailers = (self._trailers or 0) + len(line)
        if self._trailers > LONGEST_LINE or not is_field(line):
            raise httpx.RemoteProtocolError("what follows the last chunk makes no sense")

    def _keep(self, start: bytes) -> None:
        if len(start) > LONGEST_LINE:
            raise httpx.RemoteProtocolError("a line between chunks does not end")
        self._line = start


def framing(head: AnswerHead) -> Framing:
    """How the body that *head* announces is cut out."""
    if head.is_chunked:
        return Chunked()
    return Unmeasured() if head.length is None else Measured(head.length)
