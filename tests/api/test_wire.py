"""What goes over the connection, and what comes back over it from a server that says anything."""

import gzip
import logging
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from containerfs.api.client import Client, connect
from containerfs.api.connecting import AWAY
from containerfs.api.connection import Connection
from containerfs.api.transport import AHEAD
from containerfs.errors import (
    AccessDenied,
    Expired,
    FileSystemError,
    Invalid,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Uncertain,
    Unreachable,
    Unsupported,
)

KEY = "sk-very-secret-0123456789"
RAW_413 = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
FILE = {"id": "f", "path": "/mnt/data/x", "bytes": 3}


def error(message: str, **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, **members}}


# Requests.


async def test_every_request_says_who_asks(raw: Any) -> None:
    connection = Connection(
        base_url=raw.base_url + "/",
        api_key=KEY,
        organization="org-1",
        project="proj-1",
        headers={"X-Extra": "yes"},
        query={"api-version": "2026"},
    )
    async with connect(connection) as client:
        await client.list_containers(name="a b&c")
    (request,) = raw.requests
    assert request.line == (
        "GET /v1/containers?api-version=2026&limit=100&order=desc&name=a+b%26c HTTP/1.1"
    )
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["openai-organization"] == "org-1"
    assert request.headers["openai-project"] == "proj-1"
    assert request.headers["x-extra"] == "yes"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{raw.port}"


async def test_the_key_can_go_into_another_header(raw: Any) -> None:
    async with connect(
        Connection(base_url=raw.base_url, api_key=KEY, auth_header="api-key")
    ) as client:
        await client.list_containers()
    assert raw.requests[0].headers["api-key"] == KEY
    assert "authorization" not in raw.requests[0].headers


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a?b#c", "a%3Fb%23c"),
        ("x\r\nHost: evil", "x%0D%0AHost%3A%20evil"),
        ("%2F", "%252F"),
        ("é\ud800", "%C3%A9%ED%A0%80"),
        ("i" * 237, "i" * 237),
    ],
)
async def test_an_id_is_one_segment_of_the_path_whatever_it_holds(
    raw: Any, raw_client: Any, name: str, escaped: str
) -> None:
    await raw_client.list_files(name)
    assert raw.requests[0].line.startswith(f"GET /v1/containers/{escaped}/files?")


async def test_an_empty_id_names_nothing_and_costs_no_request(raw: Any, raw_client: Any) -> None:
    with pytest.raises(NotFound):
        await raw_client.delete_container("")
    assert raw.requests == []


# Answers.


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Bad thing.", Invalid),
        (400, "Container is expired.", Expired),
        (401, "Incorrect API key", AccessDenied),
        (403, "No.", AccessDenied),
        (404, "Container with id 'x' not found.", NotFound),
        (405, "Method not allowed", Unsupported),
        (413, "Too large", TooLarge),
        (415, "What?", Invalid),
        (422, "You uploaded an invalid file", Invalid),
        (418, "Teapot", Invalid),
    ],
)
async def test_a_status_is_a_class_of_failure_with_its_message_and_request_id(
    raw: Any, raw_client: Any, status: int, message: str, kind: type[FileSystemError]
) -> None:
    raw.answers = [raw.json(error(message), status, x_request_id="req_77")]
    with pytest.raises(FileSystemError, match=r"req_77") as caught:
        await raw_client.retrieve_container("x")
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert caught.value.request_id == "req_77"
    assert len(raw.requests) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (error("Container is expired.", type="invalid_request_error"), Expired),
        (error("File not found"), NotFound),
        (error("No", code="403"), AccessDenied),
        (error("No", code=404), NotFound),
        (error("Bad", type="invalid_request_error"), Invalid),
        (error("Who?", type="authentication_error"), AccessDenied),
    ],
)
async def test_an_error_with_status_200_is_that_error(
    raw: Any, raw_client: Any, body: Any, kind: type[FileSystemError]
) -> None:
    raw.answers = [raw.json(body)]
    with pytest.raises(FileSystemError) as caught:
        await raw_client.retrieve_file("c", "f")
    assert type(caught.value) is kind


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b"null", b'"x"', b"", b"{"])
async def test_an_answer_that_makes_no_sense_is_a_server_fault(
    raw: Any, raw_client: Any, body: bytes
) -> None:
    raw.default = raw.plain(body)
    with pytest.raises(ServerFault):
        await raw_client.list_containers()


