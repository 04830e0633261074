"""HTTP/1.1 connections, kept in a last-in-first-out list.

httpcore's pool looks at every connection for each request, so its cost grows with their number;
here a request takes the connection that was used last, which is also the one most likely alive.
The number of connections is bounded by the limiter above: there is never more than one for each
request under way, plus the idle ones.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx
import trio

from containerfs.api.backend import Backend
from containerfs.api.call import IDEMPOTENT

log = logging.getLogger(__name__)

# httpcore writes the headers of answers into its debug log, and a server may repeat a secret there.
logging.getLogger("httpcore").setLevel(logging.INFO)

KEEPALIVE = 60.0  # seconds an idle connection is kept
CLOSE_LIMIT = 5.0  # seconds closing a connection may take

# Most specific first: httpcore's ReadTimeout is a TimeoutException, and so on.
_AS_HTTPX: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.TimeoutException, httpx.ReadTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.ProtocolError, httpx.RemoteProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
)


class _Link:
    """One HTTP connection and the count of what it received."""

    def __init__(self, origin: httpcore.Origin, context: ssl.SSLContext | None, uds: str | None):
        self.backend = Backend()
        self.connection = httpcore.AsyncHTTPConnection(
            origin=origin,
            ssl_context=context,
            uds=uds,
            keepalive_expiry=KEEPALIVE,
            network_backend=self.backend,
        )

    async def close(self) -> None:
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            await self.connection.aclose()


class Transport(httpx.AsyncBaseTransport):
    """Sends each request on the connection that was used last, or on a new one.

    A request without side effects of repetition (GET, DELETE) that fails on a kept connection
    before a byte of the answer came is sent again on another, since the server may have closed
    the connection while it was idle; `response.extensions["repeated"]` tells of it.

    Args:
        ssl_context: For `https`; None uses no TLS at all.
        uds: Path of a Unix socket to connect to, whatever the URL's host.
        max_idle: How many idle connections are kept.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None, uds: str | None, max_idle: int
    ) -> None:
        self._ssl_context = ssl_context
        self._uds = uds
        self._max_idle = max_idle
        self._idle: list[_Link] = []
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and return the answer once its headers have arrived.

        Raises:
            httpx.TransportError: As httpx's own transports do.
        """
        core = _core_request(request)
        repeated = False
        while True:
            link, reused = await self._take(core.url.origin)
            received = link.backend.received
            try:
                with _as_httpx():
                    response = await link.connection.handle_async_request(core)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                await link.close()
                lost = link.backend.received == received
                if not (reused and lost and request.method in IDEMPOTENT):
                    raise
                repeated = True
                continue
            except BaseException:  # cancelled, most of all: httpcore may leave its socket open
                await link.close()
                raise
            return httpx.Response(
                response.status,
                headers=response.headers,
                stream=_AnswerStream(response.stream, link=link, done=self._put),
                extensions={**response.extensions, "repeated": repeated},
            )

    async def aclose(self) -> None:
        """Close the idle connections; one in use is closed when its answer is."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _take(self, origin: httpcore.Origin) -> tuple[_Link, bool]:
        while self._idle:
            link = self._idle.pop()
            if link.connection.can_handle_request(origin) and not link.connection.has_expired():
                return link, True
            await link.close()
        return _Link(origin, self._ssl_context, self._uds), False

    async def _put(self, link: _Link) -> None:
        if not link.connection.is_available():
            return  # httpcore has closed it: its answer was not read to the end
        if self._closed:
            await link.close()
            return
        self._idle.append(link)
        if len(self._idle) > self._max_idle:
            await self._idle.pop(0).close()


class _AnswerStream(httpx.AsyncByteStream):
    """The body of an answer; closing it gives the connection back, or ends it if bytes are left."""

    def __init__(self, stream: Any, *, link: _Link, done: Callable[[_Link], Awaitable[None]]):
        self._stream = stream
        self._chunks: AsyncIterator[bytes] | None = None
        self._link = link
        self._done = done
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = self._stream.__aiter__()
        with _as_httpx():
            return await self._chunks.__anext__()

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            await self._stream.aclose()
            await self._finish_chunks()
            await self._done(self._link)

    async def _finish_chunks(self) -> None:
        # httpcore's nested generators must run to their end, or trio reports them as leaked; the
        # connection of a half-read body is closed by now, so this ends after what was buffered.
        if self._chunks is None:
            return
        try:
            async for _ in self._chunks:
                pass
        except Exception as exc:
            log.debug("rest of an answer dropped: %s", exc)


class _RequestStream:
    """A request's body as httpcore takes it."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()


def _core_request(request: httpx.Request) -> httpcore.Request:
    assert isinstance(request.stream, httpx.AsyncByteStream)  # noqa: S101 - tells mypy
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        ),
        headers=request.headers.raw,
        content=_RequestStream(request.stream),
        extensions=request.extensions,
    )


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        for theirs, ours in _AS_HTTPX:
            if isinstance(exc, theirs):
                raise ours(str(exc)) from exc
        raise
