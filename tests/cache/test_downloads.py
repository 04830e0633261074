"""Downloads from the real server: one stream for many readers, and never wrong content."""

import base64
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import Downloads
from containerfs.cache.fetching import UNDECLARED_HOLD
from containerfs.cache.windows import MOST_WINDOWS, RING
from containerfs.errors import (
    AnotherVersion,
    Expired,
    FileSystemError,
    NotFound,
    ServerFault,
    TimedOut,
    TooLarge,
)

BIG = 3 << 20


@pytest.fixture
def store(tmp_path, state) -> ContentStore:
    return ContentStore(directory=tmp_path / "content", connection=state.connection, limit=64 << 20)


@pytest.fixture
def downloads(client, store, nursery) -> Downloads:
    return Downloads(client=client, store=store, nursery=nursery, max_size=8 << 20, op_timeout=3)


@pytest.fixture
def upload(service, box, client):
    """Puts a file on the server; the object as it is listed, with members changed."""

    def put(data: bytes, **members) -> RemoteFile:
        told = service.write(box, "/mnt/data/file", data)
        values = {
            "id": told["id"],
            "container_id": box,
            "path": told["path"],
            "size": told["bytes"],
            "created": told["created_at"],
            "source": told["source"],
        }
        return RemoteFile(**(values | members))

    return put


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - the disk can only be asked
            await trio.sleep(0.01)


async def fetch(downloads: Downloads, file: RemoteFile, *, end: int = 1 << 30) -> bytes:
    download = downloads.join(file)
    try:
        await download.arrive(0, end)
        return await downloads.read(download, 0, end)
    finally:
        downloads.leave(download)


def is_kept(store: ContentStore, file: RemoteFile) -> bool:
    content = store.pin(file)
    if content is not None:
        store.unpin(content)
    return content is not None


async def test_content_arrives_whole_and_is_kept(downloads, store, upload):
    data = os.urandom(BIG)
    file = upload(data)
    assert await fetch(downloads, file) == data
    content = store.pin(file)
    assert content is not None
    assert content.read(0, BIG) == data
    store.unpin(content)


@pytest.mark.parametrize("size", [0, 1])
async def test_tiny_files_arrive(downloads, store, upload, size):
    file = upload(b"x" * size)
    assert await fetch(downloads, file) == b"x" * size
    assert is_kept(store, file)


async def test_many_readers_share_one_request(downloads, service, upload):
    data = os.urandom(BIG)
    file = upload(data)
    answers = []

    async def read() -> None:
        answers.append(await fetch(downloads, file))

    async with trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(read)
    assert answers == [data] * 20
    assert len(service.requests("content")) == 1


async def test_bytes_can_be_read_while_the_rest_still_arrives(downloads, service, upload):
    data = os.urandom(BIG)
    file = upload(data)
    service.set_faults({"kind": "stall-body", "operation": "content", "at": 1 << 20})
    download = downloads.join(file)
    await download.wait_for(1000)
    assert os.pread(download.content.fd, 1000, 0) == data[:1000]
    assert not download.content.complete
    assert await download.wait_for_size() == BIG
    downloads.leave(download)


async def test_a_cancelled_reader_does_not_cancel_the_others(downloads, service, upload):
    data = os.urandom(BIG)
    file = upload(data)
    service.set_faults({"kind": "stall-body", "operation": "content", "at": 1000, "seconds": 0.2})
    got = []

    async def read(task_status: trio.TaskStatus) -> None:
        download = downloads.join(file)
        try:
            with trio.CancelScope() as scope:
                task_status.started((download, scope))
                await download.wait_for(BIG)
                got.append(os.pread(download.content.fd, BIG, 0))
        finally:
            downloads.leave(download)

    async with trio.open_nursery() as readers:
        download, scope = await readers.start(read)
        await readers.start(read)
        await download.wait_for(500)
        scope.cancel()
    assert got == [data]
    assert len(service.requests("content")) == 1


@pytest.mark.parametrize("is_range_granted", [True, False])
@pytest.mark.parametrize("at", [1, 1 << 20, BIG - 1])
async def test_a_broken_stream_is_taken_up_again(
    downloads, service, store, upload, is_range_granted, at
):
    data = os.urandom(BIG)
    file = upload(data)
    service.set_behaviours(range=is_range_granted)
    service.set_faults({"kind": "cut", "operation": "content", "at": at, "count": 1})
    assert await fetch(downloads, file) == data
    assert is_kept(store, file)
    statuses = [request["status"] for request in service.requests("content")]
    assert statuses == [200, 206 if is_range_granted else 200]


