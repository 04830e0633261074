"""How a channel to a server comes about: TCP or a Unix socket, with TLS or without."""

import socket
import ssl
from dataclasses import dataclass

import httpx
import trio

from containerfs.api.channel import Channel, TlsChannel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Route:
    """Where a server is and how it is spoken to.

    Args:
        uds: Path of a Unix socket to connect to, whatever the host.
        context: For TLS, which checks the host's name; None uses none.
    """

    host: str
    port: int
    uds: str | None
    context: ssl.SSLContext | None

    async def open(self, limit: float) -> Channel:
        """A new connection, each of whose steps may take *limit* seconds.

        Raises:
            httpx.ConnectTimeout: A step took longer.
            httpx.ConnectError: Nobody answers there, or not who should.
        """
        sock = await self._connect(limit)
        if self.context is None:
            return Channel(sock)
        try:
            channel = TlsChannel(sock, context=self.context, host=self.host)
        except (OSError, ValueError) as exc:  # ValueError: no certificate could name this host
            sock.close()
            raise httpx.ConnectError(str(exc)) from exc
        try:
            await channel.shake_hands(limit)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _connect(self, limit: float) -> socket.socket:
        try:
            with trio.fail_after(limit):
                stream = await self._stream()
        except trio.TooSlowError as exc:
            raise httpx.ConnectTimeout("timed out") from exc
        except OSError as exc:
            raise httpx.ConnectError(self._reason(exc)) from exc
        except UnicodeError as exc:  # no name of a host looks like this
            raise httpx.ConnectError(f"{self.host}: {exc}") from exc
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        if self.uds is None:
            # trio lets the kernel hold 16 KiB unsent, which makes an upload wait for each of them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, -1)
        return sock

    async def _stream(self) -> trio.SocketStream:
        if self.uds is None:
            return await trio.open_tcp_stream(self.host, self.port)  # sets TCP_NODELAY
        return await trio.open_unix_socket(self.uds)

    def _reason(self, error: OSError) -> str:
        if self.uds is not None:
            return f"{self.uds}: {error.strerror}"
        # trio tries all of a host's addresses and puts what each said into the cause.
        cause: BaseException | None = error.__cause__
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        return f"{error} ({cause})" if cause is not None else str(error)
