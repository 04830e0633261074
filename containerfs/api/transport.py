"""HTTP/1.1 connections, kept in a last-in-first-out list.

A request takes the connection that was used last, which is also the one most likely alive. The
number of connections is bounded by the limiter above: there is never more than one for each
request under way, plus the idle ones.
"""

import logging
import math
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import trio

from containerfs.api.call import IDEMPOTENT
from containerfs.api.connecting import Route
from containerfs.api.head import AnswerHead
from containerfs.api.link import AnswerStream, Link

log = logging.getLogger(__name__)

AHEAD = 2  # connections opened before the first request: a long listing is read from both ends

_PORTS = {"http": 80, "https": 443}


class Transport(httpx.AsyncBaseTransport):
    """Sends each request on the connection that was used last, or on a new one.

    All requests go to one origin. One without side effects of repetition (GET, DELETE) that fails
    on a kept connection before a byte of the answer came is sent again on another, since the server
    may have closed the connection while it was idle; `response.extensions["repeated"]` tells of it.

    Args:
        base: A URL of the origin.
        ssl_context: For `https`; None uses no TLS at all.
        uds: Path of a Unix socket to connect to, whatever the URL's host.
        max_idle: How many idle connections are kept.
    """

    def __init__(
        self,
        base: httpx.URL,
        *,
        ssl_context: ssl.SSLContext | None,
        uds: str | None,
        max_idle: int,
    ) -> None:
        host = base.raw_host.decode("ascii")
        port = base.port or _PORTS[base.scheme]
        self._route = Route(host=host, port=port, uds=uds, context=ssl_context)
        self._max_idle = max_idle
        self._idle: list[Link] = []
        self._closed = False
        self._ahead: trio.Event | None = None  # while a connection is opened for who comes first

    async def open_ahead(
        self, limit: float, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have connections ready for the first requests; a failure is left for those to tell.

        Once it has started, a request waits for the first of them instead of opening another one.

        Args:
            limit: Seconds that each step may take.
        """
        ahead = self._ahead = trio.Event()
        task_status.started()
        try:
            for _ in range(min(AHEAD, self._max_idle)):
                link = Link(await self._route.open(limit))
                link.answered()  # nothing is: it stands where it would after an answer
                self._put(link)
                self._ahead = None
                ahead.set()
        except httpx.TransportError as exc:
            log.info("no connection could be opened yet: %s", exc)
        finally:
            self._ahead = None
            ahead.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and return the answer once its headers have arrived.

        Raises:
            httpx.TransportError: As httpx's own transports do.
        """
        limit = request.extensions.get("timeout", {}).get("connect", math.inf)
        head, stream, extensions = await self._answer(
            lambda link: link.send(request),
            limit=limit,
            is_idempotent=request.method in IDEMPOTENT,
        )
        return httpx.Response(
            head.status, headers=head.fields, stream=stream, extensions=extensions
        )

    async def ask(
        self, request: bytes, *, limit: float = math.inf, is_idempotent: bool = True
    ) -> tuple[AnswerHead, AnswerStream, dict[str, Any]]:
        """Send a request, no HEAD, that is written already.

        Args:
            limit: Seconds that each step may take.

        Returns:
            The answer's head, its body, and its `extensions`.

        Raises:
            httpx.TransportError: As `handle_async_request`.
        """
        return await self._answer(
            lambda link: link.ask(request, limit), limit=limit, is_idempotent=is_idempotent
        )

    async def _answer(
        self,
        send: Callable[[Link], Awaitable[tuple[AnswerHead, AnswerStream]]],
        *,
        limit: float,
        is_idempotent: bool,
    ) -> tuple[AnswerHead, AnswerStream, dict[str, Any]]:
        """The answer to what *send* sends, on a kept connection or on a new one."""
        repeated = False
        while True:
            link = self._take()
            if link is None and self._ahead is not None:
                await self._ahead.wait()
                link = self._take()
            is_kept = link is not None
            if link is None:
                link = Link(await self._route.open(limit))
            received = link.received
            try:
                head, stream = await send(link)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                link.close()
                is_lost = link.received == received
                if not (is_kept and is_lost and is_idempotent):
                    raise
                repeated = True
                continue
            except BaseException:
                link.close()
                raise
            stream.when_closed(self._put)
            return head, stream, {"repeated": repeated}

    async def aclose(self) -> None:
        """Close the idle connections; one in use is closed when its answer is."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if link.is_fresh:
                return link
            link.close()
        return None

    def _put(self, link: Link) -> None:
        if not link.can_go_on:
            return
        if self._closed:
            link.close()
            return
        self._idle.append(link)
        if len(self._idle) > self._max_idle:
            self._idle.pop(0).close()
