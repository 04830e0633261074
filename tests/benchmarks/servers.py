"""The servers that are written to: the embedded one of containerfs, and rclone's WebDAV."""

import base64
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pages
from boxes import Box, as_json
from ground import CONTENT, HOST, LISTING, exchange
from processes import running, said

COMMAND = Path(sys.executable).with_name("containerfs")
_BOUNDARY = "no-file-has-this-line"
_BATCH = 1000  # files of one admin request
_LARGE = 64 * 1024  # bytes; what is larger is uploaded by itself


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
        for start in range(0, box.count, _BATCH):
            numbers = range(start, min(box.count, start + _BATCH))
            files = [_admin_json(box, number) for number in numbers]
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
        exchange(self.port, "POST", f"/v1/containers/{id}/files", body, kind=kind)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        sent = b"" if body is None else as_json(body)
        return json.loads(exchange(self.port, method, path, sent))


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDav:
    """`rclone serve webdav` on a directory."""

    port: int
    directory: Path

    def new_directory(self, name: str) -> None:
        """Make a directory, in a way that the server knows about it at once."""
        exchange(self.port, "MKCOL", f"/{name}/")

    def stored(self, name: str) -> tuple[int, int]:
        """How many files there are below *name*, and how many bytes they are."""
        sizes = [
            os.stat(os.path.join(place, file)).st_size
            for place, _, files in os.walk(self.directory / name)
            for file in files
        ]
        return len(sizes), sum(sizes)


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
    command = ["rclone", "serve", "webdav", directory, "--addr", f"{HOST}:0", "--config", ""]
    with running(command, log=log) as process:
        port = int(said(process, r"Server started on \[?http://[^:]+:(\d+)/", log=log))
        yield WebDav(port=port, directory=directory)


def _admin_json(box: Box, number: int) -> dict[str, Any]:
    """A file as the admin route takes it."""
    return {
        "path": box.path(number),
        "content_base64": base64.b64encode(b"".join(box.chunks(number))).decode(),
        "id": box.file_id(number),
        "created_at": box.created(number),
        "source": "user",
    }
