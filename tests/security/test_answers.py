"""Answers made to harm the client: each is an error in words, and costs little."""

import functools
import itertools
import json
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.api.listing import all_containers, all_files
from containerfs.errors import FileSystemError, ServerFault

PIECE = b" " * (1 << 16)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HUGE = HEAD + b"Content-Length: 1073741824\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FEW = 64 << 20  # bytes: what the kernel's buffers may hold above what was read


def endless(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    yield from itertools.repeat(piece, (1 << 30) // len(piece))


@functools.cache
def bomb() -> bytes:
    packer = zlib.compressobj(wbits=31)
    zeros = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64))
    return zeros + packer.flush()


async def test_a_gigabyte_of_json_is_not_read(hostile, hostile_client) -> None:
    hostile.answer = lambda _: endless(HUGE, PIECE)
    with pytest.raises(ServerFault, match="longer than"):
        await hostile_client.list_containers()
    assert hostile.sent < FEW


async def test_endless_chunks_are_not_read(hostile, hostile_client) -> None:
    hostile.answer = lambda _: endless(CHUNKED, b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
    with pytest.raises(ServerFault, match="longer than"):
        await hostile_client.list_containers()
    assert hostile.sent < FEW


async def test_an_endless_error_is_not_read(hostile, hostile_client) -> None:
    head = HUGE.replace(b"200", b"404")
    hostile.answer = lambda _: endless(head, PIECE)
    with pytest.raises(FileSystemError, match="404"):
        await hostile_client.list_containers()
    assert hostile.sent < FEW


@pytest.mark.parametrize(
    "piece", [b"x: " + b"y" * 60_000 + b"\r\n", b"y" * 60_000], ids=["lines", "one line"]
)
async def test_endless_headers_are_not_read(hostile, hasty_client, piece) -> None:
    hostile.answer = lambda _: endless(b"HTTP/1.1 200 OK\r\n", piece)
    with pytest.raises(FileSystemError):
        await hasty_client.list_containers()
    assert hostile.sent < FEW


@pytest.mark.parametrize("text", [b"[", b'{"a":'], ids=["arrays", "objects"])
@pytest.mark.parametrize("depth", [100_000, 990, 970, 950, 930, 900])
@pytest.mark.parametrize("shape", ["%s", '{"error": {"code": %s}}', '{"error": {"message": %s}}'])
async def test_json_nested_deep_is_an_error(hostile, hasty_client, text, depth, shape) -> None:
    closing = b"]" if text == b"[" else b"}"
    body = shape.encode() % (text * depth + b"1" + closing * depth)
    hostile.answer = lambda _: hostile.plain(body)
    with pytest.raises(FileSystemError):
        await hasty_client.retrieve_container("c")


@pytest.mark.parametrize("encoding", ["gzip", "GZip", "br", "deflate, gzip", "x-unknown"])
async def test_a_compressed_answer_is_refused(hostile, hostile_client, encoding) -> None:
    hostile.answer = lambda _: hostile.plain(bomb(), content_encoding=encoding)
    with pytest.raises(ServerFault, match="encoded"):
        await hostile_client.list_containers()
    with pytest.raises(ServerFault, match="encoded"):
        async with hostile_client.download_file("c", "f"):
            pass


async def test_a_compressed_transfer_is_refused(hostile, hasty_client) -> None:
    hostile.answer = lambda _: [HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"]
    with pytest.raises(FileSystemError):
        await hasty_client.list_containers()


# Redirects.


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "http://127.0.0.1:{spy}/v1/containers",
        "//127.0.0.1:{spy}/",
        "http://user:pass@127.0.0.1:{spy}/",
        "https://127.0.0.1:{own}/v1/containers",
        "ftp://127.0.0.1:{own}/",
        "javascript:alert(1)",
        "http://[",
        "http://[::1",
        "http://127.0.0.1:99999999/",
        "http://\u00ff.\u00fe/",
        "http://" + "a" * 70_000,
        "http:///",
        "//",
        "?" * 70_000,
    ],
)
@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirect_leads_nowhere_else(
    hostile, hostile_client, spy, location, status
) -> None:
    place = location.replace("{spy}", str(spy.port)).replace("{own}", str(hostile.port))
    hostile.answer = lambda _: hostile.plain(b"", status, location=place)
    with pytest.raises(FileSystemError):
        await hostile_client.list_containers()
    with pytest.raises(FileSystemError):
        async with hostile_client.download_file("c", "f"):
            pass


