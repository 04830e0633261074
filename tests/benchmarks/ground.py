"""What the contestants read from and write to: on loopback, the same bytes, as near or as far.

Reads come from one nginx: to containerfs it is the API, by pages that were rendered ahead, to
rclone an index of directories. Writes go to the embedded server and to `rclone serve webdav`. Where
there is no peer, the embedded server serves the reads too, and nothing else is needed.
"""

import http.client
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from boxes import Box
from processes import BenchError, running, said

HOST = "127.0.0.1"
CONTENT = "/v1/containers/{box}/files/{file}/content"
LISTING = "/v1/containers/{box}/files?limit=100&order=desc"


class Ground(Protocol):
    """Where boxes are read from."""

    port: int
    tls_port: int | None  # None where there is no TLS
    certificate: Path | None

    def add(self, box: Box) -> None:
        """Serve a box from now on; nothing for one that is served already."""

    def requests(self) -> int:
        """Requests answered so far."""

    def contents(self, box: Box) -> Iterator[str]:
        """The path of the content of each file."""

    def listings(self, box: Box) -> Iterator[str]:
        """The path of each page of the newest-first list."""


@dataclass(kw_only=True)
class Lines:
    """Delay proxies in front of servers, started when first asked for; none where there is no RTT.

    Args:
        rtt: Milliseconds there and back.
    """

    rtt: int
    stack: ExitStack
    directory: Path
    _ports: dict[int, int] = field(default_factory=dict)

    def port(self, port: int) -> int:
        """The port that leads to *port*, by the line."""
        if not self.rtt:
            return port
        if port not in self._ports:
            log = self.directory / f"line-{self.rtt}-{port}.log"
            script = Path(__file__).with_name("delay.py")
            command = [sys.executable, str(script), str(port), str(self.rtt / 2000)]
            process = self.stack.enter_context(running(command, log=log))
            self._ports[port] = int(said(process, r"listening on (\d+)", log=log))
        return self._ports[port]


def exchange(
    port: int, method: str, path: str, body: bytes = b"", *, kind: str = "application/json"
) -> bytes:
    """One request to a server on loopback; the body of its answer.

    Raises:
        BenchError: It did not succeed.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=300)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if body else {})
        answer = connection.getresponse()
        told = answer.read()
    except OSError as exc:
        raise BenchError(f"{method} {path}: {exc}") from exc
    finally:
        connection.close()
    if answer.status >= 300:
        raise BenchError(f"{method} {path}: {answer.status} {told[:200]!r}")
    return told
