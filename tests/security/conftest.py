"""What tests against attackers share: a server that says anything, and a mount of it.

Fixtures:

`hostile`
    A server on a loopback port. `hostile.answer(request)` makes each answer: bytes, sent as they
    are (the connection stays open), or an iterable of bytes (it is closed after the last; what the
    client does not take is not made). It can be set to any function; at first it is
    `hostile.serve`, a small service of `hostile.containers` (JSON objects), `hostile.files` (the
    same for every container) and `hostile.content` (the bytes of every file).
    `hostile.requests`: what was asked, each with `.method`, `.target`, `.headers`; `.sent`: bytes
    that were handed to the network. `hostile.json(data)`, `hostile.plain(body, status, **headers)`:
    answers.

`hostile_client`, `hasty_client`
    A client of it, with the key `key`; one that repeats nothing, as its deadline is short.

`real_answers`
    Answers of the real server, head and body, by operation.

`spy`
    Another such server: nothing may ever ask it anything.

`key`
    A key that must be in no output.

`mount`
    `mount(hostile, *words, **env)`: the installed command in a process of its own; ends with the
    test. `.path`, `.cache`, `.log`, `.pid`, `.home` (its home and temporary directory), `.stop()`.
    A traceback or a key in its log fails the test.
"""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from containerfs import mountpoint
from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection

CANARY = "sk-canary-0123456789abcdefghijklmnop"
COMMAND = str(Path(sys.executable).with_name("containerfs"))
PATIENCE = 60  # seconds that anything may take
Answer = bytes | Iterable[bytes]


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]


class Hostile:
    def __init__(self) -> None:
        self.containers: list[Any] = [{"id": "cntr_1", "name": "box", "created_at": 1}]
        self.files: list[Any] = []
        self.content = b""
        self.answer: Callable[[Request], Answer] = self.serve
        self.requests: list[Request] = []
        self.sent = 0
        hostile = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    while request := _read(self.rfile):
                        hostile.requests.append(request)
                        if not self._send(hostile.answer(request)):
                            return
                except OSError:
                    return  # the client has gone

            def _send(self, answer: Answer) -> bool:
                for piece in (answer,) if isinstance(answer, bytes) else answer:
                    self.wfile.write(piece)
                    hostile.sent += len(piece)
                return isinstance(answer, bytes)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def serve(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        if request.method != "GET":
            return self.json({"deleted": True})
        if path.endswith("/content"):
            return self.plain(self.content)
        found = self.files if path.endswith("/files") else self.containers
        return self.json({"object": "list", "data": found, "has_more": False})

    @staticmethod
    def json(data: Any, status: int = 200, **headers: str) -> bytes:
        body = json.dumps(data).encode()
        return Hostile.plain(body, status, content_type="application/json", **headers)

    @staticmethod
    def plain(body: bytes, status: int = 200, **headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _read(stream: Any) -> Request | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) < 2:
        return None
    headers = {}
    while (text := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    stream.read(int(headers.get("content-length", "0")))
    return Request(line[0], line[1], headers)


def _running() -> Iterator[Hostile]:
    hostile = Hostile()
    thread = threading.Thread(target=hostile.server.serve_forever, args=(0.02,))
    thread.start()
    yield hostile
    hostile.server.shutdown()
    thread.join()
    hostile.server.server_close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    yield from _running()


@pytest.fixture
def spy() -> Iterator[Hostile]:
    for server in _running():
        yield server
        assert server.requests == []


@pytest.fixture
def key() -> str:
    return CANARY


@pytest.fixture
async def hostile_client(hostile: Hostile) -> AsyncIterator[Client]:
    connection = Connection(base_url=hostile.base_url, api_key=CANARY, timeout=5)
    async with connect(connection) as client:
        yield client


@pytest.fixture
async def hasty_client(hostile: Hostile) -> AsyncIterator[Client]:
    connection = Connection(base_url=hostile.base_url, api_key=CANARY, timeout=0.8)
    async with connect(connection) as client:
        yield client


class Mount:
    def __init__(self, directory: Path, words: list[str], env: dict[str, str]) -> None:
        self.path = directory / "mnt"
        self.cache = directory / "cache"
        self.home = directory / "home"
        self._log = directory / "log"
        for made in (self.path, self.home, directory / "run"):
            made.mkdir(mode=0o700)
        environ = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "LC_ALL": "C.UTF-8",
            "NO_PROXY": "*",
            "OPENAI_API_KEY": CANARY,
            "CONTAINERFS_LOG_LEVEL": "debug",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [COMMAND, "mount", f"--cache-dir={self.cache}", *words, str(self.path)],
                env=environ | env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._watchdog = threading.Timer(2 * PATIENCE, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), self.log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._watchdog.cancel()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            while mountpoint.at(self.path):
                mountpoint.detach(self.path)


@pytest.fixture
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Mount]]:
    mounts: list[Mount] = []

    def start(server: Any, *words: str, **env: str) -> Mount:
        where = ["--uds", server.uds] if getattr(server, "uds", None) else []
        where = where or ["--base-url", server.base_url]
        mounts.append(Mount(tmp_path_factory.mktemp("m"), [*where, *words], env))
        return mounts[-1]

    yield start
    for each in mounts:
        each.stop()
    for each in mounts:
        assert "Traceback" not in each.log, each.log
        assert CANARY not in each.log
        assert each.process.returncode == 0, each.log


@pytest.fixture
def real_answers(shared_server: Any) -> dict[str, bytes]:
    """Made of real requests: of a server with three containers and a few files."""
    for name in ("work", "work", "näme"):
        container = shared_server.new_container(name)
    for name in ("a.csv", "dir/b.txt", "dir/deep/c d.txt"):
        file = shared_server.upload(container, name, b"content of " + name.encode())
    shared_server.write(container, "/mnt/data/plot.png", b"\x89PNG")
    shared_server.write(container, "/tmp/outside", b"x", bytes=None)
    answers = {}
    for operation, path in {
        "list_containers": "/v1/containers?limit=100",
        "retrieve_container": f"/v1/containers/{container}",
        "list_files": f"/v1/containers/{container}/files?limit=100",
        "retrieve_file": f"/v1/containers/{container}/files/{file['id']}",
        "content": f"/v1/containers/{container}/files/{file['id']}/content",
        "error": "/v1/containers/nowhere",
    }.items():
        status, headers, body = shared_server.exchange("GET", path)
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
        answers[operation] = "\r\n".join([*lines, "", ""]).encode() + body
    return answers
