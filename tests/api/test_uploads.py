"""The short way for a small upload: judged as any upload is, and never sent twice for it."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.api.types import RemoteFile
from containerfs.errors import FileSystemError, Uncertain, Unreachable

SHORT, USUAL = 4096, (64 << 10) + 1  # bytes; the second is too long for the short way
FILE = {"id": "f", "path": "/mnt/data/x", "bytes": 1, "created_at": 1, "source": "user"}


async def uploaded(client: Client, directory: Path, size: int) -> RemoteFile:
    path = directory / f"{size}"
    path.write_bytes(b"x" * size)
    with path.open("rb") as file:
        return await client.upload_file("c", name="né/x.txt", fd=file.fileno(), size=size)


async def outcome(client: Client, directory: Path, size: int) -> Any:
    """What comes of it: the file, or the kind and the words of the failure."""
    try:
        return await uploaded(client, directory, size)
    except FileSystemError as exc:
        return type(exc), str(exc)


def answers(raw: Any) -> dict[str, list[bytes]]:
    """What a server may say, one after the other, each time that it is asked."""
    plain = raw.json(FILE)
    head, _, body = plain.partition(b"\r\n\r\n")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return {
        "plain": [plain],
        "created": [raw.json(FILE, 201)],
        "chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks],
        "continued": [b"HTTP/1.1 100 Continue\r\n\r\n" + plain],
        "refused": [raw.json({"error": {"message": "no such thing"}}, 404)],
        "broken": [raw.json({}, 500)],
        "error as success": [raw.json({**FILE, "error": {"message": "expired"}})],
        "nothing of a file": [raw.json({"path": "/mnt/data/x"})],
        "no JSON": [raw.plain(b"<html>")],
        "no HTTP": [b"<html>\r\n\r\n" + raw.CLOSE],
        "encoded": [raw.plain(gzip.compress(body), Content_Encoding="gzip")],
        "too long": [raw.json({**FILE, "more": "x" * (5 << 20)})],
        "cut in its body": [plain[:-3] + raw.CLOSE],
        "cut in its head": [head[:-3] + raw.CLOSE],
        "lost": [raw.CLOSE],
        "elsewhere": [raw.plain(b"", 307, Location="/there")],
        "later": [raw.json({}, 429, retry_after_ms="1"), plain],
        "later again": [raw.json({}, 503, retry_after_ms="1")] * 2 + [plain],
        "two lengths": [plain.replace(b"Content-Length:", b"Content-Length: 7\r\nContent-Length:")],
    }


async def test_an_answer_means_the_same_as_to_any_upload(raw: Any, tmp_path: Path) -> None:
    connection = Connection(base_url=raw.base_url, timeout=5, transfer_timeout=5)
    for kind, told in answers(raw).items():
        found, asked = [], []
        for size in (SHORT, USUAL):
            async with connect(connection) as client:
                raw.requests.clear()
                raw.answers = list(told)
                found.append(await outcome(client, tmp_path, size))
                asked.append(len(raw.requests))
                assert not client.is_busy, kind
        assert found[0] == found[1], kind
        assert asked[0] == asked[1] == len(told), kind


async def test_it_is_sent_as_any_upload_is(raw: Any, adorned: Connection, tmp_path: Path) -> None:
    raw.default = raw.json(FILE)
    async with connect(adorned) as client:
        for size in (SHORT, USUAL, 0):
            await uploaded(client, tmp_path, size)
    sent = []
    for request, size in zip(raw.requests, (SHORT, USUAL, 0), strict=True):
        boundary = request.headers.pop("content-type").removeprefix(
            "multipart/form-data; boundary="
        )
        assert int(request.headers.pop("content-length")) == len(request.body)
        assert request.body.count(b"x" * size) >= 1
        frames = request.body.replace(b"x" * size, b"") if size else request.body
        sent.append((request.line, request.headers, frames.replace(boundary.encode(), b"--")))
    assert sent[0] == sent[1] == sent[2]
    assert sent[0][0] == "POST /v1/containers/c/files?v=2&q=1 HTTP/1.1"
    assert sent[0][1]["authorization"] == "Bearer sk-key"
    assert sent[0][1]["x-own"] == "own"


async def test_what_a_kept_connection_has_lost_is_not_sent_again(
    raw: Any, raw_client: Client, tmp_path: Path
) -> None:
    raw.answers = [raw.json(FILE), raw.CLOSE]
    raw.default = raw.json(FILE)
    await uploaded(raw_client, tmp_path, SHORT)
    with pytest.raises(Uncertain):
        await uploaded(raw_client, tmp_path, SHORT)
    assert [request.connection for request in raw.requests] == [1, 1]
    await uploaded(raw_client, tmp_path, SHORT)
    assert [request.connection for request in raw.requests] == [1, 1, 2]


async def test_where_nobody_listens_it_was_not_sent(unused_port: int, tmp_path: Path) -> None:
    async with connect(Connection(base_url=f"http://127.0.0.1:{unused_port}/v1")) as client:
        with pytest.raises(Unreachable):
            await uploaded(client, tmp_path, SHORT)
        assert not client.is_busy


async def test_a_server_that_never_answers_is_given_up(raw: Any, tmp_path: Path) -> None:
    async def never(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    raw.answers = [never]
    connection = Connection(base_url=raw.base_url, timeout=0.1, transfer_timeout=0.1)
    async with connect(connection) as client:
        with trio.fail_after(60), pytest.raises(Uncertain):
            await uploaded(client, tmp_path, SHORT)
        assert not client.is_busy
    assert len(raw.requests) == 1


async def test_what_was_sent_is_told(raw: Any, raw_client: Client, tmp_path: Path) -> None:
    raw.default = raw.json(FILE)
    path, told = tmp_path / "source", []
    path.write_bytes(b"x" * SHORT)
    with path.open("rb") as file:
        await raw_client.upload_file(
            "c", name="x", fd=file.fileno(), size=SHORT, progress=told.append
        )
    assert told[-1] == SHORT


async def test_nothing_is_sent_while_the_server_wants_silence(
    raw: Any, raw_client: Client, tmp_path: Path
) -> None:
    raw.answers = [raw.json({}, 429, retry_after_ms="200")]
    raw.default = raw.json(FILE)
    begun = trio.current_time()
    took: list[float] = []

    async def one(directory: Path) -> None:
        directory.mkdir()
        await uploaded(raw_client, directory, SHORT)
        took.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, tmp_path / "a")
        while not raw.requests:
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.start_soon(one, tmp_path / "b")
    assert len(raw.requests) == 3
    assert min(took) >= 0.2


@pytest.mark.parametrize("size", [SHORT, USUAL])
async def test_what_an_answer_leaves_out_is_asked_for(
    raw: Any, raw_client: Client, tmp_path: Path, size: int
) -> None:
    raw.answers = [raw.json({"id": "f", "path": None}), raw.json(FILE)]
    file = await uploaded(raw_client, tmp_path, size)
    assert (file.id, file.path, file.size) == ("f", "/mnt/data/x", 1)
    assert [request.line.split()[0] for request in raw.requests] == ["POST", "GET"]


async def test_an_upload_with_an_id_is_certain_though_nobody_tells_its_path(
    raw: Any, raw_client: Client, tmp_path: Path
) -> None:
    raw.answers = [raw.json({"id": "f", "bytes": SHORT}), raw.json({}, 405)]
    file = await uploaded(raw_client, tmp_path, SHORT)
    assert (file.id, file.path, file.size) == ("f", "/mnt/data/né/x.txt", SHORT)


async def test_an_id_that_leads_nowhere_is_no_upload(
    raw: Any, raw_client: Client, tmp_path: Path
) -> None:
    raw.answers = [raw.json({"id": "job_1"}), raw.json({}, 404)]
    with pytest.raises(Uncertain):
        await uploaded(raw_client, tmp_path, SHORT)
