"""The short way to a small content: plain answers only, and nothing is lost on the way back."""

import gzip
from typing import Any

import pytest
import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.api.content import ContentRequest
from containerfs.errors import FileSystemError, NotFound, ServerFault

MOST = 100


async def fetched(client: Client, *, most: int = MOST) -> bytes:
    """What there is in the end, whichever way it came."""
    answer = await client.fetch_file("c", "f", most=most)
    if isinstance(answer, bytes):
        return answer
    async with answer as body:
        return b"".join([piece async for piece in body])


async def test_a_plain_answer_is_the_content(raw: Any, raw_client: Client) -> None:
    raw.answers = [raw.plain(b"content"), raw.plain(b"x" * MOST), raw.plain(b"")]
    assert await raw_client.fetch_file("c", "f", most=MOST) == b"content"
    assert await raw_client.fetch_file("c", "f", most=MOST) == b"x" * MOST
    assert await raw_client.fetch_file("c", "f", most=MOST) == b""
    assert {request.connection for request in raw.requests} == {1}


async def test_it_is_asked_for_as_any_content_is(raw: Any, adorned: Connection) -> None:
    async with connect(adorned) as client:
        raw.default = raw.plain(b"content")
        await fetched(client)
        async with client.download_file("c", "f") as body:
            assert [piece async for piece in body] == [b"content"]
    short, usual = raw.requests
    assert short == usual
    assert short.line == "GET /v1/containers/c/files/f/content?v=2&q=1 HTTP/1.1"
    assert short.headers["authorization"] == "Bearer sk-key"
    assert short.headers["x-own"] == "own"


async def test_chunks_are_put_together(raw: Any, raw_client: Client) -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncon\r\n4\r\ntent\r\n0\r\n\r\n"
    )
    raw.answers = [chunked, raw.plain(b"next")]
    assert await raw_client.fetch_file("c", "f", most=MOST) == b"content"
    assert await raw_client.fetch_file("c", "f", most=MOST) == b"next"
    assert len(raw.requests) == 2


async def test_more_than_was_wanted_is_cut_and_its_connection_ended(
    raw: Any, raw_client: Client
) -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"100\r\n" + b"x" * 256 + b"\r\n")

    raw.answers = [endless, raw.plain(b"next")]
    answer = await raw_client.fetch_file("c", "f", most=MOST)
    assert isinstance(answer, bytes)
    assert MOST < len(answer) < 1 << 20
    assert await raw_client.fetch_file("c", "f", most=MOST) == b"next"
    assert [request.connection for request in raw.requests] == [1, 2]


@pytest.mark.parametrize("status", [404, 400, 401])
async def test_a_failure_is_told_after_one_request(
    raw: Any, raw_client: Client, status: int
) -> None:
    raw.answers = [raw.json({"error": {"message": "no such thing"}}, status)]
    with pytest.raises(FileSystemError, match="no such thing") as caught:
        await fetched(raw_client)
    assert isinstance(caught.value, NotFound) == (status == 404)
    assert len(raw.requests) == 1


async def test_a_failure_that_may_pass_is_tried_again(raw: Any, raw_client: Client) -> None:
    raw.answers = [raw.json({}, 500, retry_after_ms="1"), raw.plain(b"content")]
    assert await fetched(raw_client) == b"content"
    assert len(raw.requests) == 2


async def test_nothing_is_asked_for_while_the_server_wants_silence(
    raw: Any, raw_client: Client
) -> None:
    raw.answers = [raw.json({}, 429, retry_after_ms="200")]
    raw.default = raw.plain(b"content")
    begun = trio.current_time()
    took: list[float] = []

    async def one() -> None:
        assert await fetched(raw_client) == b"content"
        took.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        while not raw.requests:
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.start_soon(one)
    assert len(raw.requests) == 3
    assert min(took) >= 0.2