async def test_a_stream_that_breaks_each_time_fails_in_the_end(downloads, service, store, upload):
    file = upload(os.urandom(BIG))
    service.set_faults({"kind": "cut", "operation": "content", "at": 0})
    with pytest.raises(FileSystemError):
        await fetch(downloads, file)
    assert not is_kept(store, file)


async def test_who_wants_only_what_came_before_the_break_gets_it(downloads, service, upload):
    data = os.urandom(BIG)
    file = upload(data)
    service.set_faults({"kind": "cut", "operation": "content", "at": 1 << 20})
    download = downloads.join(file)
    await download.wait_for(1000)
    assert os.pread(download.content.fd, 1000, 0) == data[:1000]
    downloads.leave(download)


@pytest.mark.parametrize("listed", [999, 1001, 0, 10**12])
@pytest.mark.parametrize("tells_length", [True, False])
async def test_a_body_of_another_length_than_listed_is_an_error(
    downloads, service, store, upload, listed, tells_length
):
    service.set_behaviours(content_length=tells_length)
    file = upload(bytes(1000), size=listed)
    with pytest.raises(ServerFault):
        await fetch(downloads, file)
    assert not is_kept(store, file)


async def test_an_error_text_with_status_200_is_never_content(downloads, service, store, upload):
    file = upload(b"content")
    service.set_behaviours(errors_as_200=True)
    service.call("DELETE", f"/v1/containers/{file.container_id}/files/{file.id}")
    with pytest.raises(FileSystemError):
        await fetch(downloads, file)
    assert not is_kept(store, file)


async def test_an_error_text_with_status_200_is_no_content_of_unknown_size_either(
    downloads, service, store, upload
):
    file = upload(b"content", size=None)
    service.set_behaviours(errors_as_200=True)
    service.call("DELETE", f"/v1/containers/{file.container_id}/files/{file.id}")
    with pytest.raises(NotFound):
        await fetch(downloads, file)
    with pytest.raises(NotFound):
        await downloads.probe(file)
    assert not is_kept(store, file)


async def test_json_that_is_content_stays_content(downloads, store, upload):
    data = b'{"error": {"message": "this is what the file says", "code": "404"}}'
    assert await fetch(downloads, upload(data)) == data
    assert await fetch(downloads, upload(data, size=None)) == data


@pytest.mark.parametrize("size", [0, 5, UNDECLARED_HOLD + 5])
async def test_content_without_a_declared_length_arrives_whole(
    downloads, service, store, upload, size
):
    service.set_behaviours(content_length=False)
    data = os.urandom(size)
    for file in (upload(data), upload(data, size=None)):
        assert await fetch(downloads, file) == data
        assert is_kept(store, file)
        assert store.size_of(file) == size


async def test_content_without_a_length_that_breaks_off_is_an_error(
    downloads, service, store, upload
):
    service.set_behaviours(content_length=False)
    file = upload(bytes(BIG), size=None)
    service.set_faults({"kind": "cut", "operation": "content", "at": 1000})
    with pytest.raises(FileSystemError):
        await fetch(downloads, file)
    assert not is_kept(store, file)


async def test_content_that_never_ends_is_an_error(downloads, service, store, upload):
    file = upload(b"content", size=None)
    service.set_faults({"kind": "endless", "operation": "content"})
    with pytest.raises(TooLarge):
        await fetch(downloads, file)
    assert not is_kept(store, file)


async def test_a_file_that_changes_between_two_streams_is_not_mixed(
    downloads, service, store, box, upload
):
    file = upload(b"a" * BIG, size=None)
    service.set_faults({"kind": "cut", "operation": "content", "at": 2 << 20, "count": 1})
    service.set_behaviours(range=False)
    download = downloads.join(file)
    await download.wait_for(1 << 20)
    # While the download waits before its second stream, the file becomes another, shorter one.
    service.admin(
        "PUT", f"/admin/files/{box}/{file.id}", {"content_base64": "YmI=", "same_id": True}
    )
    with pytest.raises(ServerFault):
        await download.wait_for(1 << 30)
    downloads.leave(download)
    assert not is_kept(store, file)


