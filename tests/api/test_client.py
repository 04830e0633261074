"""The nine operations against the real server."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.errors import (
    AccessDenied,
    Expired,
    Invalid,
    LocalFault,
    NotFound,
    ServerFault,
    TooLarge,
    Unsupported,
)


async def upload(client: Client, container: str, name: str, data: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "source"
    path.write_bytes(data)
    with path.open("rb") as file:
        return await client.upload_file(container, name=name, fd=file.fileno(), size=len(data))


async def content(client: Client, container: str, file: str, **range_: Any) -> bytes:
    async with client.download_file(container, file, **range_) as body:
        return b"".join([piece async for piece in body])


async def test_a_container_is_created_seen_and_deleted(client: Client) -> None:
    created = await client.create_container(
        name="a/ü\n",
        memory_limit="4g",
        expires_after=7,
        network_policy={"type": "allowlist", "allowed_domains": ["a.com"]},
    )
    assert (created.name, created.memory_limit, created.expires_after) == ("a/ü\n", "4g", 7)
    assert created.network_policy == {"type": "allowlist", "allowed_domains": ["a.com"]}
    assert await client.retrieve_container(created.id) == created
    assert [each.id for each in (await client.list_containers()).data] == [created.id]
    await client.delete_container(created.id)
    with pytest.raises(NotFound):
        await client.retrieve_container(created.id)


async def test_containers_are_filtered_by_name_and_ordered(client: Client) -> None:
    for name in ("a", "b", "a"):
        await client.create_container(name=name)
    named = await client.list_containers(name="a", order="asc", limit=1)
    assert named.has_more
    rest = await client.list_containers(name="a", order="asc", after=named.last_id)
    assert [each.name for each in named.data + rest.data] == ["a", "a"]
    assert not rest.has_more


@pytest.mark.parametrize("size", [1, 1024 * 1024, 3 * 1024 * 1024 + 17])
async def test_a_file_comes_back_byte_for_byte(
    client: Client, server: Any, tmp_path: Path, size: int
) -> None:
    container = server.new_container()
    data = os.urandom(size)
    file = await upload(client, container, "x.bin", data, tmp_path)
    assert file.size == size
    assert file.path.endswith("-x.bin")
    assert file.source == "user"
    assert await client.retrieve_file(container, file.id) == file
    assert await content(client, container, file.id) == data
    await client.delete_file(container, file.id)
    with pytest.raises(NotFound):
        await content(client, container, file.id)


async def test_an_empty_file_is_uploaded(client: Client, server: Any, tmp_path: Path) -> None:
    container = server.new_container()
    file = await upload(client, container, "empty", b"", tmp_path)
    assert await content(client, container, file.id) == b""


@pytest.mark.parametrize(
    "name",
    ['a"b', "a\\b", "a b;c=d", "ünï☃😀.csv", "-x", "a%b", "sub/dir/x.txt", 'q\\"', "'"],
)
async def test_names_arrive_as_they_are(
    client: Client, server: Any, tmp_path: Path, name: str
) -> None:
    server.set_behaviours(naming="plain")
    container = server.new_container()
    file = await upload(client, container, name, b"x", tmp_path)
    assert file.path == f"/mnt/data/{name}"


async def test_names_cannot_break_out_of_their_line(
    client: Client, server: Any, tmp_path: Path
) -> None:
    server.set_behaviours(naming="plain")
    container = server.new_container()
    file = await upload(client, container, "a\r\nContent-Type: x\x00\udcff", b"x", tmp_path)
    assert file.path == "/mnt/data/a%0D%0AContent-Type: x%00%FF"


async def test_progress_is_told_up_to_the_size(client: Client, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"x" * 2_500_000)
    told: list[int] = []
    with path.open("rb") as file:
        await client.upload_file(
            server.new_container(),
            name="x",
            fd=file.fileno(),
            size=2_500_000,
            progress=told.append,
        )
        assert file.tell() == 0
    assert told == sorted(told)
    assert told[-1] == 2_500_000


async def test_a_source_that_is_too_short_is_never_uploaded_short(
    client: Client, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    path = tmp_path / "source"
    path.write_bytes(b"x" * 10)
    with path.open("rb") as file, pytest.raises(LocalFault, match="10 of 11"):
        await client.upload_file(container, name="x", fd=file.fileno(), size=11)
    assert server.files(container) == []


async def test_only_the_size_asked_for_is_uploaded(
    client: Client, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        uploaded = await client.upload_file(container, name="x", fd=file.fileno(), size=4)
    assert await content(client, container, uploaded.id) == b"0123"


async def test_a_registered_file_is_attached(client: Client, server: Any) -> None:
    container = server.new_container()
    boundary = "b0"
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="r.txt"\r\n\r\n'
    _, _, answer = server.exchange(
        "POST",
        "/admin/registry",
        part.encode() + b"hello" + f"\r\n--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    file_id = answer.decode().split('"id"')[1].split('"')[1]
    file = await client.attach_file(container, file_id=file_id)
    assert await content(client, container, file.id) == b"hello"


async def test_part_of_a_file_is_downloaded(client: Client, server: Any) -> None:
    container = server.new_container()
    file = server.upload(container, "x", b"0123456789")["id"]
    async with client.download_file(container, file, offset=3, length=4) as body:
        assert (body.offset, body.size, body.total) == (3, 4, 10)
        assert [piece async for piece in body] == [b"3456"]
    assert await content(client, container, file, offset=8) == b"89"
    assert await content(client, container, file, offset=8, length=100) == b"89"


async def test_beyond_the_end_there_is_nothing(client: Client, server: Any) -> None:
    container = server.new_container()
    file = server.upload(container, "x", b"0123456789")["id"]
    async with client.download_file(container, file, offset=10) as body:
        assert (body.size, body.total) == (0, 10)
        assert [piece async for piece in body] == []


async def test_a_server_without_ranges_sends_the_whole_and_says_so(
    client: Client, server: Any
) -> None:
    server.set_behaviours(range=False)
    container = server.new_container()
    file = server.upload(container, "x", b"0123456789")["id"]
    async with client.download_file(container, file, offset=3, length=4) as body:
        assert (body.offset, body.size, body.total) == (0, 10, 10)


async def test_a_length_that_is_not_told_is_unknown(client: Client, server: Any) -> None:
    server.set_behaviours(content_length=False)
    container = server.new_container()
    file = server.upload(container, "x", b"0123456789")["id"]
    async with client.download_file(container, file) as body:
        assert (body.size, body.total) == (None, None)
        assert b"".join([piece async for piece in body]) == b"0123456789"


async def test_a_size_that_is_not_told_is_unknown(client: Client, server: Any) -> None:
    server.set_behaviours(null_bytes="always")
    container = server.new_container()
    server.upload(container, "x", b"0123456789")
    (file,) = (await client.list_files(container)).data
    assert file.size is None


async def test_an_expired_container_is_told_from_one_that_never_was(
    client: Client, server: Any
) -> None:
    container = server.new_container()
    server.expire(container)
    assert (await client.list_containers()).data[0].is_expired
    with pytest.raises(Expired):
        await client.list_files(container)
    with pytest.raises(NotFound):
        await client.list_files("cntr_nope")


async def test_refusals_of_an_upload_are_told_apart(
    client: Client, server: Any, tmp_path: Path
) -> None:
    container = server.new_container()
    server.set_behaviours(refuse_empty=True, refuse_svg=True, max_file_size=100)
    with pytest.raises(Invalid):
        await upload(client, container, "x", b"", tmp_path)
    with pytest.raises(Invalid):
        await upload(client, container, "x", b"<svg></svg>", tmp_path)
    with pytest.raises(TooLarge):
        await upload(client, container, "x", b"x" * 101, tmp_path)
    server.set_behaviours(read_only=True)
    with pytest.raises(Unsupported):
        await upload(client, container, "x", b"x", tmp_path)
    server.set_behaviours(read_only=False, full=True)
    with pytest.raises(ServerFault):
        await upload(client, container, "x", b"x", tmp_path)
    assert server.files(container) == []


async def test_ids_of_any_length_are_taken(client: Client, server: Any, tmp_path: Path) -> None:
    server.set_behaviours(long_ids=True)
    container = await client.create_container(name="x")
    assert len(container.id) == 237
    file = await upload(client, container.id, "x", b"data", tmp_path)
    assert await content(client, container.id, file.id) == b"data"


async def test_the_key_is_needed_where_the_server_asks_for_it(server_factory: Any) -> None:
    server = server_factory(api_key="sk-right", tcp=True)
    async with connect(Connection(base_url=server.base_url, api_key="sk-right")) as client:
        await client.list_containers()
    for key in ("sk-wrong", None):
        async with connect(Connection(base_url=server.base_url, api_key=key)) as client:
            with pytest.raises(AccessDenied, match="req_"):
                await client.list_containers()


async def test_many_calls_at_once_are_all_answered(client: Client, server: Any) -> None:
    container = server.new_container()
    files = [server.upload(container, f"f{n}", bytes([n]) * 1000)["id"] for n in range(20)]
    found: dict[int, bytes] = {}

    async def fetch(number: int) -> None:
        found[number] = await content(client, container, files[number % 20])

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(fetch, number)
    assert all(found[n] == bytes([n % 20]) * 1000 for n in range(100))
