"""The uploader against the real server: lost answers, wrong lengths, deletions, back-off."""

import json
import math
import os
import sqlite3
from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from containerfs.errors import (
    Expired,
    FileSystemError,
    Invalid,
    NotFound,
    ServerFault,
    TooLarge,
    Uncertain,
)
from containerfs.upload.journal import Journal
from containerfs.upload.outstanding import DELETE_RETRY, DELETE_SOON, Outstanding
from containerfs.upload.uploader import FIRST_RETRY, LAST_RETRY, PUT_OFF_AFTER, Uploader

LOST = {"kind": "reset-after", "operation": "create_file"}


@pytest.fixture
def journal(tmp_path):
    connection = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
    yield Journal(connection)
    connection.close()


@pytest.fixture
def uploader(client, journal, nursery) -> Uploader:
    return Uploader(client=client, journal=journal, nursery=nursery)


@pytest.fixture
def missing():
    """What somebody else turned out to have deleted."""
    return []


@pytest.fixture
def outstanding(uploader, journal, missing) -> Outstanding:
    async def on_missing(deletion) -> None:
        missing.append(deletion.path)

    return Outstanding(journal=journal, uploader=uploader, on_missing=on_missing, limit=60.0)


@pytest.fixture
def send(uploader, box, tmp_path):
    """Sends bytes under a name."""

    async def sending(data: bytes, *, name: str = "a.txt", known=(), **arguments):
        path = tmp_path / "spool"
        path.write_bytes(data)
        with path.open("rb") as file:
            return await uploader.send(
                container_id=box,
                name=name,
                fd=file.fileno(),
                size=len(data),
                known=lambda: known,
                is_named=lambda file: file.path.endswith(f"-{name}"),
                **arguments,
            )

    return sending


def contents(service, box) -> list[bytes]:
    return sorted(service.content(box, file["id"]) for file in service.files(box))


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
async def test_what_was_sent_is_on_the_server(service, box, send, size):
    data = os.urandom(size)
    file = await send(data)
    assert service.content(box, file.id) == data
    assert file.size == size


async def test_an_upload_whose_answer_was_lost_is_not_sent_twice(service, box, send):
    service.set_faults({**LOST, "count": 1})
    file = await send(b"content")
    assert [each["id"] for each in service.files(box)] == [file.id]
    assert len(service.requests("create_file")) == 1


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_lost_upload_is_found_though_its_content_breaks_off(service, box, send, ranges):
    service.set_behaviours(range=ranges)
    service.set_faults(
        {**LOST, "count": 1},
        {"kind": "cut", "operation": "content", "at": 7000, "count": 1},
        {"kind": "cut", "operation": "content", "at": 9000, "count": 1},
    )
    file = await send(os.urandom(20_000))
    assert [each["id"] for each in service.files(box)] == [file.id]
    assert len(service.requests("content")) == 3


async def test_something_else_is_not_taken_for_a_lost_upload(service, box, send):
    data = os.urandom(20_000)
    service.upload(box, "a.txt", data[:-1] + b"?")
    service.set_faults(
        {"kind": "reset", "operation": "create_file", "count": 1},
        {"kind": "cut", "operation": "content", "at": 7000, "count": 1},
    )
    file = await send(data)
    assert service.content(box, file.id) == data
    assert len(service.files(box)) == 2


async def test_looking_for_a_lost_upload_gets_on_as_long_as_its_content_comes(service, box, send):
    told = []
    service.set_faults({**LOST, "count": 1})
    await send(bytes(3 << 20), progress=told.append)
    assert told[-1] == 3 << 20
    assert any(after < before for before, after in pairwise(told))  # it begins anew


async def test_a_lost_upload_is_found_though_the_server_tells_no_size(service, box, send):
    service.set_behaviours(null_bytes="always")
    service.set_faults({**LOST, "count": 1})
    file = await send(b"content")
    assert [each["id"] for each in service.files(box)] == [file.id]