async def test_a_file_that_the_server_does_not_have_is_not_found(downloads, service, upload):
    file = upload(b"content")
    service.call("DELETE", f"/v1/containers/{file.container_id}/files/{file.id}")
    with pytest.raises(NotFound):
        await fetch(downloads, file)
    with pytest.raises(NotFound):
        await downloads.probe(file)


async def test_content_of_an_expired_container_is_expired(downloads, service, upload):
    file = upload(b"content")
    service.expire(file.container_id)
    with pytest.raises(Expired):
        await fetch(downloads, file)


async def test_a_failed_download_is_begun_anew_by_the_next_reader(downloads, service, upload):
    file = upload(b"content")
    service.set_faults({"kind": "status", "status": 403, "operation": "content", "count": 1})
    with pytest.raises(FileSystemError):
        await fetch(downloads, file)
    assert await fetch(downloads, file) == b"content"


async def test_a_failure_reaches_every_reader(downloads, service, upload):
    file = upload(b"content")
    service.set_faults({"kind": "status", "status": 403, "operation": "content"})
    failures = []

    async def read() -> None:
        try:
            await fetch(downloads, file)
        except FileSystemError as exc:
            failures.append(exc)

    async with trio.open_nursery() as readers:
        for _ in range(3):
            readers.start_soon(read)
    assert len(failures) == 3
    assert len({id(failure) for failure in failures}) == 3  # none raises another's traceback
    assert len(service.requests("content")) == 1


# Sizes that are not listed.


@pytest.mark.parametrize("is_range_granted", [True, False])
async def test_a_size_is_found_out_by_one_short_request(
    downloads, service, store, upload, is_range_granted
):
    service.set_behaviours(range=is_range_granted)
    file = upload(bytes(BIG), size=None)
    assert await downloads.probe(file) == BIG
    (request,) = service.requests("content")
    assert not is_range_granted or request["bytes_out"] == 1
    assert not is_kept(store, file)


async def test_the_size_of_an_empty_file_is_found_out(downloads, upload):
    assert await downloads.probe(upload(b"", size=None)) == 0


async def test_a_size_that_is_never_declared_is_found_by_fetching(
    downloads, service, store, upload
):
    service.set_behaviours(content_length=False, range=False)
    file = upload(b"content", size=None)
    assert await downloads.probe(file) == 7


# Files that do not fit the cache.

HUGE = 12 << 20


@pytest.fixture
def directory(tmp_path) -> Path:
    return tmp_path / "small"


@pytest.fixture
def small_store(directory, state) -> ContentStore:
    return ContentStore(directory=directory, connection=state.connection, limit=2 << 20)


@pytest.fixture
def with_small_cache(client, small_store, nursery) -> Downloads:
    return Downloads(
        client=client, store=small_store, nursery=nursery, max_size=64 << 20, op_timeout=3
    )


@pytest.fixture
def used(directory):
    """Bytes of disk that content takes."""
    return lambda: sum(path.stat().st_blocks * 512 for path in directory.iterdir())


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_file_larger_than_the_cache_is_read_in_order_by_one_stream(
    with_small_cache, service, upload, used, is_declared, is_listed
):
    service.set_behaviours(content_length=is_declared, range=is_declared)
    data = os.urandom(HUGE)
    file = upload(data) if is_listed else upload(data, size=None)
    download = with_small_cache.join(file)
    pieces, most = [], 0
    for offset in range(0, HUGE, 1 << 17):
        pieces.append(await with_small_cache.read(download, offset, 1 << 17))
        most = max(most, used())
    with_small_cache.leave(download)
    assert b"".join(pieces) == data
    assert most <= (2 << 20) + RING
    assert len(service.requests("content")) <= 2


@pytest.mark.parametrize("is_range_granted", [True, False])
async def test_a_file_larger_than_the_cache_can_be_read_in_any_order(
    with_small_cache, service, upload, used, is_range_granted
):
    service.set_behaviours(range=is_range_granted)
    data = os.urandom(HUGE)
    download = with_small_cache.join(upload(data))
    order = random.Random(7)
    places = [0, HUGE - 5, HUGE, HUGE + 5, *(order.randrange(HUGE) for _ in range(30))]

    async def read(place: int) -> None:
        size = order.randrange(1, 3 << 20)
        assert await with_small_cache.read(download, place, size) == data[place : place + size]

    for place in places[:10]:
        await read(place)
    async with trio.open_nursery() as readers:
        for place in places:
            readers.start_soon(read, place)
    with_small_cache.leave(download)
    await until(lambda: used() == 0)