async def test_an_error_that_is_not_json_keeps_its_status(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.plain(b"<h1>Forbidden</h1>", 403)]
    with pytest.raises(AccessDenied, match="403"):
        await raw_client.list_containers()


async def test_an_answer_without_end_is_not_read_to_its_end(raw: Any, raw_client: Any) -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b" " * 1_000_000)

    raw.answers = [endless]
    with pytest.raises(ServerFault, match="longer than"):
        await raw_client.list_containers()


@pytest.mark.parametrize("status", [200, 500])
async def test_a_compressed_answer_is_not_unpacked(raw: Any, raw_client: Any, status: int) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    raw.default = raw.plain(bomb, status, content_encoding="gzip", x_should_retry="false")
    with pytest.raises(ServerFault):
        await raw_client.list_containers()
    with pytest.raises(ServerFault):
        async with raw_client.download_file("c", "f"):
            pass


async def test_control_sequences_in_an_error_reach_nobody(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.json(error("a\x1b[31mb\nc\u202ed"), 400)]
    with pytest.raises(Invalid) as caught:
        await raw_client.retrieve_container("x")
    assert str(caught.value).isprintable()


# The key.


async def test_the_key_is_never_sent_to_another_host(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.plain(b"", 302, Location="http://127.0.0.2:1/v1/containers")]
    with pytest.raises(ServerFault, match="redirect elsewhere"):
        await raw_client.list_containers()
    raw.answers = [raw.plain(b"", 302, Location="file:///etc/passwd")]
    with pytest.raises(ServerFault, match="redirect elsewhere"):
        await raw_client.list_containers()
    assert len(raw.requests) == 2


async def test_a_redirect_within_the_server_is_followed_for_get(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.plain(b"", 307, Location="/elsewhere?x=1"), raw.json({"id": "c"})]
    assert (await raw_client.retrieve_container("c")).id == "c"
    assert raw.requests[1].line == "GET /elsewhere?x=1 HTTP/1.1"


async def test_redirects_without_end_are_a_server_fault(raw: Any, raw_client: Any) -> None:
    raw.default = raw.plain(b"", 302, Location="/v1/again")
    with pytest.raises(ServerFault, match="more than 5 redirects"):
        await raw_client.retrieve_container("c")
    assert len(raw.requests) == 6


async def test_a_redirected_post_is_a_server_fault_and_not_repeated(
    raw: Any, raw_client: Any
) -> None:
    raw.default = raw.plain(b"", 307, Location="/v1/again")
    with pytest.raises(ServerFault) as caught:
        await raw_client.create_container(name="x")
    assert not isinstance(caught.value, Uncertain)
    assert len(raw.requests) == 1


