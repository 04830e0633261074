"""A server that names the versions of content by etags: what is of two of them is not mixed."""

import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from containerfs.cache.parts import PART

SIZE = 3 * PART
OLD, NEW = b"o" * SIZE, b"n" * SIZE


class OneFile(BaseHTTPRequestHandler):
    """The API, with one large file; all but its first part waits until it has become another."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.endswith("/content"):
            return self._send_part()
        entry = {"id": "box", "name": "box", "path": "/mnt/data/file", "bytes": SIZE}
        entry |= {"container_id": "box", "created_at": 1, "status": "running"}
        listing = {"object": "list", "data": [entry], "last_id": "box", "has_more": False}
        return self._send(200, json.dumps(listing).encode())

    def _send_part(self):
        asked = re.search(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        first, last = int(asked[1]), min(int(asked[2] or SIZE), SIZE - 1)
        if first > 0:
            self.server.is_another.wait()
        body, etag = (NEW, '"new"') if self.server.is_another.is_set() else (OLD, '"old"')
        place = f"bytes {first}-{last}/{SIZE}"
        self._send(206, body[first : last + 1], ("Content-Range", place), ("ETag", etag))

    def _send(self, status, body, *headers):
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def changing():
    with ThreadingHTTPServer(("127.0.0.1", 0), OneFile) as server:
        server.is_another = Event()
        thread = Thread(target=server.serve_forever)
        thread.start()
        base_url = f"http://127.0.0.1:{server.server_port}/v1"
        yield SimpleNamespace(uds=None, base_url=base_url, is_another=server.is_another)
        server.is_another.set()
        server.shutdown()
        thread.join()


def test_who_has_read_of_one_version_gets_nothing_of_another(changing, mount, fd, errno_of):
    file = mount(server=changing, key="sk-test", ttl=300) / "box" / "file"
    reader = fd(file, os.O_RDONLY)
    assert os.pread(reader, 4096, 0) == OLD[:4096]
    changing.is_another.set()
    assert errno_of(os.pread, reader, 4096, SIZE - 4096) == "EIO"
    assert errno_of(os.pread, reader, 4096, SIZE - 8192) == "EIO"  # it stays with that
    assert file.read_bytes() == NEW  # also what the kernel had of the old one
