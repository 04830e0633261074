"""Large files that come by several ranges: no byte twice, never wrong content, far places soon."""

import os
import random
import re
import zlib
from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio.testing

from containerfs.api.client import connect
from containerfs.api.connection import Connection
from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import LARGE, Downloads
from containerfs.cache.pace import STREAMS
from containerfs.cache.parts import ALIGNED, PART, Parts
from containerfs.errors import AccessDenied, AnotherVersion, ServerFault

SIZE = 5 * PART + 12_345
FAR = {"kind": "latency", "operation": "content", "seconds": 0.03}


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def store(tmp_path, state) -> ContentStore:
    return ContentStore(directory=tmp_path / "content", connection=state.connection, limit=64 << 20)


@pytest.fixture
def new_downloads(store, nursery):
    return lambda client: Downloads(
        client=client, store=store, nursery=nursery, max_size=8 << 20, op_timeout=10
    )


@pytest.fixture
def downloads(new_downloads, client) -> Downloads:
    return new_downloads(client)


@pytest.fixture
def upload(service, box):
    """Puts a file on the server; the object as it is listed."""

    def put(data: bytes) -> RemoteFile:
        told = service.write(box, "/mnt/data/file", data)
        return RemoteFile(
            id=told["id"],
            container_id=box,
            path=told["path"],
            size=len(data),
            created=told["created_at"],
            source="user",
        )

    return put


@pytest.fixture
def sent(service):
    """How many bytes of content the server has sent."""
    return lambda: sum(request["bytes_out"] for request in service.requests("content"))


def brief(data: bytes) -> tuple[int, int]:
    """What tells contents apart, and is quickly told where a test fails."""
    return len(data), zlib.crc32(data)


async def fetch(downloads: Downloads, file: RemoteFile) -> tuple[int, int]:
    download = downloads.join(file)
    try:
        await download.arrive(0, SIZE)
        return brief(await downloads.read(download, 0, SIZE))
    finally:
        downloads.leave(download)


def kept(store: ContentStore, file: RemoteFile) -> tuple[int, int] | None:
    content = store.pin(file)
    if content is None:
        return None
    try:
        return brief(content.read(0, SIZE + 1))
    finally:
        store.unpin(content)


@pytest.mark.parametrize("faults", [[], [FAR]], ids=["near", "far"])
async def test_a_large_file_comes_by_parts_and_no_byte_twice(
    downloads, service, store, upload, data, sent, faults
):
    file = upload(data)
    service.set_faults(*faults)
    assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)
    assert sent() == SIZE
    assert {request["status"] for request in service.requests("content")} == {206}


async def test_a_file_that_is_not_large_is_asked_for_once(downloads, service, upload):
    data = bytes(LARGE)
    assert await fetch(downloads, upload(data)) == brief(data)
    assert [request["status"] for request in service.requests("content")] == [200]


async def test_a_server_without_ranges_is_asked_once(downloads, service, store, upload, data, sent):
    service.set_behaviours(range=False)
    file = upload(data)
    assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)
    assert [request["status"] for request in service.requests("content")] == [200]
    other = upload(data[:-1])
    assert await fetch(downloads, other) == brief(data[:-1])
    assert sent() == 2 * SIZE - 1


async def test_who_reads_far_ahead_need_not_wait_for_what_lies_before(
    downloads, service, store, upload, data, sent
):
    file = upload(data)
    service.set_faults(
        {"kind": "stall-body", "operation": "content", "at": 1 << 20, "count": 1}, FAR
    )
    download = downloads.join(file)
    await download.arrive(0, 1)
    for place in (SIZE - 5, 3 * PART + 7, PART + 1):
        assert await downloads.read(download, place, 5) == data[place : place + 5]
    assert await downloads.read(download, 1000, 1000) == data[1000:2000]
    assert not download.is_complete
    downloads.leave(download)
    while downloads.is_running(file):
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert kept(store, file) is None
    assert await fetch(downloads, file) == brief(data)  # what was left is taken up
    assert kept(store, file) == brief(data)
    assert sent() <= SIZE + PART  # the server may have sent the rest of what it stalled in


