"""One open socket, plain or TLS, whose time limits measure progress.

The sockets are the standard library's, non-blocking; trio is only asked to wait. trio's own streams
take 64 KiB at a time and put TLS through buffers in memory, which costs twice the processor time of
a large transfer. Every byte the kernel takes or gives starts a time limit anew.
"""

import select
import socket
import ssl
from collections.abc import Awaitable, Callable

import httpx
import trio
from trio.lowlevel import wait_readable, wait_writable

RECORD = 16 * 1024  # bytes of content in one TLS record, at most


class Channel:
    """A connected socket without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.received = 0  # bytes so far

    @property
    def is_readable(self) -> bool:
        """Something has come, or the other side has ended the connection."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def receive(self, size: int, limit: float) -> bytes:
        """What has come, 1 to *size* bytes, waiting for it *limit* seconds at most; b"" at the end.

        Raises:
            httpx.ReadTimeout: Nothing came in time.
            httpx.ReadError: The connection broke.
        """
        while True:
            await self._wait(wait_readable, limit, httpx.ReadTimeout)
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise httpx.ReadError(str(exc)) from exc
            self.received += len(data)
            return data

    async def send(self, data: bytes, limit: float) -> None:
        """Send all of *data*; each part of it may take *limit* seconds.

        Raises:
            httpx.WriteTimeout: Nothing was taken for that long.
            httpx.WriteError: The connection broke.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await self._wait(wait_writable, limit, httpx.WriteTimeout)
            except OSError as exc:
                raise httpx.WriteError(str(exc)) from exc

    def close(self) -> None:
        """End the connection; what was not read is dropped."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def _wait(
        self,
        ready: Callable[[socket.socket], Awaitable[None]],
        limit: float,
        late: type[httpx.TimeoutException],
    ) -> None:
        # Where an earlier deadline runs anyway, a scope of our own would only cost time.
        if trio.current_effective_deadline() <= trio.current_time() + limit:
            await ready(self._socket)
            return
        with trio.move_on_after(limit):
            await ready(self._socket)
            return
        raise late("timed out")


class TlsChannel(Channel):
    """A connected socket with TLS, its handshake still to be done.

    Args:
        context: What decides whether the other side is believed.
        host: Its name, which its certificate must hold.
    """

    def __init__(self, sock: socket.socket, *, context: ssl.SSLContext, host: str) -> None:
        tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        super().__init__(tls)
        self._tls = tls

    @property
    def is_readable(self) -> bool:
        # Peeking is not possible in TLS; what TLS itself has to say counts as something, too.
        poll = select.poll()
        poll.register(self._tls, select.POLLIN)
        return bool(self._tls.pending() or poll.poll(0))

    async def shake_hands(self, limit: float) -> None:
        """Agree on keys, and see the other side's certificate.

        Raises:
            httpx.ConnectTimeout: It stood still for *limit* seconds.
            httpx.ConnectError: One side does not believe the other.
        """
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._wait(wait_readable, limit, httpx.ConnectTimeout)
            except ssl.SSLWantWriteError:
                await self._wait(wait_writable, limit, httpx.ConnectTimeout)
            except OSError as exc:
                raise httpx.ConnectError(str(exc)) from exc

    async def receive(self, size: int, limit: float) -> bytes:
        await trio.lowlevel.checkpoint()  # a fast server would let nobody else go on
        while True:
            pieces: list[bytes] = []
            try:
                self._read(pieces, size)
            except ssl.SSLWantReadError:
                if not pieces:
                    await self._wait(wait_readable, limit, httpx.ReadTimeout)
                    continue
            except ssl.SSLWantWriteError:
                if not pieces:
                    await self._wait(wait_writable, limit, httpx.ReadTimeout)
                    continue
            except OSError as exc:
                raise httpx.ReadError(str(exc)) from exc
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self.received += len(data)
            return data

    def _read(self, pieces: list[bytes], size: int) -> None:
        while size:
            piece = self._tls.recv(min(size, RECORD))
            if not piece:
                return
            pieces.append(piece)
            size -= len(piece)

    async def send(self, data: bytes, limit: float) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._tls.send(rest) :]
            except ssl.SSLWantWriteError:
                await self._wait(wait_writable, limit, httpx.WriteTimeout)
            except ssl.SSLWantReadError:
                await self._wait(wait_readable, limit, httpx.WriteTimeout)
            except OSError as exc:
                raise httpx.WriteError(str(exc)) from exc
