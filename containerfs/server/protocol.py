"""uvicorn's HTTP/1.1 protocol, with the connection in the scope and our words for bad requests."""

import asyncio

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from containerfs.server.ids import new_request_id
from containerfs.server.refusals import Refusal
from containerfs.server.wire import EXTENSION, Wire


class Protocol(H11Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the application see the connection."""
        super().connection_made(transport)
        application, wire = self.app, Wire(transport)

        async def with_wire(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {EXTENSION: wire}
            await application(scope, receive, send)

        self.app = with_wire
        self._wire = wire

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the application know."""
        super().connection_lost(exc)
        self._wire.gone.set()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = Refusal(400, msg).body
            head = (
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n"
                f"x-request-id: {new_request_id()}\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
