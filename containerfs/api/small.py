"""The short way to the content of a small file: what a plain answer needs, and nothing else.

Where many small files are read, what surrounds each request costs more than the request. Whatever
is not plain (a failure, a redirect, a server that asks for silence) goes the usual way, which
takes over the answer that came.
"""

import logging

import httpx
import trio

from containerfs.api.call import Call
from containerfs.api.content import ContentRequest, Part, Ranges
from containerfs.api.exchange import Exchange
from containerfs.api.head import AnswerHead
from containerfs.api.limits import Limiter
from containerfs.api.link import AnswerStream
from containerfs.api.session import Attempt, Session
from containerfs.api.transport import Transport

log = logging.getLogger(__name__)

WHOLE = Part(offset=0, length=None)


class SmallContents:
    """Fetches whole contents that are small."""

    def __init__(
        self,
        *,
        transport: Transport,
        exchange: Exchange,
        session: Session,
        limiter: Limiter,
        ranges: Ranges,
        timeout: float,
    ) -> None:
        """Args:
        session: What everything else is left to.
        timeout: As of the session; the plain answer has half of it to come.
        """
        self._transport = transport
        self._exchange = exchange
        self._session = session
        self._limiter = limiter
        self._ranges = ranges
        self._timeout = timeout

    async def fetch(self, path: tuple[str, ...], *, most: int) -> bytes | ContentRequest:
        """The whole content at *path*; once there are more than *most* bytes, it is cut.

        Returns:
            Where it did not come at once, the request for it, which the caller opens, without
            doing anything else before.
        """
        call = Call(method="GET", path=path, is_content=True)
        answer: bytes | Attempt | None = None
        if not self._limiter.pause:
            answer = await self._plain(call, most)
        if isinstance(answer, bytes):
            return answer
        return ContentRequest(self._session, path, part=WHOLE, ranges=self._ranges, first=answer)

    async def _plain(self, call: Call, most: int) -> bytes | Attempt | None:
        """The content, or an answer that is none and holds its place, or nothing."""
        limiter = self._limiter
        await limiter.enter(is_transfer=True)
        made = None
        try:
            if limiter.pause:  # it has come while this one waited for its place
                return None
            begun = trio.current_time()
            with trio.move_on_after(self._timeout / 2):
                head, stream, extensions = await self._transport.ask(self._exchange.head(call))
                if is_plain(head):
                    limiter.answered(after=trio.current_time() - begun)
                    return await whole(stream, most)
                answer = httpx.Response(
                    head.status, headers=head.fields, stream=stream, extensions=extensions
                )
                made = Attempt(outcome=answer, sent_at=begun)
        except httpx.TransportError as exc:
            log.debug("%s: %s", call, exc)
        finally:
            if made is None:
                limiter.leave(is_transfer=True)
        return made


def is_plain(head: AnswerHead) -> bool:
    """Whether what follows is the content that was asked for, byte for byte."""
    return head.status == 200 and not any(
        name.lower() == b"content-encoding" for name, _ in head.fields
    )


async def whole(stream: AnswerStream, most: int) -> bytes:
    """The rest of an answer, which is closed; once there are more than *most* bytes, it is cut.

    Raises:
        httpx.TransportError: It broke off.
    """
    pieces, size = [], 0
    try:
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
    finally:
        await stream.aclose()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