async def test_more_readers_than_windows_get_their_turn(with_small_cache, upload):
    data = os.urandom(HUGE)
    file = upload(data)
    right = []

    async def read(place: int) -> None:
        download = with_small_cache.join(file)
        right.append(
            await with_small_cache.read(download, place, 9_000) == data[place : place + 9_000]
        )
        with_small_cache.leave(download)

    count = 3 * MOST_WINDOWS
    async with trio.open_nursery() as readers:
        for number in range(count):
            readers.start_soon(read, HUGE * number // count)
    assert right == [True] * count


async def test_who_jumps_about_in_a_large_file_fetches_little(with_small_cache, service, upload):
    data = os.urandom(HUGE)
    download = with_small_cache.join(upload(data))
    for place in (10 << 20, 3 << 20, 7 << 20):
        assert await with_small_cache.read(download, place, 4096) == data[place : place + 4096]
    with_small_cache.leave(download)
    assert sum(request["bytes_out"] for request in service.requests("content")) <= 1 << 20


async def test_a_stream_of_a_large_file_is_taken_up_again(with_small_cache, service, upload):
    data = os.urandom(HUGE)
    service.set_faults({"kind": "cut", "operation": "content", "at": 5 << 20})
    download = with_small_cache.join(upload(data))
    assert await with_small_cache.read(download, 0, HUGE) == data
    with_small_cache.leave(download)


@pytest.mark.parametrize("size", [HUGE + 1, (1 << 63) - 1])
@pytest.mark.parametrize("fault", [None, "endless"])
async def test_a_large_file_of_another_length_than_listed_is_an_error(
    with_small_cache, service, upload, used, size, fault
):
    file = upload(bytes(HUGE), size=size)
    service.set_faults(*([{"kind": fault, "operation": "content"}] if fault else []))
    download = with_small_cache.join(file)
    if fault is None:
        with pytest.raises(ServerFault):
            await with_small_cache.read(download, 0, 1000)
    else:
        assert await with_small_cache.read(download, 0, 1000) == bytes(1000)
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert used() <= RING
    with_small_cache.leave(download)


async def test_who_reads_on_of_a_version_that_was_given_up_leaves_nothing_behind(
    with_small_cache, service, upload, directory
):
    data = os.urandom(HUGE)
    file = upload(data)
    places = {"first": 1 << 20, "slow": 2 << 20, "other": 4 << 20}

    def part(offset: int, etag: str) -> dict[str, object]:
        body = data[offset : offset + (256 << 10)]
        place = f"bytes {offset}-{offset + len(body) - 1}/{HUGE}"
        return {
            "kind": "answer",
            "operation": "content",
            "count": 1,
            "status": 206,
            "headers": [["content-range", place], ["etag", etag]],
            "body_base64": base64.b64encode(body).decode(),
        }

    service.set_faults(
        part(places["first"], '"old"'),
        {"kind": "latency", "operation": "content", "seconds": 0.5, "count": 1},
        part(places["other"], '"new"') | {"after": 1},
    )
    given_up = with_small_cache.join(file)
    await with_small_cache.read(given_up, places["first"], 4096)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(with_small_cache.read, given_up, places["slow"], 4096)
        await trio.testing.wait_all_tasks_blocked(0.1)
        with pytest.raises(AnotherVersion):
            await with_small_cache.read(given_up, places["other"], 4096)
        with_small_cache.leave(given_up)
        anew = with_small_cache.join(file)
        assert await with_small_cache.read(anew, 0, 4096) == data[:4096]
    with_small_cache.leave(anew)
    await until(lambda: not list(directory.iterdir()))


async def test_a_body_that_never_ends_does_not_fill_the_disk(
    with_small_cache, service, upload, used
):
    file = upload(b"content", size=None)
    service.set_faults({"kind": "endless", "operation": "content"})
    most = 0
    download = with_small_cache.join(file)
    with pytest.raises(TooLarge):
        await download.wait_for_size()
    most = max(most, used())
    with_small_cache.leave(download)
    assert most <= 2 << 20


async def test_what_is_needed_whole_may_pass_the_limit_for_as_long(
    with_small_cache, small_store, upload, used
):
    data = os.urandom(4 << 20)
    file = upload(data)
    in_parts = with_small_cache.join(file)
    download = with_small_cache.join(file, whole=True)
    await download.wait_for(1 << 30)
    content = small_store.pin(file)
    assert content is not None
    assert content.read(0, len(data)) == data
    assert await with_small_cache.read(in_parts, 5, 5) == data[5:10]
    small_store.unpin(content)
    with_small_cache.leave(download)
    with_small_cache.leave(in_parts)
    await until(lambda: used() == 0)


@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_file_too_large_to_be_had_whole_is_refused(with_small_cache, upload, is_listed):
    if is_listed:
        with pytest.raises(TooLarge):
            with_small_cache.join(upload(b"x", size=(1 << 63) - 1), whole=True)
    else:
        file = upload(bytes((64 << 20) + 1), size=None)
        download = with_small_cache.join(file, whole=True)
        with pytest.raises(TooLarge):
            await download.wait_for(1 << 30)
        with_small_cache.leave(download)


async def test_many_files_that_are_in_use_do_not_pass_the_limit(with_small_cache, upload, used):
    data = os.urandom(1 << 20)
    files = [upload(data) for _ in range(6)]
    joined = [with_small_cache.join(file) for file in files]
    for download in joined:
        await download.arrive(0, 1 << 20)
    for download in joined:
        assert await with_small_cache.read(download, 0, 1 << 20) == data
    assert used() <= (2 << 20) + 6 * (1 << 20)
    for download in joined:
        with_small_cache.leave(download)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert used() <= 2 << 20


# Downloads that do not end by themselves.


async def test_a_stream_that_drips_is_given_up(downloads, service, upload):
    file = upload(os.urandom(BIG))
    service.set_faults({"kind": "drip", "operation": "content", "seconds": 0.1})
    with pytest.raises(TimedOut):
        await fetch(downloads, file)
    assert not downloads.is_running(file)


async def test_a_stream_that_drips_is_given_up_in_a_large_file_too(
    with_small_cache, service, upload
):
    service.set_faults({"kind": "drip", "operation": "content", "seconds": 0.1})
    download = with_small_cache.join(upload(os.urandom(HUGE)))
    with pytest.raises(TimedOut):
        await with_small_cache.read(download, 0, 1000)
    with_small_cache.leave(download)


@pytest.mark.parametrize("is_range_granted", [True, False])
async def test_a_download_that_nobody_reads_ends_and_is_taken_up_by_the_next_reader(
    downloads, service, store, upload, is_range_granted
):
    data = os.urandom(12 << 20)
    file = upload(data)
    service.set_behaviours(range=is_range_granted)
    service.set_faults({"kind": "stall-body", "operation": "content", "at": 5 << 20, "count": 1})
    download = downloads.join(file)
    await download.wait_for(5 << 20)
    downloads.leave(download)
    assert downloads.is_running(file)
    while downloads.is_running(file):
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert not is_kept(store, file)
    assert await fetch(downloads, file) == data
    assert is_kept(store, file)
    _, second = service.requests("content")
    assert second["status"] == (206 if is_range_granted else 200)
    assert not is_range_granted or second["bytes_out"] < 8 << 20


@pytest.mark.parametrize("is_range_granted", [True, False])
async def test_of_a_download_that_nobody_reads_nothing_more_is_taken(
    downloads, service, store, upload, is_range_granted
):
    file = upload(bytes(64 << 20))
    service.set_behaviours(range=is_range_granted)
    download = downloads.join(file)
    await download.wait_for(1000)
    downloads.leave(download)
    while downloads.is_running(file):
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert not is_kept(store, file)
    # But for what is on its way and in the kernel's buffers, at most 10 MiB a stream.
    assert sum(request["bytes_out"] for request in service.requests("content")) < 40 << 20


async def test_a_download_that_is_nearly_done_is_finished_for_nobody(
    downloads, service, store, upload
):
    file = upload(os.urandom(BIG))
    service.set_faults({"kind": "stall-body", "operation": "content", "at": 9, "seconds": 0.2})
    download = downloads.join(file)
    downloads.leave(download)
    while downloads.is_running(file):
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert is_kept(store, file)


async def test_a_reader_that_comes_back_soon_finds_the_download_running(downloads, service, upload):
    data = os.urandom(12 << 20)
    file = upload(data)
    service.set_faults({"kind": "stall-body", "operation": "content", "at": 9, "seconds": 0.2})
    downloads.leave(downloads.join(file))
    assert await fetch(downloads, file) == data
    assert len(service.requests("content")) == 1