async def test_the_key_is_in_no_log_repr_or_error(
    raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = Connection(base_url=raw.base_url, api_key=KEY, headers={"X-Token": "tok-secret"})
    raw.answers = [
        raw.json({"object": "list", "data": []}),
        raw.json(error(f"Incorrect API key provided: {KEY}"), 401),
        raw.json(error(f"{KEY}"), 503, retry_after_ms="1"),
        raw.plain(b"", 302, Location=f"http://other/{KEY}"),
    ]
    said = [repr(connection)]
    async with connect(connection) as client:
        await client.list_containers()
        for _ in range(2):
            with pytest.raises(FileSystemError) as caught:
                await client.list_containers()
            said.append(f"{caught.value!r} {caught.value.__cause__!r}")
    said.append(caplog.text)
    assert len(raw.requests) == 4
    assert not any(KEY in text or "tok-secret" in text for text in said)


# Connections.


async def test_a_connection_is_used_again(raw: Any, raw_client: Any) -> None:
    for _ in range(3):
        await raw_client.list_containers()
    assert [request.connection for request in raw.requests] == [1, 1, 1]


async def test_the_connection_used_last_is_used_first(raw: Any, raw_client: Any) -> None:
    release = [trio.Event(), trio.Event()]
    done = [trio.Event(), trio.Event()]

    def held(number: int) -> Any:
        async def answer(stream: trio.SocketStream) -> None:
            await release[number].wait()
            await stream.send_all(raw.json({"id": "c"}))

        return answer

    async def ask(number: int) -> None:
        await raw_client.retrieve_container("c")
        done[number].set()

    raw.answers = [held(0), held(1)]
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(ask, number)
            while len(raw.requests) <= number:
                await trio.lowlevel.checkpoint()
        for number in (0, 1):
            release[number].set()
            await done[number].wait()
    await raw_client.list_containers()
    await raw_client.list_containers()
    assert [request.connection for request in raw.requests] == [1, 2, 2, 2]


async def test_a_connection_that_the_server_closed_while_idle_is_replaced(
    raw: Any, raw_client: Any
) -> None:
    raw.answers = [raw.default + raw.CLOSE]
    await raw_client.list_containers()
    await trio.testing.wait_all_tasks_blocked()
    raw.answers = [raw.json({"id": "c"})]
    assert (await raw_client.create_container(name="x")).id == "c"
    assert [request.connection for request in raw.requests] == [1, 2]


async def test_connections_opened_ahead_carry_the_first_requests(raw: Any, raw_client: Any) -> None:
    await raw_client.open_ahead()
    await trio.testing.wait_all_tasks_blocked()
    assert raw.connections == AHEAD
    async with trio.open_nursery() as nursery:
        for _ in range(AHEAD):
            nursery.start_soon(raw_client.list_containers)
    assert {request.connection for request in raw.requests} == {*range(1, AHEAD + 1)}
    assert raw.connections == AHEAD


async def test_no_more_connections_are_opened_ahead_than_there_may_be(raw: Any) -> None:
    async with connect(Connection(base_url=raw.base_url, max_connections=1)) as client:
        await client.open_ahead()
        await trio.testing.wait_all_tasks_blocked()
    assert raw.connections == 1


async def test_a_request_waits_for_the_connection_that_is_being_opened_ahead(
    raw: Any, raw_client: Any
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(raw_client.open_ahead)
        await raw_client.list_containers()
    assert len(raw.requests) == 1
    await trio.testing.wait_all_tasks_blocked()
    assert raw.connections == AHEAD


async def test_where_no_connection_can_be_opened_ahead_the_first_call_tells() -> None:
    async with connect(Connection(uds="/nonexistent/socket", api_key=KEY, timeout=0.1)) as client:
        await client.open_ahead()
        with pytest.raises(Unreachable):
            await client.list_containers()


class Resolver(trio.abc.HostnameResolver):
    """Says that every host is at one address, or at some more."""

    def __init__(self, *more: str) -> None:
        self.address = "127.0.0.1"
        self._more = more
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *options: int) -> Any:
        self.asked += 1
        where = (self.address, *self._more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (each, port)) for each in where]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize("more", [(), ("127.0.0.2", "127.0.0.3")])
async def test_who_is_not_there_and_why_is_told_once(
    unused_port: int, more: tuple[str, ...]
) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(*more))
    url = f"http://some.test:{unused_port}/v1"
    async with connect(Connection(base_url=url, timeout=0.1)) as client:
        with pytest.raises(Unreachable) as caught:
            await client.list_containers()
    why = f"some.test:{unused_port}: Connection refused"
    assert str(caught.value) == f"GET /containers: no connection: {why}"


