"""Sockets for httpcore on trio, with large receives and time limits that measure progress.

httpcore's own trio streams receive 64 KiB at a time and hold one time limit over a whole write,
so that a large piece on a slow line looks like a stall. These receive up to 1 MiB while a large
body flows, and every byte the kernel takes starts the limit anew.
"""

import math
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import trio

LARGE_RECEIVE = 1024 * 1024
TLS_PIECE = 64 * 1024  # written at a time through TLS, where partial writes cannot be seen


class Stream(httpcore.AsyncNetworkStream):
    """One open connection, plain or TLS.

    Args:
        stream: What is read and written.
        socket: The socket below it.
        count: Told the number of bytes of each receive.
    """

    def __init__(
        self,
        stream: trio.SocketStream | trio.SSLStream[Any],
        *,
        socket: trio.socket.SocketType,
        count: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._socket = socket
        self._count = count
        self._last_received = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # A receive that filled the buffer means a large body: the next one may take more.
        size = max_bytes if self._last_received < max_bytes else LARGE_RECEIVE
        with _failures_as(httpcore.ReadTimeout, httpcore.ReadError), _limit(timeout):
            data = bytes(await self._stream.receive_some(size))
        self._last_received = len(data)
        self._count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        while rest:
            with _failures_as(httpcore.WriteTimeout, httpcore.WriteError), _limit(timeout):
                rest = rest[await self._send_some(rest) :]

    async def _send_some(self, data: memoryview) -> int:
        if isinstance(self._stream, trio.SocketStream):
            return await self._socket.send(data)
        await self._stream.send_all(data[:TLS_PIECE])
        return min(len(data), TLS_PIECE)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        tls = trio.SSLStream(
            self._stream,
            ssl_context,
            server_hostname=server_hostname,
            https_compatible=True,
        )
        try:
            with _failures_as(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
                await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tls)
            raise
        return Stream(tls, socket=self._socket, count=self._count)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._socket.is_readable()
        if info == "socket":
            return self._socket
        return None


class Backend(httpcore.AsyncNetworkBackend):
    """Opens the socket of one HTTP connection, and counts the bytes that came through it."""

    def __init__(self) -> None:
        self.received = 0  # bytes

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _failures_as(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
            stream = await trio.open_tcp_stream(host, port)  # sets TCP_NODELAY
        return Stream(stream, socket=stream.socket, count=self._add)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _failures_as(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
            try:
                stream = await trio.open_unix_socket(path)
            except OSError as exc:  # its message does not name the socket
                raise OSError(exc.errno, f"{path}: {exc.strerror}") from exc
        return Stream(stream, socket=stream.socket, count=self._add)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def _add(self, size: int) -> None:
        self.received += size


@contextmanager
def _limit(timeout: float | None) -> Iterator[None]:
    with trio.fail_after(math.inf if timeout is None else timeout):
        yield


@contextmanager
def _failures_as(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError as exc:
        raise timeout("timed out") from exc
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise other(str(exc.__cause__ or exc)) from exc
    except OSError as exc:
        raise other(_reason(exc)) from exc


def _reason(error: OSError) -> str:
    # trio tries all of a host's addresses and puts what each said into the cause.
    cause: BaseException | None = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return f"{error} ({cause})" if cause is not None else str(error)
