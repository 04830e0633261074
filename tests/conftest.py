"""What tests of every layer share: a real server in a process of its own, and `--deep`.

Fixtures:

`server`
    A running server with the admin routes, on a Unix socket, with default behaviours.

`shared_server`
    The same for all tests of a module that don't change how it behaves.

`service`
    `shared_server` for tests that do change it: as it began, and asked nothing so far.

`server_factory`
    Starts servers: `server_factory(behaviours={"naming": "plain"}, faults=[{"kind": "cut", ...}],
    tcp=False, admin=True, api_key=None, data=None)`. Behaviours and faults are those of
    `containerfs serve`; `tcp=True` listens on a loopback port that the system chose; *data* is a
    data directory to share with another server, one after the other. All end with the test.

A server offers:

* `.base_url`: for a client's base URL, ending in `/v1`; with a Unix socket its host means nothing.
* `.uds`: path of the Unix socket, or None; `.pid`; `.data`: its data directory; `.api_key`.
* `.call(method, path, body=None)`: one request to a path such as `/v1/containers`, *body* being
  JSON or None; the parsed answer, which must be a success.
* `.exchange(method, path, body=b"", headers=None)`: one raw request; status, headers and body.
* `.admin(method, path, body=None)`: the same as `call` for a path such as `/admin/faults`.
* `.set_behaviours(**values)`, `.set_faults(*faults)`, `.expire(container_id)`, and
  `.age(container_id, seconds)`: as if the container had been idle for so much longer.
* `.register(name, data)`: a file to attach; returns its id.
* `.requests(operation=None)`: the request log, oldest first, of one operation or of all;
  `.forget_requests()`.
* `.new_container(name="box", **members)`: makes one, returns its id.
* `.upload(container_id, name, data)`: uploads as a user, returns the file's JSON.
* `.write(container_id, path, data=b"", **members)`: a file as the model's code writes it, with the
  members of `POST /admin/files` (`phantom`, `bytes`, `id`, `created_at`, `source`).
* `.content(container_id, file_id)`: the bytes. `.files(container_id)`: all of them, newest first.
* `.kill()`: SIGKILL. `.stop()`: SIGTERM, returns the exit code. `.start()`: again, with the same
  data at the same address. `.restart()`: both. `.errors`: its standard error, in which
  no traceback may be left when the test ends; `.forget_errors()`.
"""

import base64
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_KEY = re.compile(r"\bsk-\w{3,}")
_BOUNDARY = "a-boundary-that-no-test-writes"
_SHORT = {"api", "cache", "fs", "server", "upload"}  # directories of tests that take no mount


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="run the slow and thorough tests too")