class Nowhere(Resolver):
    """Knows no host."""

    async def getaddrinfo(self, host: Any, port: Any, *options: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_host_that_nobody_knows_is_named() -> None:
    trio.socket.set_custom_hostname_resolver(Nowhere())
    async with connect(Connection(base_url="http://some.test/v1", timeout=0.1)) as client:
        with pytest.raises(Unreachable, match=r"some\.test:80: Name or service not known$"):
            await client.list_containers()


async def test_connections_opened_at_once_look_the_host_up_once(raw: Any) -> None:
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    async with connect(Connection(base_url=f"http://some.test:{raw.port}/v1")) as client:
        await client.list_containers()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.list_containers)
    assert raw.connections == 20
    assert resolver.asked == 1


async def test_a_server_that_moves_is_found_where_it_is_then(raw: Any) -> None:
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with connect(Connection(base_url=f"http://some.test:{port}/v1")) as client:
        async with trio.open_nursery() as here:
            here.start_soon(trio.serve_listeners, raw.serve, listeners)
            await client.list_containers()
            here.cancel_scope.cancel()
        resolver.address = "127.0.0.2"
        async with trio.open_nursery() as there:
            await there.start(partial(trio.serve_tcp, raw.serve, port, host=resolver.address))
            await client.list_containers()
            there.cancel_scope.cancel()
    assert len(raw.requests) == 2


async def test_a_get_that_meets_a_closing_connection_is_sent_again_at_once(
    raw: Any, raw_client: Any
) -> None:
    raw.answers = [raw.default, raw.CLOSE, raw.json({"id": "c"})]
    await raw_client.list_containers()
    assert (await raw_client.retrieve_container("c")).id == "c"
    assert [request.connection for request in raw.requests] == [1, 1, 2]


async def test_a_post_that_meets_a_closing_connection_is_uncertain(
    raw: Any, raw_client: Any
) -> None:
    raw.answers = [raw.default, raw.CLOSE]
    await raw_client.list_containers()
    with pytest.raises(Uncertain):
        await raw_client.create_container(name="x")
    assert len(raw.requests) == 2


async def test_a_delete_sent_again_and_not_found_has_been_done(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.default, raw.CLOSE, raw.json(error("not found"), 404)]
    await raw_client.list_containers()
    await raw_client.delete_file("c", "f")
    assert len(raw.requests) == 3


async def test_a_delete_of_what_is_not_there_is_not_found(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.json(error("not found"), 404)]
    with pytest.raises(NotFound):
        await raw_client.delete_file("c", "f")


async def test_a_half_read_answer_is_not_taken_for_the_next(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.plain(b"x" * 5_000_000), raw.json({"id": "c"})]
    async with raw_client.download_file("c", "f") as body:
        async for _ in body:
            break
    assert (await raw_client.retrieve_container("c")).id == "c"
    assert [request.connection for request in raw.requests] == [1, 2]


async def test_no_connection_is_unreachable_soon(unused_port: int) -> None:
    async with connect(Connection(base_url=f"http://127.0.0.1:{unused_port}/v1")) as client:
        with pytest.raises(Unreachable, match="refused"):
            await client.create_container(name="x")


