"""The short way for a small file to the server: what a plain exchange needs, and nothing else.

Head and body leave in one piece. Whatever is not plain (a failure, a redirect, an answer that is
not what an upload is answered with) goes the usual way, which goes on from the attempt that was
made: nothing is sent a second time because of it.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import trio

from containerfs.api.call import Call, PlainBody
from containerfs.api.exchange import Exchange
from containerfs.api.failures import described_error
from containerfs.api.limits import Limiter
from containerfs.api.multipart import FilePart
from containerfs.api.parsing import parse_json
from containerfs.api.session import LARGEST_ANSWER, Attempt
from containerfs.api.small import is_plain, whole
from containerfs.api.transport import Transport
from containerfs.errors import ServerFault

log = logging.getLogger(__name__)

T = TypeVar("T")


class SmallUploads:
    """Sends files that go out in one piece."""

    def __init__(self, *, transport: Transport, exchange: Exchange, limiter: Limiter) -> None:
        self._transport = transport
        self._exchange = exchange
        self._limiter = limiter

    async def send(
        self, call: Call, part: FilePart, parse: Callable[[Any], T]
    ) -> T | Attempt | None:
        """Send *call* with *part* as its body.

        Args:
            parse: Makes of the answer's JSON what is returned, or raises `ServerFault`.

        Returns:
            Where the answer is not plain, the attempt, which holds its place, for the session to go
            on from; None where nothing was sent.
        """
        limiter = self._limiter
        await limiter.enter(is_transfer=True)
        made: T | Attempt | None = None
        try:
            body = None if limiter.pause else part.at_once()
            if body is not None:
                made = await self._exchanged(call, part, body, parse)
        finally:
            if not isinstance(made, Attempt):
                limiter.leave(is_transfer=True)
        return made

    async def _exchanged(
        self, call: Call, part: FilePart, body: bytes, parse: Callable[[Any], T]
    ) -> T | Attempt:
        begun = trio.current_time()
        outcome: httpx.Response | httpx.TransportError
        try:
            head, stream, extensions = await self._transport.ask(
                self._exchange.upload_head(call, part) + body,
                limit=self._exchange.transfer_limit,
                is_idempotent=False,
            )
            part.taken()
            took = trio.current_time() - begun
            unread: httpx.AsyncByteStream = stream
            if is_plain(head):
                text = await whole(stream, LARGEST_ANSWER)
                try:
                    result = _plain(text, parse)
                except ServerFault as exc:
                    log.debug("%s: %s", call, exc)
                    unread = PlainBody(text, content_type=None)
                else:
                    self._limiter.answered(after=took)
                    return result
            outcome = httpx.Response(
                head.status, headers=head.fields, stream=unread, extensions=extensions
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.LocalProtocolError) as exc:
            outcome = exc
        except httpx.TransportError as exc:
            part.is_whole = True  # or nearly
            outcome = exc
        return Attempt(outcome=outcome, body=part, sent_at=begun)


def _plain(text: bytes, parse: Callable[[Any], T]) -> T:
    """What the answer *text* describes.

    Raises:
        ServerFault: It is too long, or describes something else.
    """
    if len(text) > LARGEST_ANSWER:
        raise ServerFault(f"an answer of more than {LARGEST_ANSWER} bytes")
    data = parse_json(text)
    if described_error(data) is not None:
        raise ServerFault("an error")
    return parse(data)
