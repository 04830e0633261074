"""Renames that failed, and may have arrived: what goes then is what was sent, and nothing else."""

import os
import sqlite3
from contextlib import closing, suppress

import pytest
import trio

from containerfs.errors import FileSystemError, NotEmpty

EXCHANGE = 2
BLIND = {"kind": "status", "status": 403, "operation": "list_files"}
LOST = {"kind": "reset-after", "operation": "create_file", "count": 1}
NEVER = {"kind": "reset", "operation": "create_file"}
REFUSING = """
CREATE TRIGGER refusing BEFORE UPDATE ON intents BEGIN SELECT RAISE(ABORT, 'refused'); END
"""


async def fail(service, rename, *faults):
    service.set_faults(*(faults or (LOST, BLIND)))
    with pytest.raises(FileSystemError) as raised:
        await rename
    assert "has arrived" in str(raised.value)
    service.set_faults()


async def test_what_has_the_name_in_another_directory_stays(service, box, mounting):
    service.write(box, "/mnt/data/x", b"same")
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await tree.write(f"{box.name}/d/x", b"same")
    async with mounting() as tree:
        assert await tree.names(box.name) == ["d", "x"]
        await tree.mkdir(f"{box.name}/e")
        await fail(service, tree.rename(f"{box.name}/d/x", f"{box.name}/e/x"), NEVER, BLIND)
        await tree.until(lambda: not tree.renames())
        assert service.truth(box) == [("d/x", b"same"), ("x", b"same")]


async def test_what_another_machine_renames_meanwhile_stays(service, box, mounting, tmp_path):
    async with mounting(tmp_path / "one") as one, mounting(tmp_path / "other") as other:
        await one.write(f"{box.name}/a", b"content")
        await other.refresh(box.name)
        await fail(service, one.rename(f"{box.name}/a", f"{box.name}/b"), NEVER, BLIND)
        await other.rename(f"{box.name}/a", f"{box.name}/b")
        await one.until(lambda: not one.renames())
        assert service.truth(box) == [("b", b"content")]


async def test_what_another_rename_has_just_sent_stays(service, box, tree):
    for name in ("a", "b"):
        await tree.write(f"{box.name}/{name}", b"same")
    slow = {"kind": "latency", "operation": "delete_file", "seconds": 4}
    async with trio.open_nursery() as nursery:
        service.set_faults(slow)
        nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/new")
        await tree.until(lambda: len(service.files(box)) == 3)
        await fail(service, tree.rename(f"{box.name}/b", f"{box.name}/new"), slow, LOST, BLIND)
    await tree.until(lambda: not tree.renames())
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"b": b"same", "new": b"same"}
    assert service.truth(box) == [("b", b"same"), ("new", b"same")]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("same_name", ["add", "overwrite", "overwrite_keep_id"])
async def test_both_contents_of_an_exchange_are_left(service, box, tree, same_name, count):
    service.set_behaviours(same_name=same_name)
    await tree.write(f"{box.name}/a", b"content of a")
    await tree.write(f"{box.name}/b", b"that of b")
    exchange = tree.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE)
    await fail(service, exchange, {**LOST, "count": count}, BLIND)
    await tree.until(lambda: not tree.renames())
    await tree.until(lambda: not tree.journal().entries)
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"content of a", "b": b"that of b"}
    assert service.truth(box) == [("a", b"content of a"), ("b", b"that of b")]


