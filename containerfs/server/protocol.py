"""uvicorn's HTTP/1.1 protocol, with the connection in the scope and our words for bad requests."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from containerfs.server.ids import new_request_id
from containerfs.server.refusals import Refusal
from containerfs.server.wire import EXTENSION, Wire

MAX_HEAD = 256 * 1024  # bytes of a request's head
_VERSIONS = ("1.0", "1.1")


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_size: int | None = 0  # bytes of a head that is on its way

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

    def data_received(self, data: bytes) -> None:
        """Parse what came; a head that does not end is refused."""
        if self.transport.is_closing():
            return
        if self._head_size is not None:
            self._head_size += len(data)
        super().data_received(data)
        if self._head_size is not None and self._head_size > MAX_HEAD:
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        """Refuse what httptools lets pass: another version, no host or several."""
        self._head_size = None
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in _VERSIONS or hosts > 1 or (version == "1.1" and not hosts):
            raise ValueError("no HTTP/1.1 request")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What follows is a head."""
        super().on_message_complete()
        self._head_size = 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = Refusal(400, msg).body
            head = (
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n"
                f"x-request-id: {new_request_id()}\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