async def test_many_readers_at_any_places_share_what_comes(
    downloads, service, store, upload, data, sent
):
    file = upload(data)
    service.set_faults(FAR)
    order = random.Random(5)
    wrong = []

    async def read() -> None:
        download = downloads.join(file)
        for _ in range(20):
            place, size = order.randrange(SIZE), order.randrange(1 << 20)
            if await downloads.read(download, place, size) != data[place : place + size]:
                wrong.append(place)
        downloads.leave(download)

    async with trio.open_nursery() as readers:
        for _ in range(8):
            readers.start_soon(read)
    assert wrong == []
    assert sent() <= SIZE
    if kept(store, file) is None:
        assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)
    assert sent() == SIZE


async def test_broken_parts_are_taken_up_where_they_stopped(
    downloads, service, store, upload, data, sent
):
    file = upload(data)
    service.set_faults(
        FAR, {"kind": "cut", "operation": "content", "at": 3 << 20, "after": 1, "count": 2}
    )
    assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)
    assert sent() == SIZE


async def test_a_part_that_never_comes_fails_all_who_wait(
    downloads, service, store, upload, data, sent
):
    file = upload(data)
    service.set_faults(
        FAR, {"kind": "status", "status": 403, "operation": "content", "after": 2, "count": 1}
    )
    failures = []

    async def read() -> None:
        try:
            await fetch(downloads, file)
        except AccessDenied as exc:
            failures.append(exc)

    async with trio.open_nursery() as readers:
        readers.start_soon(read)
        readers.start_soon(read)
    assert len(failures) == 2
    assert kept(store, file) is None
    assert await fetch(downloads, file) == brief(data)


async def test_what_finds_no_room_while_it_comes_is_read_by_windows(
    client, tmp_path, state, nursery, service, upload, data
):
    store = ContentStore(
        directory=tmp_path / "small", connection=state.connection, limit=SIZE + (1 << 20)
    )
    downloads = Downloads(client=client, store=store, nursery=nursery, max_size=SIZE, op_timeout=3)
    file = upload(data)
    service.set_faults(FAR)
    download = downloads.join(file)
    other = store.begin_nameless()
    assert store.make_room(other, 2 * PART)
    for place in range(0, SIZE, 1 << 20):
        piece = await downloads.read(download, place, 1 << 20)
        assert brief(piece) == brief(data[place : place + (1 << 20)])
    downloads.leave(download)
    store.unpin(other)
    assert kept(store, file) is None


async def test_the_rest_of_a_file_comes_as_one_where_parts_are_granted_no_more(
    downloads, service, store, upload, data
):
    file = upload(data)
    service.set_faults(FAR)
    download = downloads.join(file)
    await download.arrive(0, 1)
    service.set_behaviours(range=False)
    assert await fetch(downloads, file) == brief(data)
    downloads.leave(download)
    assert kept(store, file) == brief(data)


# Servers that lie.


class Liar:
    """A server of one file; `answer` makes what it says of bytes *first* to *last*.

    Attributes:
        body: The file.
        answers: How many requests it answered.
    """

    def __init__(self, body: bytes, answer: Callable[["Liar", int, int], tuple[str, bytes]]):
        self.body = body
        self.answers = 0
        self._answer = answer
        self.may_go_on = trio.Event()  # to what is not the first part
        self.may_go_on.set()

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        try:
            while True:
                while b"\r\n\r\n" not in received:
                    more = await stream.receive_some()
                    if not more:
                        return
                    received += more
                request, _, received = received.partition(b"\r\n\r\n")
                await self._reply(stream, request.decode())
        except trio.BrokenResourceError:
            return

    async def _reply(self, stream: trio.SocketStream, request: str) -> None:
        found = re.search(r"(?i)range: bytes=(\d+)-(\d*)", request)
        size = len(self.body)
        self.answers += 1
        if found is None:
            head, body = f"200 OK\r\nContent-Length: {size}", self.body
        else:
            first = int(found[1])
            last = min(int(found[2] or size), size - 1)
            if first:
                await self.may_go_on.wait()
            head, body = self._answer(self, first, last)
        await stream.send_all(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)