async def test_an_upload_that_did_not_arrive_is_sent_again(service, box, send):
    service.set_faults({"kind": "status", "status": 500, "operation": "create_file", "count": 1})
    file = await send(b"content")
    assert [each["id"] for each in service.files(box)] == [file.id]
    assert contents(service, box) == [b"content"]


async def test_a_server_that_loses_every_answer_gets_a_file_once(service, box, send):
    service.set_faults(LOST)
    await send(b"content")
    assert contents(service, box) == [b"content"]


async def test_whether_a_lost_upload_arrived_stays_open_while_nobody_can_tell(service, box, send):
    service.set_faults(
        {**LOST, "count": 1}, {"kind": "status", "status": 403, "operation": "list_files"}
    )
    with pytest.raises(Uncertain):
        await send(b"content")
    with pytest.raises(Uncertain):
        await send(b"content", may_be_there=True)
    service.set_faults()
    await send(b"content", may_be_there=True)
    assert contents(service, box) == [b"content"]
    assert len(service.requests("create_file")) == 1


async def test_an_earlier_attempt_is_looked_for_first(service, box, send):
    earlier = service.upload(box, "a.txt", b"content")["id"]
    service.forget_requests()
    file = await send(b"content", may_be_there=True)
    assert file.id == earlier
    assert service.requests("create_file") == []


@pytest.mark.parametrize(
    ("name", "data"), [("a.txt", b"CONTENT"), ("a.txt", b"conten"), ("xa.txt", b"content")]
)
async def test_another_file_is_never_taken_for_an_earlier_attempt(service, box, send, name, data):
    other = service.upload(box, name, data)["id"]
    service.write(box, "/mnt/data/b.txt", b"content")
    file = await send(b"content", may_be_there=True)
    assert file.id != other
    assert len(service.files(box)) == 3


async def test_a_file_that_is_known_is_no_earlier_attempt(service, box, send):
    other = service.upload(box, "a.txt", b"content")["id"]
    file = await send(b"content", may_be_there=True, known={other})
    assert file.id != other


async def test_a_file_that_is_to_be_deleted_is_no_earlier_attempt(service, box, send, journal):
    other = service.upload(box, "a.txt", b"content")["id"]
    journal.delete_later(box, other)
    file = await send(b"content", may_be_there=True)
    assert file.id != other


async def test_a_listed_file_that_is_not_there_is_no_earlier_attempt(service, box, send):
    service.write(box, "/mnt/data/x-a.txt", phantom=True, bytes=7)
    file = await send(b"content", may_be_there=True)
    assert service.content(box, file.id) == b"content"


def answer_too_short(service, box):
    """The next upload is answered with a file that is shorter than what was sent; its id."""
    told = {"id": "cfile_x", "object": "container.file", "created_at": 1, "bytes": 3}
    told |= {"container_id": box, "path": "/mnt/data/x-a.txt", "source": "user"}
    service.write(box, told["path"], b"con", id=told["id"])
    service.set_faults(
        {
            "kind": "answer",
            "operation": "create_file",
            "status": 200,
            "headers": {"content-type": "application/json"},
            "body": json.dumps(told),
        }
    )
    return told["id"]


async def test_a_file_that_arrived_with_another_length_is_removed_and_an_error(service, box, send):
    answer_too_short(service, box)
    with pytest.raises(ServerFault):
        await send(b"content")
    assert service.files(box) == []


async def test_a_known_file_is_not_removed_for_its_length(service, box, send):
    known = {answer_too_short(service, box)}
    with pytest.raises(ServerFault):
        await send(b"content", known=known)
    assert len(service.files(box)) == 1


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ({"max_file_size": 3}, TooLarge),
        ({"refuse_svg": True}, Invalid),
        ({"full": True}, ServerFault),
    ],
)
async def test_a_refusal_is_an_error_and_leaves_nothing(service, box, send, behaviour, error):
    service.set_behaviours(**behaviour)
    with pytest.raises(error):
        await send(b"<svg></svg>")
    assert service.files(box) == []


