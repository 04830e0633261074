"""The servers that the contestants meet: on loopback, the same bytes for both, as near or as far.

Reads come from one nginx: to containerfs it is the API, by pages that were rendered ahead, to rclone
an index of directories. Writes go to the embedded server and to `rclone serve webdav`. Where there
is no peer, the embedded server serves the reads too, and nothing else is needed.
"""

import base64
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pages
from boxes import Box, as_json
from processes import BenchError, running, said

HOST = "127.0.0.1"
COMMAND = Path(sys.executable).with_name("containerfs")
CONTENT = "/v1/containers/{box}/files/{file}/content"
LISTING = "/v1/containers/{box}/files?limit=100&order=desc"
_BOUNDARY = "no-file-has-this-line"
_BATCH = 1000  # files of one admin request
_LARGE = 64 * 1024  # bytes; what is larger is uploaded by itself

_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {root}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {root}/temp;
    proxy_temp_path {root}/temp;
    fastcgi_temp_path {root}/temp;
    uwsgi_temp_path {root}/temp;
    scgi_temp_path {root}/temp;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    types {{ }}
    default_type application/octet-stream;
    map $arg_after $cursor {{ default $arg_after; "" {first}; }}
    map $arg_order $direction {{ default desc; asc asc; }}
    server {{
        listen {host}:{port};
        {tls}
        root {root}/www;
        location = /status {{ stub_status; }}
        location /data/ {{ autoindex on; }}
        location = /v1/containers {{
            default_type application/json;
            try_files /pages/containers/$direction/$cursor.json =404;
        }}
        location ~ ^/v1/containers/(?<box>[^/]+)/files$ {{
            default_type application/json;
            try_files /pages/$box/$direction/$cursor.json =404;
        }}
        location ~ "^/v1/containers/(?<box>[^/]+)/files/cfile_[0-9a-f]+(?<n>[0-9]{{6}})/content$" {{
            try_files /by-id/$box/$n.txt =404;
        }}
    }}
}}
"""
_TLS = "listen {host}:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"


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


class Nginx:
    """One nginx that plays the API and is an index of directories at once."""

    def __init__(self, root: Path, *, port: int, tls_port: int, certificate: Path) -> None:
        self.port = port
        self.tls_port: int | None = tls_port
        self.certificate: Path | None = certificate
        self._www = root / "www"
        self._boxes: list[Box] = []

    def add(self, box: Box) -> None:
        if box in self._boxes:
            return
        box.write(self._www / "data" / box.name)
        (self._www / "by-id").mkdir(exist_ok=True)
        (self._www / "by-id" / box.id).symlink_to(self._www / "data" / box.name)
        pages.write_box(self._www / "pages" / box.id, box)
        self._boxes.append(box)
        shutil.rmtree(self._www / "pages" / "containers", ignore_errors=True)
        pages.write_pages(
            self._www / "pages" / "containers", [each.container_json() for each in self._boxes]
        )

    def requests(self) -> int:
        _, told = _exchange(self.port, "GET", "/status")
        # "server accepts handled requests\n 3 3 5 \n": the last counts this request too.
        count = int(told.decode().splitlines()[2].split()[2])
        self._own = getattr(self, "_own", 0) + 1
        return count - self._own

    def contents(self, box: Box) -> Iterator[str]:
        for number in range(box.count):
            yield CONTENT.format(box=box.id, file=box.file_id(number))

    def listings(self, box: Box) -> Iterator[str]:
        first = LISTING.format(box=box.id)
        yield first
        for number in range(box.count - pages.PAGE, 0, -pages.PAGE):
            yield f"{first}&after={box.file_id(number)}"


class Embedded:
    """The embedded server of containerfs."""

    tls_port: int | None = None
    certificate: Path | None = None

    def __init__(self, port: int) -> None:
        self.port = port
        self._ids: dict[Box, str] = {}

    def add(self, box: Box) -> None:
        if box in self._ids:
            return
        id = self._ids[box] = self.new_container(box.name)
        if box.size > _LARGE:
            for number in range(box.count):
                self._upload(id, box.file_name(number), b"".join(box.chunks(number)))
            return
        for numbers in itertools.batched(range(box.count), _BATCH):
            files = [
                {
                    "path": box.path(number),
                    "content_base64": base64.b64encode(b"".join(box.chunks(number))).decode(),
                    "id": box.file_id(number),
                    "created_at": box.created(number),
                    "source": "user",
                }
                for number in numbers
            ]
            self._call("POST", f"/admin/files/{id}", files)

    def requests(self) -> int:
        return sum(not each["path"].startswith("/admin") for each in self._log())

    def forget_requests(self) -> None:
        """Start counting at 0."""
        self._call("DELETE", "/admin/requests")

    def new_container(self, name: str) -> str:
        """Make an empty container; its id."""
        return str(self._call("POST", "/v1/containers", {"name": name})["id"])

    def delete_container(self, id: str) -> None:
        """Delete it with everything in it."""
        self._call("DELETE", f"/v1/containers/{id}")

    def stored(self, id: str) -> tuple[int, int]:
        """How many files a container has, and how many bytes they are."""
        sizes = [file["bytes"] for file in self._files(id)]
        return len(sizes), sum(sizes)

    def contents(self, box: Box) -> Iterator[str]:
        id = self._ids[box]
        for file in self._files(id):
            yield CONTENT.format(box=id, file=file["id"])

    def listings(self, box: Box) -> Iterator[str]:
        first = LISTING.format(box=self._ids[box])
        yield first
        ids = [file["id"] for file in self._files(self._ids[box])]
        for last in ids[pages.PAGE - 1 : -1 : pages.PAGE]:
            yield f"{first}&after={last}"

    def _files(self, id: str) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self._call("GET", LISTING.format(box=id) + after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&after={page['last_id']}"

    def _log(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/admin/requests")
        return found

    def _upload(self, id: str, name: str, data: bytes) -> None:
        disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
        head = f"--{_BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        body = head + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        _exchange(self.port, "POST", f"/v1/containers/{id}/files", body, kind=kind)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        _, told = _exchange(self.port, method, path, b"" if body is None else as_json(body))
        return json.loads(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDav:
    """`rclone serve webdav` on a directory."""

    port: int
    directory: Path

    def stored(self, name: str) -> tuple[int, int]:
        """How many files there are below *name*, and how many bytes they are."""
        sizes = [
            os.stat(os.path.join(place, file)).st_size
            for place, _, files in os.walk(self.directory / name)
            for file in files
        ]
        return len(sizes), sum(sizes)


@contextmanager
def nginx(root: Path) -> Iterator[Nginx]:
    """Run one in a directory of its own."""
    for name in ("www/pages", "www/data", "temp"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)  # nginx's worker is another user when we are root
    pem = _certificate(root)
    port, tls_port = _free_ports(2)
    tls = _TLS.format(host=HOST, port=tls_port, pem=pem)
    config = root / "nginx.conf"
    config.write_text(
        ("user root;" if os.geteuid() == 0 else "")
        + _NGINX.format(root=root, host=HOST, port=port, tls=tls, first=pages.FIRST)
    )
    log = root / "nginx.log"
    with running([_nginx_program(), "-p", root, "-c", config], log=log) as process:
        _until(lambda: _is_answering(port), process, log)
        yield Nginx(root, port=port, tls_port=tls_port, certificate=pem)


@contextmanager
def embedded(root: Path) -> Iterator[Embedded]:
    """Run one in a directory of its own, with the defaults, but containers that live on."""
    root.mkdir()
    log = root / "serve.log"
    options = ["--data", root / "data", "--admin", "--behaviour", "expiry=off"]
    with running([COMMAND, "serve", *options], log=log) as process:
        yield Embedded(int(said(process, r"listening on http://[^:]+:(\d+)/", log=log)))


@contextmanager
def webdav(root: Path) -> Iterator[WebDav]:
    """Run one in a directory of its own."""
    root.mkdir()
    directory = root / "data"
    directory.mkdir()
    log = root / "webdav.log"
    command = ["rclone", "serve", "webdav", directory, "--addr", f"{HOST}:0"]
    command += ["--config", "", "--dir-cache-time", "1s"]
    with running(command, log=log) as process:
        port = int(said(process, r"Server started on \[?http://[^:]+:(\d+)/", log=log))
        yield WebDav(port=port, directory=directory)


def _nginx_program() -> str:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    found = shutil.which("nginx", path=path)
    if found is None:
        raise BenchError("nginx is missing: install nginx-light")
    return found


def _certificate(root: Path) -> Path:
    """A throw-away certificate of the loopback address, and its key."""
    pem, key = root / "certificate.pem", root / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048"]
    command += ["-subj", "/CN=benchmark", "-addext", f"subjectAltName=IP:{HOST}"]
    command += ["-keyout", str(key), "-out", str(pem)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        raise BenchError("openssl made no certificate")
    pem.write_bytes(pem.read_bytes() + key.read_bytes())
    return pem


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def _is_answering(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except OSError:
        return False
    return True
