"""The connection below a request, for what HTTP has no words for: resetting and closing it."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field

from starlette.types import Receive, Scope

EXTENSION = "containerfs.wire"


class WireGone(Exception):
    """The connection was ended on purpose; nothing is left to answer."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The connection a request came by."""

    transport: asyncio.Transport
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # it is over

    @classmethod
    def of(cls, scope: Scope) -> "Wire":
        """The connection below this scope, put there by our HTTP protocol."""
        wire: Wire = scope["extensions"][EXTENSION]
        return wire

    @property
    def is_closing(self) -> bool:
        """Whether either side has ended it."""
        return self.transport.is_closing()

    async def reset(self, receive: Receive) -> None:
        """Cut it at once: a TCP reset, or a plain close where there is none."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            # To linger for no time is how a close becomes a reset (socket(7)).
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()
        await until_gone(receive)

    async def pause(self, seconds: float) -> None:
        """Wait; raises WireGone if the connection ends meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), seconds)
            raise WireGone

    async def close(self, receive: Receive) -> None:
        """End it after what was sent has left."""
        self.transport.close()
        await until_gone(receive)


async def until_gone(receive: Receive) -> None:
    """Return when the connection is over; what still arrives is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