@pytest.fixture
async def gone(raw: Any, autojump_clock: trio.testing.MockClock) -> AsyncIterator[Client]:
    """A client of a server at `raw.port` that has answered, and does not listen any more."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    raw.port = listeners[0].socket.getsockname()[1]
    raw.answers = [raw.json({"id": "c"}) + raw.CLOSE]
    async with connect(Connection(base_url=raw.base_url)) as client:
        async with trio.open_nursery() as serving:
            serving.start_soon(trio.serve_listeners, raw.serve, listeners)
            await client.retrieve_container("c")
            serving.cancel_scope.cancel()
        yield client


async def test_a_server_that_has_just_gone_is_waited_for(
    raw: Any, gone: Client, nursery: trio.Nursery
) -> None:
    async def come_back() -> None:
        await trio.sleep(AWAY)
        await trio.serve_tcp(raw.serve, raw.port, host="127.0.0.1")

    nursery.start_soon(come_back)
    raw.answers = [raw.json({"id": "new"})]
    assert (await gone.create_container(name="x")).id == "new"
    assert [request.line.split()[0] for request in raw.requests] == ["GET", "POST"]


async def test_a_server_that_stays_away_is_soon_given_up(gone: Client) -> None:
    took = []
    for _ in range(3):
        begun = trio.current_time()
        with pytest.raises(Unreachable, match="refused"):
            await gone.create_container(name="x")
        took.append(trio.current_time() - begun)
    assert took[0] > AWAY
    assert max(took[1:]) < 2


async def test_what_is_no_http_is_a_server_fault(raw: Any) -> None:
    raw.default = b"220 smtp.example ready\r\n\r\n" + raw.CLOSE
    async with connect(Connection(base_url=raw.base_url, timeout=2)) as client:
        with pytest.raises(ServerFault):
            await client.list_containers()


# Rate limits and time limits.


async def test_one_429_halts_everyone(raw: Any) -> None:
    connection = Connection(base_url=raw.base_url, timeout=5)
    raw.answers = [raw.json(error("slow down"), 429, retry_after="100", x_request_id="req_9")]
    async with connect(connection) as client:
        with pytest.raises(RateLimited, match="req_9"):
            await client.list_containers()
        for operation in (client.list_containers(), client.retrieve_container("c")):
            with pytest.raises(RateLimited):
                await operation
        with pytest.raises(RateLimited):
            async with client.download_file("c", "f"):
                pass
    assert len(raw.requests) == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [(429, {}), (429, {"retry_after_ms": "1"}), (503, {"retry_after": "0"})],
)
async def test_a_post_is_repeated_when_it_was_certainly_not_done(
    raw: Any, raw_client: Any, status: int, headers: dict[str, str]
) -> None:
    raw.answers = [raw.json(error("no"), status, **headers), raw.json({"id": "c"})]
    assert (await raw_client.create_container(name="x")).id == "c"
    assert len(raw.requests) == 2


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_a_post_that_may_have_been_done_is_uncertain_and_not_repeated(
    raw: Any, raw_client: Any, status: int
) -> None:
    raw.answers = [raw.json(error("no"), status, x_should_retry="true")]
    with pytest.raises(Uncertain):
        await raw_client.create_container(name="x")
    assert len(raw.requests) == 1


async def test_a_server_that_is_full_is_certain(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.json(error("full"), 507)]
    with pytest.raises(ServerFault) as caught:
        await raw_client.attach_file("c", file_id="file-1")
    assert not isinstance(caught.value, Uncertain)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503])
async def test_a_get_is_repeated(raw: Any, raw_client: Any, status: int) -> None:
    raw.answers = [raw.json(error("no"), status, retry_after_ms="1"), raw.json({"id": "c"})]
    assert (await raw_client.retrieve_container("c")).id == "c"


async def test_x_should_retry_false_ends_it(raw: Any, raw_client: Any) -> None:
    raw.answers = [raw.json(error("no"), 503, x_should_retry="false")]
    with pytest.raises(ServerFault):
        await raw_client.retrieve_container("c")
    assert len(raw.requests) == 1


@pytest.mark.parametrize("body", [b"", b'{"id": "c"', b"not json"])
async def test_a_post_whose_answer_is_unreadable_is_uncertain(
    raw: Any, raw_client: Any, body: bytes
) -> None:
    raw.answers = [raw.plain(body)]
    with pytest.raises(Uncertain):
        await raw_client.create_container(name="x")
    assert len(raw.requests) == 1


# What one connection brings.


async def test_what_follows_an_answer_is_never_the_next_one(raw: Any, raw_client: Any) -> None:
    planted = raw.json({"id": "planted"})
    raw.answers = [raw.json({"id": "first"}) + planted, raw.json({"id": "second"})]
    assert (await raw_client.retrieve_container("c")).id == "first"
    assert (await raw_client.retrieve_container("c")).id == "second"
    assert [request.connection for request in raw.requests] == [1, 2]


async def test_what_comes_while_nothing_was_asked_is_no_answer(raw: Any, raw_client: Any) -> None:
    async def twice(stream: trio.SocketStream) -> None:
        await stream.send_all(raw.json({"id": "first"}))
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(raw.json({"id": "planted"}))

    raw.answers = [twice, raw.json({"id": "second"})]
    assert (await raw_client.retrieve_container("c")).id == "first"
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert (await raw_client.retrieve_container("c")).id == "second"
    assert [request.connection for request in raw.requests] == [1, 2]


async def test_a_half_read_answer_ends_its_connection(raw: Any, raw_client: Any) -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.send_all(raw.plain(b"x" * 1000)[:-500])
        await trio.sleep_forever()

    raw.answers = [half, raw.json({"id": "c"})]
    async with raw_client.download_file("c", "f") as body:
        await anext(body)
    assert (await raw_client.create_container(name="x")).id == "c"
    assert [request.connection for request in raw.requests] == [1, 2]


async def test_a_cancelled_request_ends_its_connection(raw: Any, raw_client: Any) -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Le")
        await trio.sleep_forever()

    raw.answers = [half]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw_client.list_containers)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    await raw_client.list_containers()
    assert [request.connection for request in raw.requests] == [1, 2]


@pytest.mark.parametrize(
    "head", [b"Content-Length: 50\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n"]
)
async def test_an_answer_that_is_cut_is_none_even_if_it_makes_sense(
    raw: Any, raw_client: Any, head: bytes
) -> None:
    raw.answers = [b"HTTP/1.1 200 OK\r\n" + head + b'{"id": "c"}' + raw.CLOSE]
    with pytest.raises(Uncertain):
        await raw_client.create_container(name="x")


async def test_answers_in_between_are_passed_over(raw: Any, raw_client: Any) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    raw.answers = [b"HTTP/1.1 100 Continue\r\n\r\n" + early * 3 + raw.json({"id": "c"})]
    assert (await raw_client.retrieve_container("c")).id == "c"


@pytest.mark.parametrize(
    ("head", "reused"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
async def test_a_connection_goes_on_after_the_last_chunk_where_that_is_certain(
    raw: Any, raw_client: Any, head: bytes, reused: bool
) -> None:
    raw.answers = [head + b'6\r\n{"id":\r\n4\r\n"c"}\r\n0\r\n\r\n']
    assert (await raw_client.retrieve_container("c")).id == "c"
    await raw_client.list_containers()
    assert [request.connection for request in raw.requests] == [1, 1 if reused else 2]


async def test_an_upload_refused_before_its_end_has_the_refusal_as_its_failure(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    size = 64 * 1024 * 1024

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(RAW_413)
        await stream.aclose()  # with bytes unread, which breaks the connection

    listeners = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(size)
    async with connect(Connection(base_url=f"http://127.0.0.1:{port}/v1")) as client:
        with path.open("rb") as file, pytest.raises(TooLarge):
            await client.upload_file("c", name="x", fd=file.fileno(), size=size)


@pytest.mark.parametrize(
    "headers", [{"content-length": "7"}, {"Transfer-Encoding": "chunked"}, {"Upgrade": "h2c"}]
)
async def test_own_headers_cannot_make_one_request_two(raw: Any, headers: dict[str, str]) -> None:
    async with connect(Connection(base_url=raw.base_url, headers=headers)) as client:
        with pytest.raises(Invalid):
            await client.list_containers()
    assert raw.requests == []


async def test_whether_parts_are_granted_is_known_after_the_first(
    raw: Any, raw_client: Any
) -> None:
    whole = raw.plain(b"0123456789")
    raw.answers = [whole, whole, raw.plain(b"012", 206, content_range="bytes 0-2/10"), whole]
    known = []
    for part in ({}, {"length": 10}, {"length": 3}, {"length": 3}):
        async with raw_client.download_file("c", "f", **part):
            known.append(raw_client.grants_ranges)
    assert known == [None, None, True, False]