async def test_redirects_end(hostile, hostile_client) -> None:
    turns = itertools.count()
    hostile.answer = lambda _: hostile.plain(b"", 302, location=f"/v1/{next(turns)}")
    with pytest.raises(ServerFault, match="more than"):
        await hostile_client.list_containers()
    assert len(hostile.requests) < 10


# Ids.


@pytest.mark.parametrize(
    "id",
    ["../../admin", "..", ".", "a/b", "a?b=c", "a#b", "a\r\nX: y", "a b", "%2e%2e", "\u202e", "/"],
)
async def test_an_id_stays_one_segment_of_the_path(hostile, hostile_client, id) -> None:
    hostile.answer = lambda _: hostile.json({"id": id, "path": "/mnt/data/x"})
    found = await hostile_client.retrieve_file(id, id)
    assert found.id == id
    (request,) = hostile.requests
    path, _, query = request.target.partition("?")
    assert query == ""
    assert path.count("/") == 5
    assert not {"", ".", ".."} & set(path.split("/")[1:])
    assert "x" not in request.headers


@pytest.mark.parametrize("id", ["", "\ud800", "x" * 5000, 7, None, [], {"$ne": 1}, True])
async def test_an_id_that_cannot_be_used_leaves_its_entry_out(hostile, hostile_client, id) -> None:
    entries = [{"id": "good", "path": "/mnt/data/x"}, {"id": id, "path": "/mnt/data/y"}]
    page = {"object": "list", "data": entries, "has_more": False, "last_id": id}
    hostile.answer = lambda _: hostile.json(page)
    assert [file.id for file in await all_files(hostile_client, "c")] == ["good"]


async def test_a_file_cannot_name_another_container(hostile, hostile_client) -> None:
    entry = {"id": "f", "path": "/mnt/data/x", "container_id": "another"}
    hostile.answer = lambda _: hostile.json({"object": "list", "data": [entry]})
    (file,) = (await hostile_client.list_files("c")).data
    assert file.container_id == "c"


# Lists.


def page_of(count: int, *, start: int = 0, path: str = "/mnt/data/x") -> dict[str, Any]:
    data = [{"id": f"f{start + n}", "path": path, "name": "n"} for n in range(count)]
    return {"object": "list", "data": data, "has_more": True, "last_id": data[-1]["id"]}


@pytest.mark.deep
async def test_a_list_that_never_ends_is_an_error(hostile, hostile_client) -> None:
    pages = itertools.count()
    hostile.answer = lambda _: hostile.json(page_of(10_000, start=10_000 * next(pages)))
    with pytest.raises(ServerFault, match="entries"):
        await all_containers(hostile_client)
    assert len(hostile.requests) < 200


async def test_a_list_of_enormous_paths_is_an_error(hostile, hostile_client) -> None:
    pages = itertools.count()
    path = "/mnt/data/" + "a/" * 100_000
    hostile.answer = lambda _: hostile.json(page_of(10, start=10 * next(pages), path=path))
    with pytest.raises(ServerFault, match="too large"):
        await all_files(hostile_client, "c")
    assert len(hostile.requests) < 50


@pytest.mark.parametrize("last_id", ["f0", "nowhere", None, "", 7, "x" * 100_000, "\ud800"])
async def test_a_list_that_repeats_itself_ends(hostile, hostile_client, last_id) -> None:
    page = page_of(3) | {"last_id": last_id}
    hostile.answer = lambda _: hostile.json(page)
    assert len(await all_files(hostile_client, "c")) == 3
    assert len(hostile.requests) < 20


# Sizes and times.


@pytest.mark.parametrize(
    "size", ["-1", "9223372036854775808", "1e400", "1.5", '"7"', "true", "NaN", "-Infinity", "[]"]
)
async def test_a_size_that_cannot_be_true_is_unknown(hostile, hostile_client, size) -> None:
    text = f'{{"id": "f", "path": "/mnt/data/x", "bytes": {size}, "created_at": {size}}}'
    hostile.answer = lambda _: hostile.plain(text.encode())
    file = await hostile_client.retrieve_file("c", "f")
    assert file.size is None
    assert file.created in (0, 1)


