"""What tests of the client share: a client of the real server, and a server that says anything.

`client`
    A client of the `server` fixture.

`raw`
    A scripted server on a loopback port: `raw.answers` is a list of byte strings (sent as they are)
    or async functions (given the connection's stream), one for each request in order of arrival;
    after the last one its `raw.default` goes on. `raw.requests` are the requests, each with
    `.connection` (a number), `.line`, `.headers` and `.body`. `raw.json(data, status, **headers)`
    and `raw.plain(body, status, **headers)` make answers. One that ends with `raw.CLOSE` closes the
    connection after it, and a function may do so. `raw.stops_reading`: bodies are not taken.

`raw_client`
    A client of it.
"""

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection


@dataclass(frozen=True)
class Request:
    connection: int
    line: str
    headers: dict[str, str]
    body: bytes


class RawServer:
    CLOSE = b"\0CLOSE"

    def __init__(self) -> None:
        self.answers: list[bytes | Callable[[trio.SocketStream], Awaitable[None]]] = []
        self.default = self.json({"object": "list", "data": [], "has_more": False})
        self.requests: list[Request] = []
        self.connections = 0
        self.stops_reading = False
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @staticmethod
    def json(data: Any, status: int = 200, **headers: str) -> bytes:
        body = json.dumps(data).encode()
        return RawServer.plain(body, status, content_type="application/json", **headers)

    @staticmethod
    def plain(body: bytes, status: int = 200, **headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        try:
            while request := await self._read(stream, number):
                self.requests.append(request)
                answer = self.answers.pop(0) if self.answers else self.default
                if not isinstance(answer, bytes):
                    await answer(stream)
                    continue
                await stream.send_all(answer.removesuffix(self.CLOSE))
                if answer.endswith(self.CLOSE):
                    await stream.aclose()
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _read(self, stream: trio.SocketStream, number: int) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await stream.receive_some()
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        parts = (text.partition(":") for text in rest)
        headers = {name.lower(): value.strip() for name, _, value in parts}
        if self.stops_reading:
            await trio.sleep_forever()
        while len(body) < int(headers.get("content-length", "0")):
            body += await stream.receive_some()
        return Request(number, line, headers, body)


@pytest.fixture
async def raw(nursery: trio.Nursery) -> RawServer:
    server = RawServer()
    serve = partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
    listeners = await nursery.start(serve)
    server.port = listeners[0].socket.getsockname()[1]
    return server


@pytest.fixture
async def raw_client(raw: RawServer) -> AsyncIterator[Client]:
    async with connect(Connection(base_url=raw.base_url, timeout=5, transfer_timeout=5)) as client:
        yield client


@pytest.fixture
def adorned(raw: RawServer) -> Connection:
    """A connection to `raw` with all that a request can be told to carry."""
    return Connection(
        base_url=raw.base_url + "?v=2",
        api_key="sk-key",
        project="p",
        headers={"X-Own": "own"},
        query={"q": "1"},
    )


@pytest.fixture
async def client(server: Any) -> AsyncIterator[Client]:
    async with connect(Connection(base_url=server.base_url, uds=server.uds)) as client:
        yield client


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound but not listened on: connecting to it is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
