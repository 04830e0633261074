"""Tests of the embedded server talk to it by sockets: with http.client, or byte by byte."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class RawConnection:
    """A connection on which a test writes and reads bytes as it likes."""

    def __init__(self, server: Any) -> None:
        if server.uds:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(server.uds)
        else:
            host, _, port = server.base_url.split("/")[2].partition(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(30)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, path: str, body: bytes = b"", *headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def read_head(self) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(1)
            assert more, data
            data += more
        return data.decode()

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def read_all(self) -> bytes:
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Any], RawConnection]]:
    """Opens raw connections to a server; they are closed with the test."""
    connections: list[RawConnection] = []

    def start(server: Any) -> RawConnection:
        connections.append(RawConnection(server))
        return connections[-1]

    yield start
    for connection in connections:
        connection.close()


def blocks_with_data(path: Path) -> Iterator[str]:
    """The blocks of a sparse file that take room on the disk."""
    end = 0
    with path.open("rb") as file:
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield from (f"{path}@{block}" for block in range(start, end, 4096))


@pytest.fixture
def contents_of() -> Callable[[Any], set[str]]:
    """What a server's contents take of the disk: files, and blocks of packs, each with a name."""

    def contents(server: Any) -> set[str]:
        files = [path for path in (server.data / "content").rglob("*") if path.is_file()]
        own = {path.name for path in files if path.name != "pack"}
        return own.union(*(blocks_with_data(path) for path in files if path.name == "pack"))

    return contents