async def test_a_number_of_a_million_digits_is_an_error(hostile, hasty_client) -> None:
    body = b'{"id": "f", "path": "/x", "bytes": ' + b"9" * 1_000_000 + b"}"
    hostile.answer = lambda _: hostile.plain(body)
    with pytest.raises(ServerFault, match="not JSON"):
        await hasty_client.retrieve_file("c", "f")


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length: -1",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: x",
        "Bad Name: x",
        "No colon",
        ": empty",
        "X: a\x00b",
    ],
)
async def test_headers_that_make_no_sense_are_an_error(hostile, hasty_client, header) -> None:
    hostile.answer = lambda _: [f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n{{}}".encode("latin-1")]
    with pytest.raises(FileSystemError):
        await hasty_client.retrieve_container("c")


@pytest.mark.parametrize(
    "range_",
    [
        "bytes 5-9/99999999999999999999",
        "bytes 5-9223372036854775808/*",
        "bytes 5-9/9999999999999999999",
        "bytes 9-5/10",
        "bytes -5-9/10",
        "lines 5-9/10",
        "bytes 5-\u0669/10",
        "",
    ],
)
async def test_a_range_that_cannot_be_true_is_an_error(hostile, hasty_client, range_) -> None:
    head = f"HTTP/1.1 206 X\r\nContent-Range: {range_}\r\n\r\n12345"
    hostile.answer = lambda _: [head.encode()]
    with pytest.raises(ServerFault):
        await downloaded(hasty_client)


async def downloaded(client: Client) -> bytes:
    async with client.download_file("c", "f", offset=5) as body:
        return b"".join([piece async for piece in body])


@pytest.mark.parametrize(
    "when",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 99999999999999999999:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +999999999999",
        "Mon, 01 Jan 2020 00:00:00 -99999999",
        "nan",
        "1e999",
        "-1",
        "99999999999",
        "," * 100_000,
        "((((",
        '"',
    ],
)
async def test_a_retry_after_that_makes_no_sense_is_passed_over(hostile, when) -> None:
    hostile.answer = lambda _: hostile.plain(b"", 503, retry_after=when[:60_000])
    async with connect(Connection(base_url=hostile.base_url, timeout=0.3)) as client:
        with pytest.raises(FileSystemError, match=r"503|in time"):
            await client.list_containers()


# The key.


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500])
async def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message(
    hostile, hasty_client, key, status
) -> None:
    bodies = [
        json.dumps({"error": {"message": f"wrong: {key}", "code": key, "type": key}}),
        json.dumps({"error": {"message": "x" * 490 + key}}),
        json.dumps({"error": key}),
        key,
    ]
    for body, header in itertools.product(
        bodies, [f"X-Request-Id: {key}", f"Content-Encoding: {key}", f"Location: /{key}", key]
    ):
        head = f"HTTP/1.1 {status} {key}\r\nContent-Length: {len(body)}\r\nX-Should-Retry: false"
        text = f"{head}\r\n{header}\r\n\r\n{body}".encode()
        hostile.answer = lambda _, text=text: [text]
        with pytest.raises(FileSystemError) as caught:
            await hasty_client.retrieve_file("c", "f")
        assert "sk-canary-" not in str(caught.value)
        assert "sk-canary-" not in repr(caught.value)


MEMORY = """
import resource, sys, trio
from containerfs.api.client import connect
from containerfs.api.connection import Connection
from containerfs.errors import FileSystemError

async def main():
    async with connect(Connection(base_url=sys.argv[1], timeout=20)) as client:
        for call in (client.list_containers, lambda: client.retrieve_container("c")):
            try:
                await call()
            except FileSystemError:
                pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

trio.run(main)
"""


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'{"":0},', b'"x",'])
def test_what_json_becomes_in_memory_is_bounded(hostile, unit) -> None:
    body = b'{"data": [' + unit * (4_000_000 // len(unit)) + b"0]}"
    hostile.answer = lambda _: hostile.plain(body)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, hostile.base_url],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert "Traceback" not in done.stderr
    assert int(done.stdout) < 500_000  # KiB