async def test_a_redirect_is_followed_within_the_server_only(raw: Any, raw_client: Client) -> None:
    raw.answers = [raw.plain(b"", 307, Location="/there?x=1"), raw.plain(b"content")]
    assert await fetched(raw_client) == b"content"
    assert [request.line.split()[1] for request in raw.requests][1:] == ["/there?x=1"]
    raw.answers = [raw.plain(b"", 302, Location="http://elsewhere.invalid/")]
    with pytest.raises(ServerFault, match="redirect elsewhere"):
        await fetched(raw_client)
    assert len(raw.requests) == 3


async def test_an_encoded_answer_is_refused(raw: Any, raw_client: Client) -> None:
    raw.default = raw.plain(gzip.compress(b"content"), Content_Encoding="gzip")
    with pytest.raises(ServerFault, match="encoded"):
        await fetched(raw_client)


async def test_an_answer_that_breaks_off_is_asked_for_anew(raw: Any, raw_client: Client) -> None:
    raw.answers = [raw.plain(b"content")[:-3] + raw.CLOSE, raw.plain(b"content")]
    assert await fetched(raw_client) == b"content"
    assert len(raw.requests) == 2


async def test_who_answers_nothing_is_given_up_in_time(raw: Any) -> None:
    async def never(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    raw.answers = [never] * 3
    connection = Connection(base_url=raw.base_url, timeout=0.2, transfer_timeout=0.2)
    async with connect(connection) as client:
        with trio.fail_after(60), pytest.raises(FileSystemError):
            await fetched(client)
        raw.answers = []
        raw.default = raw.plain(b"content")
        assert await fetched(client) == b"content"


async def test_what_comes_while_nothing_was_asked_is_no_content(
    raw: Any, raw_client: Client
) -> None:
    async def twice(stream: trio.SocketStream) -> None:
        await stream.send_all(raw.plain(b"first"))
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(raw.plain(b"planted"))

    raw.answers = [twice, raw.plain(b"second")]
    assert await fetched(raw_client) == b"first"
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await fetched(raw_client) == b"second"


@pytest.mark.parametrize("answer", ["plain", "failing", "broken"])
async def test_its_place_is_given_back(raw: Any, answer: str) -> None:
    plain = raw.plain(b"content")
    answers = {
        "plain": [plain],
        "failing": [raw.json({}, 404)],
        "broken": [plain[:-3] + raw.CLOSE, plain[:-3] + raw.CLOSE],
    }
    raw.default = plain
    connection = Connection(base_url=raw.base_url, max_connections=1, timeout=5)
    async with connect(connection) as client:
        with trio.fail_after(60):
            for _ in range(3):
                raw.answers = list(answers[answer])
                try:
                    await fetched(client)
                except FileSystemError:
                    assert answer != "plain"
            raw.answers = []
            assert await fetched(client) == b"content"
        assert not client.is_busy


async def test_the_request_that_is_handed_over_is_the_first_answer(
    raw: Any, raw_client: Client
) -> None:
    raw.answers = [raw.plain(b"content", 203)]
    answer = await raw_client.fetch_file("c", "f", most=MOST)
    assert isinstance(answer, ContentRequest)
    with pytest.raises(ServerFault):
        async with answer:
            pass
    assert len(raw.requests) == 1


async def test_who_waited_for_a_place_sends_nothing_into_a_pause_either(raw: Any) -> None:
    released = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await released.wait()
        await stream.send_all(raw.plain(b"content"))

    raw.answers = [slow] * 5 + [raw.json({}, 429, retry_after_ms="300")]
    raw.default = raw.plain(b"content")
    connection = Connection(base_url=raw.base_url, max_connections=8, timeout=5)
    async with connect(connection) as client, trio.open_nursery() as nursery:
        for _ in range(7):  # six places, and one that waits for its turn
            nursery.start_soon(fetched, client)
        while len(raw.requests) < 6:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.testing.wait_all_tasks_blocked(0.02)
        released.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(raw.requests) == 6
    assert len(raw.requests) == 8
