"""One HTTP/1.1 connection: a request out, an answer in, then the next.

Written for this client alone: one request at a time, bodies as streams, no upgrades. On h11 and
httpcore a small download takes about three times the processor time.
"""

import math
from collections.abc import Callable

import httpx
import trio

from containerfs.api.channel import Channel
from containerfs.api.framing import Framing, Measured, framing
from containerfs.api.head import LONGEST_HEAD, AnswerHead, answer_head, end_of_head, request_head

FIRST_RECEIVE = 64 * 1024  # bytes: a head, and all of most answers
LARGE_RECEIVE = 1024 * 1024  # bytes; a piece ends at a multiple of it, as what is read does
KEEPALIVE = 60.0  # seconds an idle connection is kept


class Link:
    """A connection that carries one request after the other.

    Attributes:
        can_go_on: The last answer was read to its end, and another request may follow.
    """

    def __init__(self, channel: Channel) -> None:
        self.can_go_on = False
        self._channel = channel
        self._expires = -math.inf

    @property
    def received(self) -> int:
        """Bytes that have come so far."""
        return self._channel.received

    @property
    def is_fresh(self) -> bool:
        """It was used a short while ago, and the server has not ended it since."""
        return trio.current_time() < self._expires and not self._channel.is_readable

    async def send(self, request: httpx.Request) -> "tuple[AnswerHead, AnswerStream]":
        """Send *request* and return its answer, whose body is still to be read.

        The caller closes the link when this raises anything, cancellation included.

        Raises:
            httpx.TransportError: No answer came.
        """
        self.can_go_on = False
        limits = request.extensions.get("timeout", {})
        is_sent = await self._send(request, limits.get("write", math.inf))
        is_bodiless = request.method == "HEAD"
        limit = limits.get("read", math.inf)
        return await self._answer(limit, is_sent=is_sent, is_bodiless=is_bodiless)

    async def ask(self, request: bytes, limit: float) -> "tuple[AnswerHead, AnswerStream]":
        """Send a whole *request*; as `send`.

        Args:
            limit: Seconds that it may stand still.

        Raises:
            httpx.TransportError: No answer came.
        """
        self.can_go_on = False
        try:
            await self._channel.send(request, limit)
            is_sent = True
        except httpx.WriteError:
            is_sent = False
        return await self._answer(limit, is_sent=is_sent)

    async def _answer(
        self, limit: float, *, is_sent: bool, is_bodiless: bool = False
    ) -> "tuple[AnswerHead, AnswerStream]":
        head, rest = await self._receive_head(limit)
        frames = Measured(0) if is_bodiless else framing(head)
        content = frames.take(rest) if rest or not frames.wanted else b""
        keep = is_sent and not head.is_last
        return head, AnswerStream(self, self._channel, frames, content, keep=keep, limit=limit)

    def close(self) -> None:
        """End it; what is under way is lost."""
        self.can_go_on = False
        self._channel.close()

    def answered(self) -> None:
        """The answer was read to its end, and another request may follow."""
        self.can_go_on = True
        self._expires = trio.current_time() + KEEPALIVE

    async def _send(self, request: httpx.Request, limit: float) -> bool:
        """Send it; False where the server stopped taking it, which may have answered even so."""
        head, left = request_head(request)
        stream = request.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - tells mypy
        try:
            await self._channel.send(head, limit)
            async for piece in stream:
                left -= len(piece)
                if left < 0:
                    break
                await self._channel.send(piece, limit)
        except httpx.WriteError:
            return False
        if left:
            raise httpx.LocalProtocolError("the body has another length than its header says")
        return True

    async def _receive_head(self, limit: float) -> tuple[AnswerHead, bytes]:
        data = b""
        seen = 0
        while True:
            end = end_of_head(data, seen)
            if end > 0 and end <= LONGEST_HEAD:
                head, data = answer_head(data[:end]), data[end:]
                if head.status >= 200:
                    return head, data
                if head.status == 101:
                    raise httpx.RemoteProtocolError("the server changes the protocol")
                seen = 0
                continue
            if len(data) > LONGEST_HEAD:
                raise httpx.RemoteProtocolError("the head of the answer does not end")
            seen = len(data)
            more = await self._channel.receive(FIRST_RECEIVE, limit)
            if not more:
                raise httpx.RemoteProtocolError("the server ended the connection without an answer")
            data = data + more if data else more


class AnswerStream(httpx.AsyncByteStream):
    """The body of an answer, in the pieces in which it comes.

    Args:
        content: What of it has come already.
        keep: The connection may go on after it.
        limit: Seconds without a byte after which it is given up.
    """

    def __init__(
        self,
        link: Link,
        channel: Channel,
        framing: Framing,
        content: bytes,
        *,
        keep: bool,
        limit: float,
    ) -> None:
        self._link = link
        self._channel = channel
        self._framing = framing
        self._content = content
        self._keep = keep
        self._limit = limit
        self._given = 0  # bytes of content
        self._done: Callable[[Link], None] | None = None

    def when_closed(self, done: Callable[[Link], None]) -> None:
        """Call *done* with the link, once, when the answer is closed."""
        self._done = done

    def __aiter__(self) -> "AnswerStream":
        return self

    async def __anext__(self) -> bytes:
        while not self._content:
            wanted = self._framing.wanted
            if not wanted:
                raise StopAsyncIteration
            most = LARGE_RECEIVE - self._given % LARGE_RECEIVE
            data = await self._channel.receive(min(wanted, most), self._limit)
            if data:
                self._content = self._framing.take(data)
            else:
                self._framing.end()
        content, self._content = self._content, b""
        self._given += len(content)
        return content

    async def aclose(self) -> None:
        """Give the connection back, or end it where bytes are left."""
        if self._done is None:
            return
        done, self._done = self._done, None
        if self._framing.wanted or self._framing.has_excess or not self._keep:
            self._link.close()
        else:
            self._link.answered()
        done(self._link)
