"""What a caller sees of a server that fails, and how often it is asked."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.errors import RateLimited, ServerFault, TimedOut, Uncertain, Unreachable


@pytest.fixture
async def hasty(server: Any) -> Any:
    """A client whose limits are short."""
    connection = Connection(
        base_url=server.base_url, uds=server.uds, timeout=1.5, transfer_timeout=1
    )
    async with connect(connection) as client:
        yield client


async def read(client: Client, container: str, file: str) -> bytes:
    async with client.download_file(container, file) as body:
        return b"".join([piece async for piece in body])


@pytest.mark.parametrize("kind", ["reset", "reset-after"])
async def test_a_list_survives_resets(client: Client, server: Any, kind: str) -> None:
    server.set_faults({"kind": kind, "operation": "list_containers", "count": 1})
    assert (await client.list_containers()).data == ()


async def test_a_create_reset_before_or_after_is_uncertain_and_sent_once(
    client: Client, server: Any
) -> None:
    for kind, made in (("reset", 0), ("reset-after", 1)):
        server.forget_requests()
        server.set_faults({"kind": kind, "operation": "create_container", "count": 1})
        with pytest.raises(Uncertain):
            await client.create_container(name=kind)
        server.set_faults()
        assert len(server.requests("create_container")) == 1
        assert len((await client.list_containers(name=kind)).data) == made


async def test_an_upload_reset_after_it_was_done_is_sent_once(
    client: Client, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3_000_000))
    server.set_faults({"kind": "reset-after", "operation": "create_file"})
    with path.open("rb") as file, pytest.raises(Uncertain):
        await client.upload_file(container, name="x", fd=file.fileno(), size=3_000_000)
    assert len(server.requests("create_file")) == 1
    assert len(server.files(container)) == 1


async def test_an_upload_refused_for_a_moment_arrives_once(
    client: Client, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    path = tmp_path / "source"
    path.write_bytes(b"hello")
    server.set_faults(
        {
            "kind": "status",
            "status": 429,
            "operation": "create_file",
            "header": "retry-after-ms",
            "value": "10",
            "count": 2,
        }
    )
    with path.open("rb") as file:
        await client.upload_file(container, name="x", fd=file.fileno(), size=5)
    assert len(server.files(container)) == 1


@pytest.mark.parametrize(
    ("header", "value"),
    [("retry-after-ms", "20"), ("retry-after", "0"), ("x-should-retry", "true"), ("none", "1")],
)
async def test_each_retry_header_leads_to_an_answer(
    client: Client, server: Any, header: str, value: str
) -> None:
    server.set_faults(
        {"kind": "status", "status": 429, "header": header, "value": value, "count": 1}
    )
    await client.list_containers()


async def test_a_long_retry_after_is_told_at_once(client: Client, server: Any) -> None:
    server.set_faults(
        {"kind": "status", "status": 429, "header": "retry-after-date", "value": "100", "count": 1}
    )
    with pytest.raises(RateLimited):
        await client.list_containers()


async def test_a_server_that_keeps_failing_is_a_server_fault_at_the_deadline(server: Any) -> None:
    """The next wait would pass it: nothing is under way when it comes."""
    server.set_faults({"kind": "status", "status": 500})
    connection = Connection(base_url=server.base_url, uds=server.uds, timeout=2.5)
    async with connect(connection) as client:
        with pytest.raises(ServerFault, match="500"):
            await client.list_containers()
    assert len(server.requests("list_containers")) > 1


async def test_a_get_that_stands_still_is_asked_again_within_the_deadline(raw: Any) -> None:
    async def never(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    raw.answers = [never, raw.json({"id": "c"})]
    async with connect(Connection(base_url=raw.base_url, timeout=2.0)) as client:
        assert (await client.retrieve_container("c")).id == "c"
    assert len(raw.requests) == 2


async def test_a_server_that_never_answers_is_timed_out(hasty: Client, server: Any) -> None:
    server.set_faults({"kind": "stall", "operation": "list_containers"})
    with pytest.raises(TimedOut):
        await hasty.list_containers()


async def test_a_create_that_stands_still_is_uncertain(hasty: Client, server: Any) -> None:
    server.set_faults({"kind": "stall", "operation": "create_container"})
    with pytest.raises(Uncertain):
        await hasty.create_container(name="x")


async def test_an_answer_that_stands_still_in_the_middle_is_timed_out(
    hasty: Client, server: Any
) -> None:
    server.set_faults({"kind": "stall-body", "at": 5, "operation": "list_containers"})
    with pytest.raises(TimedOut):
        await hasty.list_containers()


async def test_a_download_that_stands_still_is_timed_out(hasty: Client, server: Any) -> None:
    container = server.new_container()
    file = server.upload(container, "x", b"x" * 1000)["id"]
    server.set_faults({"kind": "stall-body", "at": 10, "operation": "content"})
    with pytest.raises(TimedOut, match="after 10 of 1000 bytes"):
        await read(hasty, container, file)


async def test_a_download_that_moves_slowly_arrives(hasty: Client, server: Any) -> None:
    container = server.new_container()
    file = server.upload(container, "x", b"0123456789")["id"]
    server.set_faults({"kind": "drip", "seconds": 0.2, "operation": "content"})
    assert await read(hasty, container, file) == b"0123456789"


@pytest.mark.parametrize("content_length", [True, False])
async def test_a_body_that_is_cut_is_a_server_fault(
    client: Client, server: Any, content_length: bool
) -> None:
    server.set_behaviours(content_length=content_length)
    container = server.new_container()
    file = server.upload(container, "x", b"x" * 100_000)["id"]
    server.set_faults({"kind": "cut", "at": 50_000, "operation": "content"})
    with pytest.raises(ServerFault, match="50000"):
        await read(client, container, file)


async def test_a_list_that_is_cut_is_asked_again(client: Client, server: Any) -> None:
    server.set_faults({"kind": "cut", "at": 10, "operation": "list_containers", "count": 1})
    assert (await client.list_containers()).data == ()


async def test_an_upload_that_nobody_takes_is_given_up(raw: Any, tmp_path: Path) -> None:
    path = tmp_path / "source"
    size = 64 * 1024 * 1024
    with path.open("wb") as file:
        file.truncate(size)
    connection = Connection(base_url=raw.base_url, timeout=0.1, transfer_timeout=0.2)
    async with connect(connection) as client:
        raw.stops_reading = True
        with path.open("rb") as file, pytest.raises(TimedOut):
            await client.upload_file("c", name="x", fd=file.fileno(), size=size)


async def test_an_upload_whose_answer_never_comes_is_uncertain(
    hasty: Client, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    path = tmp_path / "source"
    path.write_bytes(b"hello")
    server.set_faults({"kind": "stall", "operation": "create_file"})
    with path.open("rb") as file, pytest.raises(Uncertain):
        await hasty.upload_file(container, name="x", fd=file.fileno(), size=5)
    assert len(server.requests("create_file")) <= 1


async def test_a_stalled_download_does_not_hold_up_metadata(client: Client, server: Any) -> None:
    container = server.new_container()
    file = server.upload(container, "x", b"x" * 1000)["id"]
    server.set_faults({"kind": "stall-body", "at": 10, "operation": "content"})
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(read, client, container, file)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len((await client.list_files(container)).data) == 1
        nursery.cancel_scope.cancel()


async def test_a_server_that_went_away_is_unreachable(client: Client, server: Any) -> None:
    await client.list_containers()
    server.kill()
    with pytest.raises(Unreachable):
        await client.list_containers()


async def test_a_server_that_came_back_is_used_again(client: Client, server: Any) -> None:
    made = await client.create_container(name="x")
    server.restart()
    assert (await client.retrieve_container(made.id)).name == "x"
    server.restart()
    assert (await client.create_container(name="y")).name == "y"
