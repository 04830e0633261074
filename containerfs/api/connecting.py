"""How a channel to a server comes about: TCP or a Unix socket, with TLS or without."""

import math
import os
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from containerfs.api.channel import Channel, TlsChannel

BELIEVED = 60.0  # seconds for which a host is where it was found
AWAY = 5.0  # seconds for which a server that has gone is expected back: restarts, a lost network
PATIENCE = 1.0  # seconds that it may take to answer there, before it is looked for again


class AwayError(httpx.ConnectError):
    """Nobody answers where somebody did a moment ago."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The address that a host was found at."""

    family: int
    address: Any
    until: float  # on trio's clock


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
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
    _found: _Place | None = field(default=None, init=False)
    _away_since: float | None = field(default=-math.inf, init=False)  # None: it was just there

    async def open(self, limit: float) -> Channel:
        """A new connection, each of whose steps may take *limit* seconds.

        Raises:
            httpx.ConnectTimeout: A step took longer.
            AwayError: Nobody answers there any more, but it has not been so for long.
            httpx.ConnectError: Nobody answers there, or not who should.
        """
        try:
            channel = await self._open(limit)
        except httpx.ConnectError as exc:
            now = trio.current_time()
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since < AWAY:
                raise AwayError(str(exc)) from exc
            raise
        self._away_since = None
        return channel

    async def _open(self, limit: float) -> Channel:
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
            self._found = None  # another address of the host may do better
            channel.close()
            raise
        return channel

    async def _connect(self, limit: float) -> socket.socket:
        try:
            with trio.fail_after(limit):
                sock = await self._connect_again() or await self._connect_anew()
        except trio.TooSlowError as exc:
            raise httpx.ConnectTimeout(f"{self._name}: timed out") from exc
        except OSError as exc:
            raise httpx.ConnectError(f"{self._name}: {_reason(exc)}") from exc
        except UnicodeError as exc:  # no name of a host looks like this
            raise httpx.ConnectError(f"{self.host}: {exc}") from exc
        if self.uds is None:
            # trio lets the kernel hold 16 KiB unsent, which makes an upload wait for each of them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, -1)
        return sock

    async def _connect_anew(self) -> socket.socket:
        if self.uds is not None:
            return _taken_from(await trio.open_unix_socket(self.uds))
        sock = _taken_from(await trio.open_tcp_stream(self.host, self.port))  # sets TCP_NODELAY
        until = trio.current_time() + BELIEVED
        self._found = _Place(sock.family, sock.getpeername(), until)
        return sock

    async def _connect_again(self) -> socket.socket | None:
        """A connection to where the host was found a short while ago; None where it is not there.

        To look it up and to try its addresses side by side takes three times the processor time,
        which counts where a hundred connections are opened at once.
        """
        found = self._found
        if found is None or trio.current_time() > found.until:
            return None
        sock = socket.socket(found.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with trio.fail_after(PATIENCE):
                await _connected(sock, found.address)
        except (OSError, trio.TooSlowError):
            sock.close()
            self._found = None
            return None
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def _name(self) -> str:
        if self.uds is not None:
            return self.uds
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _reason(error: OSError) -> str:
    """Why none of a host's addresses could be connected to, each reason once."""
    # trio puts what each address said into the cause, with the address in its words.
    cause = error.__cause__
    each = cause.exceptions if isinstance(cause, BaseExceptionGroup) else [cause or error]
    return ", ".join(dict.fromkeys(map(_words, each)))


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)  # below 0: the resolver's


def _taken_from(stream: trio.SocketStream) -> socket.socket:
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


async def _connected(sock: socket.socket, address: Any) -> None:
    """Connect *sock*, which does not block.

    Raises:
        OSError: Nobody answers there.
    """
    try:
        sock.connect(address)
    except BlockingIOError:
        await trio.lowlevel.wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error)) from None
