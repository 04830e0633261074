"""One nginx that plays the API, by files rendered ahead, and is an index of directories at once."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pages
from boxes import Box
from ground import CONTENT, HOST, LISTING, exchange
from processes import PATIENCE, BenchError, last_words, running

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


class Nginx:
    """One nginx that plays the API and is an index of directories at once."""

    def __init__(self, root: Path, *, port: int, tls_port: int, certificate: Path) -> None:
        self.port = port
        self.tls_port: int | None = tls_port
        self.certificate: Path | None = certificate
        self._www = root / "www"
        self._boxes: list[Box] = []
        self._asked = 0

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
        self._asked += 1
        # "server accepts handled requests\n 3 3 5 \n": the last counts those for it too.
        told = exchange(self.port, "GET", "/status").decode()
        return int(told.splitlines()[2].split()[2]) - self._asked

    def contents(self, box: Box) -> Iterator[str]:
        for number in range(box.count):
            yield CONTENT.format(box=box.id, file=box.file_id(number))

    def listings(self, box: Box) -> Iterator[str]:
        first = LISTING.format(box=box.id)
        yield first
        for number in range(box.count - pages.PAGE, 0, -pages.PAGE):
            yield f"{first}&after={box.file_id(number)}"


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
    with running([_program(), "-p", root, "-c", config], log=log) as process:
        deadline = time.monotonic() + PATIENCE
        while not _is_answering(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"nginx did not start: {last_words(log)}")
            time.sleep(0.01)
        yield Nginx(root, port=port, tls_port=tls_port, certificate=pem)


def _program() -> str:
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
