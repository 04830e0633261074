"""The content of a file while it arrives.

The pieces are given out as they come from the connection, neither joined nor cut. What is checked
here is the answer against its own headers; whether it is the file that the listing spoke of (a
gateway may send an error text with status 200) is checked by who knows the file's size.
"""

import re
from collections.abc import AsyncIterator

import httpx
import trio

from containerfs.api.call import PlainBody
from containerfs.api.exchange import request_id
from containerfs.api.parsing import LARGEST_SIZE
from containerfs.errors import ServerFault, TimedOut

LEAST_PROGRESS = 64 << 10  # bytes; a stream that brings less within the limit is too slow

_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)", re.ASCII)


class Body:
    """An open content answer: an iterator of its pieces.

    Attributes:
        size: Bytes it will deliver; None where the server does not say.
        offset: Where its first byte belongs in the file: what was asked for when the server
            honoured the range, else 0.
        total: The whole file's size, where it is known.
        content_type: As the server says it.
        request_id: The server's name for the exchange.
        etag: The server's name for this version of the file, if it gives one.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        what: str,
        size: int | None,
        offset: int,
        total: int | None,
    ) -> None:
        self.size = size
        self.offset = offset
        self.total = total
        self.content_type: str | None = response.headers.get("content-type")
        self.request_id = request_id(response)
        self.etag: str | None = response.headers.get("etag")
        self._pieces = aiter(response.stream)  # type: ignore[arg-type]  # ours are all async
        self._what = what
        self._received = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            TimedOut: None came for the inactivity limit.
            ServerFault: The connection broke, or the body is shorter or longer than announced.
        """
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if self.size is not None and self._received != self.size:
                raise self._fault("the content ended") from None
            raise
        except httpx.TimeoutException as exc:
            raise TimedOut(self._state("nothing came"), request_id=self.request_id) from exc
        except httpx.TransportError as exc:
            raise self._fault("the content broke off") from exc
        self._received += len(piece)
        if self.size is not None and self._received > self.size:
            raise self._fault("the content went on")
        return piece

    def _fault(self, event: str) -> ServerFault:
        return ServerFault(self._state(event), request_id=self.request_id)

    def _state(self, event: str) -> str:
        size = "unknown" if self.size is None else self.size
        return f"{self._what}: {event} after {self._received} of {size} bytes"


def range_header(offset: int, length: int | None) -> dict[str, str]:
    """The header that asks for *length* bytes (None: all) from *offset* on; none for the whole."""
    if offset == 0 and length is None:
        return {}
    return {"Range": f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))}


def opened(response: httpx.Response, *, what: str, offset: int, length: int | None) -> Body:
    """The body of an answer to a request for *length* bytes (None: all) from *offset* on.

    Raises:
        ServerFault: The answer is about another range, or makes no sense.
    """
    announced = _length(response)
    if response.status_code == 206:
        first, last, total = _content_range(response, what)
        if first != offset or last < first or (length is not None and last - first >= length):
            raise ServerFault(
                f"{what}: bytes {first}-{last} came for {offset}+{length}",
                request_id=request_id(response),
            )
        size = last - first + 1
        return Body(response, what=what, size=size, offset=offset, total=total)
    if response.status_code == 416:
        _, _, total = _content_range(response, what)
        if total is None or total > offset:
            raise ServerFault(
                f"{what}: 416 for {offset}+{length} of {total}", request_id=request_id(response)
            )
        return _nothing(response, what=what, offset=offset, total=total)
    if response.status_code == 204:
        announced = 0
    return Body(response, what=what, size=announced, offset=0, total=announced)


def _nothing(response: httpx.Response, *, what: str, offset: int, total: int) -> Body:
    nothing = PlainBody(b"", content_type=None)
    empty = httpx.Response(200, headers=response.headers, stream=nothing)
    return Body(empty, what=what, size=0, offset=offset, total=total)


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        return None
    return int(text) if int(text) <= LARGEST_SIZE else None


def _content_range(response: httpx.Response, what: str) -> tuple[int, int, int | None]:
    text = response.headers.get("content-range", "").strip()
    match = _RANGE.fullmatch(text)
    if match is None or (response.status_code == 206) != (match[1] is not None):
        raise ServerFault(f"{what}: no content range", request_id=request_id(response))
    total = None if match[3] == "*" else int(match[3])
    if max(total or 0, int(match[2] or 0)) > LARGEST_SIZE:
        raise ServerFault(f"{what}: no file is so large", request_id=request_id(response))
    return int(match[1] or 0), int(match[2] or 0), total


class Paced:
    """The pieces of a body, as long as they come fast enough.

    The inactivity limit alone would let a server send a byte now and then for ever. Only the time
    spent waiting for the server counts.
    """

    def __init__(self, body: AsyncIterator[bytes], *, limit: float, what: str) -> None:
        """Args:
        limit: Seconds in which `LEAST_PROGRESS` bytes must have come.
        what: Whose content it is, for the message.
        """
        self._body = body
        self._limit = limit
        self._what = what
        self._waited = 0.0
        self._moved = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            TimedOut: They come too slowly.
            FileSystemError: As the body does.
        """
        begun = trio.current_time()
        with trio.move_on_after(self._limit - self._waited):
            piece = await anext(self._body)
            self._waited += trio.current_time() - begun
            self._moved += len(piece)
            if self._moved >= LEAST_PROGRESS:
                self._waited, self._moved = 0.0, 0
            return piece
        raise TimedOut(f"{self._what}: {self._moved} bytes came in {self._limit:g} s")