async def test_a_container_that_is_gone_is_an_error(service, box, send):
    service.expire(box)
    with pytest.raises(Expired):
        await send(b"content")
    with pytest.raises(Expired):
        await send(b"content", may_be_there=True)
    service.call("DELETE", f"/v1/containers/{box}")
    with pytest.raises(NotFound):
        await send(b"content")


# Deleting.


async def test_deleting_tells_whether_the_file_was_there(service, box, uploader, journal):
    id = service.upload(box, "a", b"x")["id"]
    assert await uploader.delete(box, id)
    assert not await uploader.delete(box, id)
    assert await uploader.remove(box, service.upload(box, "a", b"x")["id"])
    assert not await uploader.remove(box, id)
    assert service.files(box) == []
    assert journal.deletions == []


async def test_what_could_not_be_deleted_is_deleted_later(
    service, box, uploader, outstanding, journal, missing, caplog
):
    id = service.upload(box, "a", b"x")["id"]
    service.set_faults({"kind": "status", "status": 403, "operation": "delete_file", "count": 1})
    assert await uploader.delete(box, id)
    assert journal.deletions == [(box, id)]
    assert "later" in caplog.text
    service.set_faults({"kind": "status", "status": 403, "operation": "delete_file"})
    with pytest.raises(FileSystemError):
        await uploader.remove(box, id)
    service.set_faults()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outstanding.run)
        while journal.deletions:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert service.files(box) == []
    assert missing == []


async def test_only_what_was_below_a_path_is_tried_again(
    service, box, uploader, outstanding, journal, missing
):
    paths = ["dir/a", "dir/b/c", "dirt", "dir", ""]
    for path in paths:
        service.set_faults({"kind": "status", "status": 403, "operation": "delete_file"})
        await uploader.delete(box, service.upload(box, "a", b"x")["id"], path=path)
    journal.delete_later(box, "cfile_gone", path="dir/gone")
    service.set_faults()
    await outstanding.sync("another", "dir")
    await outstanding.sync(box, "other")
    assert sorted(each.path for each in journal.doomed.all) == sorted({*paths, "dir/gone"} - {""})
    assert missing == []
    await outstanding.sync(box, "dir")
    assert [each.path for each in journal.doomed.all] == ["dirt"]
    assert missing == ["dir/gone"]
    await outstanding.sync()
    assert journal.deletions == []
    assert service.files(box) == []


