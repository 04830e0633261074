"""Large files stream both ways: the server's memory does not grow with them."""

import hashlib
import http.client
from pathlib import Path

import pytest

MIB = 1024 * 1024
LIMIT = 150 * MIB  # bytes of peak resident memory


def peak_memory(server):
    status = Path(f"/proc/{server.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def stream_through(server, connect, mib):
    """Upload and download so many MiB without ever holding them here; their digests."""
    container = server.new_container()
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    tail = b"\r\n--B--\r\n"
    up = connect(server)
    up.send(
        f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(head) + mib * MIB + len(tail)}\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n".encode()
    )
    sent, received = hashlib.sha256(), hashlib.sha256()
    up.send(head)
    for number in range(mib):
        block = number.to_bytes(4, "big") * (MIB // 4)
        sent.update(block)
        up.send(block)
    up.send(tail)
    assert up.read_head().startswith("HTTP/1.1 200")
    (file,) = server.files(container)
    assert file["bytes"] == mib * MIB
    down = connect(server)
    down.request("GET", f"/v1/containers/{container}/files/{file['id']}/content")
    answer = http.client.HTTPResponse(down.socket)
    answer.begin()
    while block := answer.read(MIB):
        received.update(block)
    answer.close()
    return sent.digest(), received.digest()


@pytest.mark.parametrize("mib", [128, pytest.param(1024, marks=pytest.mark.deep)])
def test_a_large_file_streams_through_little_memory(server, connect, mib):
    sent, received = stream_through(server, connect, mib)
    assert sent == received
    assert peak_memory(server) < LIMIT
