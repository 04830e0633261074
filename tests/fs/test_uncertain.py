"""Renames that failed, and may have arrived: what goes then is what was sent, and nothing else."""

import os

import pytest
import trio

from containerfs.errors import FileSystemError, NotEmpty

EXCHANGE = 2
BLIND = {"kind": "status", "status": 403, "operation": "list_files"}
LOST = {"kind": "reset-after", "operation": "create_file", "count": 1}
NEVER = {"kind": "reset", "operation": "create_file"}


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
        await fail(service, tree.rename(f"{box.name}/b", f"{box.name}/new"))
    await tree.until(lambda: not tree.renames())
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"b": b"same", "new": b"same"}
    assert service.truth(box) == [("b", b"same"), ("new", b"same")]


@pytest.mark.parametrize("same_name", ["add", "overwrite", "overwrite_keep_id"])
async def test_both_contents_of_an_exchange_are_left(service, box, tree, same_name):
    service.set_behaviours(same_name=same_name)
    await tree.write(f"{box.name}/a", b"content of a")
    await tree.write(f"{box.name}/b", b"that of b")
    await fail(service, tree.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE))
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