async def test_what_is_being_deleted_is_waited_for_and_asked_for_once(
    service, box, uploader, outstanding, journal
):
    id = service.upload(box, "a", b"x")["id"]
    service.set_faults({"kind": "latency", "seconds": 0.2, "operation": "delete_file"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(uploader.delete, box, id)
        await wait_all_tasks_blocked()
        await outstanding.sync()
        assert journal.deletions == []
    assert len(service.requests("delete_file")) == 1


async def test_who_waits_is_let_go_while_a_failing_server_is_asked_again(
    service, box, uploader, outstanding, journal
):
    id = service.upload(box, "a", b"x")["id"]
    service.set_faults({"kind": "status", "status": 500, "operation": "delete_file"})
    assert await uploader.delete(box, id, patience=0.0)
    assert len(service.requests("delete_file")) == 1
    (left,) = journal.doomed.all
    assert "500" in left.error
    await uploader.wait_until_put_off()
    service.set_faults()
    await outstanding.delete()
    assert service.files(box) == []


async def test_what_an_expired_container_held_needs_no_deletion(service, box, uploader, journal):
    id = service.upload(box, "a", b"x")["id"]
    service.expire(box)
    assert not await uploader.delete(box, id)
    assert journal.deletions == []


# Trying again, on a clock that jumps.


class Nobody:
    """A client that cannot delete anything."""

    def __init__(self, *, retriable: bool = False) -> None:
        self.asked: list[float] = []
        self._retriable = retriable

    async def delete_file(self, container_id, file_id, *, patience):
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise ServerFault("down", retriable=self._retriable)


def retrying(uploader, journal):
    async def on_missing(deletion) -> None:
        await trio.lowlevel.checkpoint()

    return Outstanding(journal=journal, uploader=uploader, on_missing=on_missing, limit=60.0)


async def test_failed_uploads_are_tried_again_with_growing_waits(journal, nursery, autojump_clock):
    uploader = Uploader(client=Nobody(), journal=journal, nursery=nursery)
    entry = journal.begin(container_id="c", path="a", spool="s", replaces=(), held=False)
    times = [trio.current_time()]

    async def send() -> None:
        times.append(trio.current_time())
        if len(times) < 10:
            uploader.retry_later(entry, send)
        raise ServerFault("down")

    uploader.retry_later(entry, send)
    uploader.retry_later(entry, send)  # one wait at a time
    await trio.sleep(10_000)
    waits = [round(after - before) for before, after in pairwise(times)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert (waits[0], waits[-1]) == (FIRST_RETRY, LAST_RETRY)


async def test_a_new_failure_begins_with_a_short_wait_again(journal, nursery, autojump_clock):
    uploader = Uploader(client=Nobody(), journal=journal, nursery=nursery)
    entry = journal.begin(container_id="c", path="a", spool="s", replaces=(), held=False)
    entry.failures = 5
    sent = trio.Event()

    async def send() -> None:
        sent.set()

    entry.failures = 0  # it was sent meanwhile
    began = trio.current_time()
    uploader.retry_later(entry, send)
    await sent.wait()
    assert trio.current_time() - began == FIRST_RETRY


async def test_deletions_are_tried_again_while_the_mount_lives(journal, nursery, autojump_clock):
    client = Nobody()
    journal.delete_later("c", "x")
    uploader = Uploader(client=client, journal=journal, nursery=nursery)
    nursery.start_soon(retrying(uploader, journal).run)
    await wait_all_tasks_blocked()
    await trio.sleep(2.5 * DELETE_RETRY)
    assert [round(time - client.asked[0]) for time in client.asked] == [0, 30, 60]
    assert journal.deletions == [("c", "x")]


async def test_what_another_task_tried_in_vain_is_tried_once_more_and_briefly(
    journal, nursery, autojump_clock
):
    class Slow(Nobody):
        async def delete_file(self, container_id, file_id, *, patience):
            patiences.append(patience)
            await trio.sleep(10)
            await super().delete_file(container_id, file_id, patience=patience)

    patiences: list[float] = []
    uploader = Uploader(client=Slow(), journal=journal, nursery=nursery)
    async with trio.open_nursery() as both:
        both.start_soon(uploader.delete, "c", "x")
        both.start_soon(uploader.delete, "c", "x")
    assert patiences == [math.inf, PUT_OFF_AFTER]
    patiences.clear()
    async with trio.open_nursery() as both:
        both.start_soon(partial(uploader.delete, "c", "x", patience=PUT_OFF_AFTER))
        await wait_all_tasks_blocked()
        both.start_soon(uploader.delete, "c", "x")
    assert patiences == [PUT_OFF_AFTER, math.inf]


async def test_what_was_put_off_for_who_waited_is_tried_again_soon(
    journal, nursery, autojump_clock
):
    client = Nobody(retriable=True)
    uploader = Uploader(client=client, journal=journal, nursery=nursery)
    nursery.start_soon(retrying(uploader, journal).run)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await uploader.delete("c", "x", patience=1.0)
    await trio.sleep(1.5 * DELETE_RETRY)
    assert [time - began for time in client.asked] == [0, DELETE_SOON, DELETE_SOON + DELETE_RETRY]


async def test_what_the_server_refuses_is_not_tried_again_soon(journal, nursery, autojump_clock):
    client = Nobody()
    uploader = Uploader(client=client, journal=journal, nursery=nursery)
    nursery.start_soon(retrying(uploader, journal).run)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await uploader.delete("c", "x", patience=1.0)
    await trio.sleep(1.5 * DELETE_RETRY)
    assert [time - began for time in client.asked] == [0, DELETE_RETRY]
