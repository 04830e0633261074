"""The content of a file is what its headers announced, or an error."""

from typing import Any

import pytest

from containerfs.errors import FileSystemError, NotFound, ServerFault


def chunked(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Transfer-Encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + chunk


async def read(client: Any, **range_: Any) -> bytes:
    async with client.download_file("c", "f", **range_) as body:
        return b"".join([piece async for piece in body])


async def test_a_range_is_asked_for_in_bytes(raw: Any, raw_client: Any) -> None:
    raw.answers = [
        raw.plain(b"345", 206, content_range="bytes 3-5/10"),
        raw.plain(b"789", 206, content_range="bytes 7-9/*"),
        raw.plain(b"012", 206, content_range="bytes 0-2/10"),
        raw.plain(b"0123456789"),
    ]
    assert await read(raw_client, offset=3, length=3) == b"345"
    assert await read(raw_client, offset=7) == b"789"
    assert await read(raw_client, length=3) == b"012"
    assert await read(raw_client) == b"0123456789"
    asked = [request.headers.get("range") for request in raw.requests]
    assert asked == ["bytes=3-5", "bytes=7-", "bytes=0-2", None]
    assert raw.requests[0].headers["accept"] == "application/binary"


@pytest.mark.parametrize(
    "headers",
    [
        {"content_range": "bytes 0-2/10"},
        {"content_range": "bytes 3-9/10"},
        {"content_range": "bytes 5-3/10"},
        {"content_range": "bytes */10"},
        {"content_range": "pages 3-5/10"},
        {"content_range": "bytes 3-5/" + "9" * 30},
        {"content_type": "multipart/byteranges; boundary=x"},
        {},
    ],
)
async def test_another_range_than_asked_for_is_a_server_fault(
    raw: Any, raw_client: Any, headers: dict[str, str]
) -> None:
    raw.answers = [raw.plain(b"345", 206, **headers)]
    with pytest.raises(ServerFault):
        await read(raw_client, offset=3, length=3)


@pytest.mark.parametrize("body", [b"34", b"3456"])
async def test_a_range_of_another_length_than_announced_is_a_server_fault(
    raw: Any, raw_client: Any, body: bytes
) -> None:
    raw.answers = [chunked(body, "206 Partial Content", content_range="bytes 3-5/10")]
    with pytest.raises(ServerFault, match="of 3 bytes"):
        await read(raw_client, offset=3, length=3)


@pytest.mark.parametrize("headers", [{}, {"content_range": "bytes */20"}])
async def test_a_refused_range_that_exists_is_a_server_fault(
    raw: Any, raw_client: Any, headers: dict[str, str]
) -> None:
    raw.answers = [raw.plain(b"", 416, **headers)]
    with pytest.raises(ServerFault):
        await read(raw_client, offset=10)


async def test_the_kind_of_content_is_told(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.plain(b"{}", content_type="application/json", x_request_id="req_5")]
    async with raw_client.download_file("c", "f") as body:
        assert (body.content_type, body.request_id) == ("application/json", "req_5")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (206, ServerFault), (302, ServerFault)]
)
async def test_other_answers_are_failures(
    raw: Any, raw_client: Any, status: int, kind: type[FileSystemError]
) -> None:
    raw.default = raw.plain(b"gone", status, x_should_retry="false")
    with pytest.raises(kind):
        await read(raw_client)


async def test_a_download_that_is_left_frees_its_place(raw: Any, raw_client: Any) -> None:
    raw.default = raw.plain(b"x" * 3_000_000)
    for _ in range(70):
        async with raw_client.download_file("c", "f") as body:
            await anext(body)