async def test_a_container_with_what_is_hidden_is_not_removed(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    await fail(service, tree.rename(f"{box.name}/a", f"{box.name}/b"), NEVER, BLIND)
    service.upload(box, "b", b"CONTENT")
    await tree.unlink(f"{box.name}/a")
    with pytest.raises(NotEmpty):
        await tree.rmdir(box.name)
    assert service.truth(box) == [("b", b"CONTENT")]


async def test_what_was_seen_while_it_was_sent_is_hidden_too(service, box, mounting):
    async with mounting(ttl=0) as tree:
        await tree.write(f"{box.name}/a", b"content")
        stall = {"kind": "stall-body", "operation": "create_file", "seconds": 60}
        service.set_faults(stall)
        async with trio.open_nursery() as nursery:

            async def rename():
                with pytest.raises(FileSystemError):
                    await tree.rename(f"{box.name}/a", f"{box.name}/b")

            nursery.start_soon(rename)
            await tree.until(lambda: len(service.files(box)) == 2)
            assert await tree.names(box.name) == ["a", "b"]
            service.set_faults(BLIND)
        service.set_faults({"kind": "status", "status": 403, "operation": "content"})
        assert await tree.names(box.name) == ["a"]
        service.set_faults()
        await tree.until(lambda: not tree.renames())
        assert await tree.all(box.name) == {"a": b"content"}


async def test_an_upload_that_may_have_arrived_is_still_looked_for(service, box, tree):
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    await tree.write(f"{box.name}/a", b"another")
    service.set_faults(LOST, BLIND)
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/d/x", b"content")
    await fail(service, tree.rename(f"{box.name}/a", f"{box.name}/e/x"))
    service.set_faults(BLIND)
    handle = await tree.open(f"{box.name}/d/x", os.O_WRONLY)
    with pytest.raises(FileSystemError):
        await handle.fsync()
    service.set_faults()
    await handle.fsync()
    await handle.close()
    await tree.until(lambda: not tree.renames())
    assert service.truth(box) == [("a", b"another"), ("d/x", b"content")]


async def test_what_a_container_that_expired_had_stays_where_it_arrived(service, new_box, tree):
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.write(f"{one.name}/a", b"content")
    await tree.names(two.name)
    service.set_faults(LOST, BLIND)
    with pytest.raises(FileSystemError):
        await tree.rename(f"{one.name}/a", f"{two.name}/b")
    service.expire(one)
    service.set_faults()
    await tree.until(lambda: not tree.renames())
    assert service.truth(two) == [("b", b"content")]


async def test_all_is_taken_back_though_it_can_not_be_recorded_what_is_doubtful(
    service, box, tree, tmp_path
):
    files = {f"d/{name}": name.encode() for name in "abcd"}
    await tree.mkdir(f"{box.name}/d")
    for path, content in files.items():
        await tree.write(f"{box.name}/{path}", content)
    with closing(sqlite3.connect(tmp_path / "machine/state.sqlite", isolation_level=None)) as other:
        other.execute(REFUSING)
        lost = {**LOST, "after": 2}
        await fail(service, tree.rename(f"{box.name}/d", f"{box.name}/e"), lost, BLIND)
        other.execute("DROP TRIGGER refusing")
    await tree.refresh(box.name)
    assert await tree.all(box.name) == files
    await tree.until(lambda: not tree.renames())
    assert service.truth(box) == sorted(files.items())


async def test_who_waits_for_one_name_keeps_nobody_from_another(service, box, tree):
    await tree.mkdir(f"{box.name}/d")
    for name in ("one", "two"):
        await tree.write(f"{box.name}/d/{name}", b"content")
    lost = {**LOST, "count": None}
    await fail(service, tree.rename(f"{box.name}/d", f"{box.name}/e"), lost, BLIND)
    done = []

    async def write(name):
        with suppress(FileSystemError):
            await tree.write(f"{box.name}/{name}", b"another")
        done.append(name)

    service.set_faults({"kind": "stall", "operation": "list_files", "count": 1})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "one")
        await tree.until(lambda: service.fired(0))
        await write("two")
    assert done == ["two", "one"]


async def test_a_mount_begins_before_the_server_has_told(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await fail(service, tree.rename(f"{box.name}/a", f"{box.name}/b"))
    service.set_faults(BLIND)
    service.forget_requests()
    async with mounting() as tree:
        assert service.requests("list_files") == []
        service.set_faults()
        await tree.until(lambda: not tree.renames())
        assert await tree.all(box.name) == {"a": b"content"}


async def test_what_nobody_may_read_stays_and_keeps_nobody_from_the_name(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    await fail(service, tree.rename(f"{box.name}/a", f"{box.name}/b"))
    service.set_faults({"kind": "status", "status": 403, "operation": "content"})
    await tree.unlink(f"{box.name}/a")
    service.set_faults()
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"b": b"content"}
    await tree.write(f"{box.name}/b", b"another")
    assert service.truth(box) == [("b", b"another")]