def honest(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    return part(first, last, len(server.body)), server.body[first : last + 1]


def part(first: int, last: int, total: object, *, length: int | None = None, more: str = "") -> str:
    size = last - first + 1 if length is None else length
    said = f"206 Partial\r\nContent-Range: bytes {first}-{last}/{total}"
    return f"{said}\r\nContent-Length: {size}{more}"


@pytest.fixture
async def lied_to(nursery, new_downloads, data):
    """Starts a liar; the downloads from it, its file, and itself."""
    clients = []

    async def start(answer):
        liar = Liar(data, answer)
        listeners = await nursery.start(partial(trio.serve_tcp, liar.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        context = connect(Connection(base_url=f"http://127.0.0.1:{port}/v1", timeout=5))
        clients.append(context)
        client = await context.__aenter__()
        file = RemoteFile(
            id="f", container_id="c", path="/f", size=len(data), created=1, source="user"
        )
        return new_downloads(client), file, liar

    yield start
    for context in clients:
        await context.__aexit__(None, None, None)


def wrong_total(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    total = len(server.body) + (first > 0)
    return part(first, last, total), server.body[first : last + 1]


def wrong_offset(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    if not first:
        return honest(server, first, last)
    return part(first - 1, last - 1, len(server.body)), server.body[first - 1 : last]


def too_short(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    if not first:
        return honest(server, first, last)
    return part(first, last, len(server.body), length=5), server.body[first : first + 5]


def too_long(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    if not first:
        return honest(server, first, last)
    body = server.body[first : last + 1] + b"more"
    return part(first, last, len(server.body), length=len(body)), body


def shorter_file(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    if not first:
        return honest(server, first, last)
    return f"416 Not There\r\nContent-Range: bytes */{first}\r\nContent-Length: 0", b""


@pytest.mark.parametrize("lie", [wrong_total, wrong_offset, too_short, too_long, shorter_file])
async def test_parts_that_are_not_what_they_say_are_an_error(lied_to, store, lie):
    downloads, file, _ = await lied_to(lie)
    with pytest.raises(ServerFault):
        await fetch(downloads, file)
    assert kept(store, file) is None


def in_pieces(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    return honest(server, first, min(last, first + (3 << 20) - 1))


def without_total(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    return part(first, last, "*"), server.body[first : last + 1]


@pytest.mark.parametrize("answer", [honest, in_pieces, without_total])
async def test_parts_may_be_shorter_than_asked_for(lied_to, store, data, answer):
    downloads, file, _ = await lied_to(answer)
    assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)


def changing(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    is_old = server.answers == 1
    etag = '"old"' if is_old else '"new"'
    body = bytes(last - first + 1) if is_old else server.body[first : last + 1]
    return part(first, last, len(server.body), more=f"\r\nETag: {etag}"), body


def with_etags_that_tell_nothing(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    etag = f'"{server.answers}"'
    body = server.body[first : last + 1]
    return part(first, last, len(server.body), more=f"\r\nETag: {etag}"), body


def of_two_machines(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    etag = f'"{server.answers % 2}"'
    body = server.body[first : last + 1]
    return part(first, last, len(server.body), more=f"\r\nETag: {etag}"), body


async def test_parts_of_two_versions_are_not_mixed(lied_to, store, data):
    downloads, file, _ = await lied_to(changing)
    assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)


async def test_who_has_read_of_one_version_gets_nothing_of_another(lied_to, data):
    downloads, file, liar = await lied_to(changing)
    liar.may_go_on = trio.Event()
    download = downloads.join(file)
    try:
        assert await downloads.read(download, 0, 9) == bytes(9)
        liar.may_go_on.set()
        with pytest.raises(AnotherVersion):
            await downloads.read(download, SIZE - 9, 9)
    finally:
        downloads.leave(download)
    assert await fetch(downloads, file) == brief(data)


@pytest.mark.parametrize("answer", [with_etags_that_tell_nothing, of_two_machines])
async def test_etags_that_differ_without_a_change_are_not_believed(lied_to, store, data, answer):
    downloads, file, liar = await lied_to(answer)
    liar.may_go_on = trio.Event()
    download = downloads.join(file)
    try:
        assert await downloads.read(download, 0, 9) == data[:9]
        liar.may_go_on.set()
        assert await downloads.read(download, SIZE - 9, 9) == data[-9:]
        await download.arrive(0, SIZE)
    finally:
        downloads.leave(download)
    assert kept(store, file) == brief(data)


def whole_later(server: Liar, first: int, last: int) -> tuple[str, bytes]:
    if not first:
        return part(first, last, len(server.body)), bytes(last - first + 1)
    return f"200 OK\r\nContent-Length: {len(server.body)}", server.body


async def test_a_whole_that_comes_for_a_part_is_taken_as_the_file(lied_to, store, data):
    downloads, file, liar = await lied_to(whole_later)
    assert await fetch(downloads, file) == brief(data)
    assert kept(store, file) == brief(data)
    assert liar.answers <= 1 + STREAMS  # those under way together


# What is asked for next.


def test_what_follows_is_asked_for_in_order():
    parts = Parts(3 * PART)
    taken = [parts.take_next(2 * PART), parts.take_next(2 * PART), parts.take_next(PART)]
    assert [(each.start, each.end) for each in taken if each] == [
        (0, 2 * PART),
        (2 * PART, 3 * PART),
    ]


def test_a_place_that_is_wanted_far_ahead_is_asked_for_at_once_and_what_follows_it_next():
    parts = Parts(9 * PART)
    assert parts.take_next(PART) is not None
    for place in (5, PART + 5, 5 * PART + 5):  # asked for; next in order; far
        parts.want(place)
    jump = parts.take_wanted(ALIGNED)
    assert jump is not None
    assert (jump.start, jump.end) == (5 * PART, 5 * PART + ALIGNED)
    following = parts.take_next(PART)
    assert following is not None
    assert following.start == jump.end
    near = parts.take_wanted(PART)  # what follows in order is elsewhere now
    assert near is not None
    assert near.start == PART
    assert parts.take_wanted(PART) is None


@pytest.mark.parametrize("seed", range(20))
def test_all_is_asked_for_once_and_what_is_here_is_known(seed):
    order = random.Random(seed)
    size = order.randrange(1, 12 * PART)
    parts, here, running, asked = Parts(size), set(), [], 0
    step = ALIGNED // 4
    while parts.arrived < size:
        act = order.random()
        if act < 0.2:
            parts.want(order.randrange(size))
            stretch = parts.take_wanted(PART)
        elif act < 0.4:
            stretch = parts.take_next(order.randrange(1, 3 * PART))
        else:
            stretch = None
        if stretch is not None:
            asked += stretch.end - stretch.start
            running.append(stretch)
        elif running:
            stretch = order.choice(running)
            count = min(stretch.end - stretch.place, order.randrange(1, PART))
            here.update(range(-(-stretch.place // step), -(-(stretch.place + count) // step)))
            parts.arrive(stretch, count)
            if stretch.is_here:
                running.remove(stretch)
        if act > 0.99:
            asked -= sum(each.end - each.place for each in running)
            running.clear()
            parts.give_back()
        assert parts.asked == asked
        place = order.randrange(0, size, step)
        assert (parts.missing(place, place + 1) is None) == (place // step in here)
        assert parts.missing(0, parts.front) is None
        assert parts.front == size or parts.missing(0, size) == parts.front
    assert asked == size