def pytest_configure() -> None:
    """Tests that play mounts hold as many files open as these, which raise their limit, too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # several processes share the tests: what is long goes first
        items.sort(key=lambda item: item.path.parent.name in _SHORT)
    if not config.getoption("--deep"):
        skip = pytest.mark.skip(reason="runs only with --deep")
        for item in items:
            if item.get_closest_marker("deep"):
                item.add_marker(skip)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """No log and no output of any test holds a key: all keys of the tests begin with "sk-"."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.outcome != "failed":
        for title, text in report.sections:
            if found := _KEY.search(text):
                report.outcome = "failed"
                report.longrepr = (
                    f"a key is in {title}: {text[max(0, found.start() - 300) :][:400]}"
                )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Server:
    """A server process."""

    def __init__(
        self,
        directory: Path,
        *,
        behaviours: dict[str, Any] | None = None,
        faults: list[dict[str, Any]] | None = None,
        tcp: bool = False,
        admin: bool = True,
        api_key: str | None = None,
        data: Path | None = None,
    ) -> None:
        self.data = data or directory / "data"
        self.uds = None if tcp else str(directory / "socket")
        self.api_key = api_key
        self.base_url = "http://localhost/v1"
        self._port = 0
        self._errors = directory / "stderr"
        self._options = ["--admin"] if admin else []
        if api_key is not None:
            key_file = directory / "key"
            key_file.touch(mode=0o600)
            key_file.write_text(api_key)
            self._options += ["--api-key-file", str(key_file)]
        for name, value in (behaviours or {}).items():
            self._options += ["--behaviour", f"{name}={value}"]
        for fault in faults or []:
            words = ",".join(f"{name}={value}" for name, value in fault.items())
            self._options += ["--fault", words]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def forget_errors(self) -> None:
        os.truncate(self._errors, 0)

    def start(self) -> None:
        place = ["--uds", self.uds] if self.uds else ["--port", str(self._port)]
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "containerfs.cli.serve"),
                    *("--data", str(self.data)),
                    *place,
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().decode()
        assert ready.startswith("listening on "), ready + self.errors
        if self.uds is None:
            self.base_url = ready.removeprefix("listening on ").strip()
            self._port = int(self.base_url.rpartition(":")[2].partition("/")[0])

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        if process.poll() is None:
            os.kill(process.pid, number)
        code = process.wait(60)
        process.stdout.close()
        return code

    def exchange(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = dict(headers or {})
        if self.api_key is not None:
            headers.setdefault("Authorization", f"Bearer {self.api_key}")
        if self.uds:
            connection: http.client.HTTPConnection = _UnixConnection(self.uds)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        status, _, answer = self.exchange(method, path, data, headers)
        assert status < 300, (status, answer)
        return json.loads(answer)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        assert path.startswith("/admin/")
        return self.call(method, path, body)

    def set_behaviours(self, **values: Any) -> None:
        self.admin("PUT", "/admin/behaviours", values)

    def set_faults(self, *faults: dict[str, Any]) -> None:
        self.admin("PUT", "/admin/faults", list(faults))

    def expire(self, container_id: str) -> None:
        self.admin("POST", "/admin/expire", {"container_id": container_id})

    def age(self, container_id: str, seconds: float) -> None:
        self.admin("POST", "/admin/age", {"container_id": container_id, "seconds": seconds})

    def register(self, name: str, data: bytes) -> str:
        return self._send_form("/admin/registry", name, data)["id"]

    def requests(self, operation: str | None = None) -> list[dict[str, Any]]:
        log = self.admin("GET", "/admin/requests")
        return [entry for entry in log if operation in (None, entry["operation"])]

    def forget_requests(self) -> None:
        self.admin("DELETE", "/admin/requests")

    def new_container(self, name: str = "box", **members: Any) -> str:
        return self.call("POST", "/v1/containers", {"name": name, **members})["id"]

    def upload(self, container_id: str, name: str, data: bytes) -> dict[str, Any]:
        return self._send_form(f"/v1/containers/{container_id}/files", name, data)

    def _send_form(self, path: str, name: str, data: bytes) -> dict[str, Any]:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"'
        body = head.encode() + b"\r\n\r\n" + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        status, _, answer = self.exchange(
            "POST", path, body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        )
        assert status == 200, (status, answer)
        return json.loads(answer)

    def write(self, container_id: str, path: str, data: bytes = b"", **members: Any) -> Any:
        body = {"path": path, "content_base64": base64.b64encode(data).decode(), **members}
        return self.admin("POST", f"/admin/files/{container_id}", body)

    def content(self, container_id: str, file_id: str) -> bytes:
        path = f"/v1/containers/{container_id}/files/{file_id}/content"
        status, _, body = self.exchange("GET", path)
        assert status == 200, (status, body)
        return body

    def files(self, container_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            path = f"/v1/containers/{container_id}/files?limit=100{after}"
            page = self.call("GET", path)
            found += page["data"]
            if not page["has_more"]:
                return found
            after = f"&after={page['last_id']}"


@contextmanager
def _serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        # A directory with a short name: the path of a socket has at most 107 bytes.
        server = Server(tmp_path_factory.mktemp("s"), **options)
        servers.append(server)
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.kill()
    for server in servers:
        assert "Traceback" not in server.errors, server.errors


@pytest.fixture
def server_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    with _serving(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _serving(tmp_path_factory) as start:
        yield start()


@pytest.fixture(scope="module")
def default_behaviours(shared_server: Server) -> Any:
    return shared_server.admin("GET", "/admin/behaviours")


@pytest.fixture
def service(shared_server: Server, default_behaviours: Any) -> Server:
    shared_server.set_behaviours(**default_behaviours)
    shared_server.set_faults()
    shared_server.forget_requests()
    return shared_server


@pytest.fixture
def server(server_factory: Callable[..., Server]) -> Server:
    return server_factory()
