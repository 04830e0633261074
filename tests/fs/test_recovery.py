"""What a mount finds that follows one which was killed: every byte, and each file once."""

import os
import shutil

import pytest
import trio

from containerfs.accounts import Account
from containerfs.discarding import discard
from containerfs.errors import Expired, FileSystemError, LocalFault, NoSpace

LOST = {"kind": "reset-after", "operation": "create_file"}


def refusing(operation: str, *, status: int = 403, **members):
    return {"kind": "status", "operation": operation, "status": status, **members}


async def all_sent(tree) -> None:
    await tree.until(lambda: not tree.journal().entries and not tree.journal().deletions)


async def killed_while_dirty(tree, path: str, data: bytes) -> None:
    """Write and be killed before the close; the tree is of no use afterwards."""
    try:
        handle = await tree.open(path, os.O_WRONLY | os.O_TRUNC)
    except FileSystemError:
        handle = await tree.create(path)
    await handle.write(data)


async def killed_while_sending(service, tree, path: str, data: bytes, *, arrives: bool) -> None:
    """Write, close, and be killed while the upload is under way: before or after it arrived."""
    handle = await tree.open(path, os.O_WRONLY | os.O_TRUNC)
    await handle.write(data)
    fault = {**LOST} if arrives else {"kind": "stall", "operation": "create_file"}
    service.set_faults(fault, {"kind": "stall", "operation": "list_files"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.flush)
        await tree.until(lambda: service.fired(1 if arrives else 0))
        nursery.cancel_scope.cancel()
    service.set_faults()
    (entry,) = tree.journal().entries
    assert entry.state == "sending"


@pytest.mark.parametrize("has_old", [False, True])
async def test_a_file_that_was_never_closed_is_sent_by_the_next_mount(
    service, box, mounting, has_old
):
    async with mounting() as tree:
        if has_old:
            await tree.write(f"{box.name}/a", b"old")
        await killed_while_dirty(tree, f"{box.name}/a", b"new")
    async with mounting() as tree:
        assert await tree.all(box.name) == {"a": b"new"}  # visible before it is sent
        assert service.truth(box) == ([("a", b"old")] if has_old else [])
    async with mounting(recover=True) as tree:
        await all_sent(tree)
        assert service.truth(box) == [("a", b"new")]
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"new"}


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("has_old", [False, True])
async def test_a_file_whose_upload_was_under_way_is_on_the_server_once(
    service, box, mounting, arrives, has_old
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/other", b"new")  # the same bytes elsewhere
        if has_old:
            await tree.write(f"{box.name}/a", b"old")
        else:
            await (await tree.create(f"{box.name}/a")).release()
        await killed_while_sending(service, tree, f"{box.name}/a", b"new", arrives=arrives)
    service.forget_requests()
    async with mounting(recover=True) as tree:
        await all_sent(tree)
        assert service.truth(box) == [("a", b"new"), ("other", b"new")]
        assert len(service.requests("create_file")) == (0 if arrives else 1)
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"new", "other": b"new"}


@pytest.mark.parametrize("slashes", ["keep", "flatten"])
async def test_a_copy_that_was_being_sent_is_not_taken_for_its_original(
    service, box, mounting, slashes
):
    service.set_behaviours(slashes=slashes)
    service.upload(box, "a", b"content")
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await (await tree.create(f"{box.name}/d/a")).release()
        await killed_while_sending(service, tree, f"{box.name}/d/a", b"content", arrives=False)
    async with mounting(recover=True) as tree:
        await all_sent(tree)
        assert await tree.all(box.name) == {"a": b"content", "d/a": b"content"}
        await tree.unlink(f"{box.name}/d/a")
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"content"}
        assert service.truth(box) == [("a", b"content")]


async def test_what_was_written_after_the_crash_is_what_counts(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        await killed_while_sending(service, tree, f"{box.name}/a", b"new", arrives=True)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"newest")
        await tree.refresh(box.name)
        assert await tree.read(f"{box.name}/a") == b"newest"
        assert ("a", b"newest") in service.truth(box)
        assert ("a", b"old") not in service.truth(box)


@pytest.mark.parametrize("naming", ["hash", "plain"])
@pytest.mark.parametrize("slashes", ["keep", "flatten", "refuse"])
async def test_what_was_written_to_while_it_was_sent_leaves_nothing_behind(
    service, box, mounting, slashes, naming
):
    service.set_behaviours(slashes=slashes, naming=naming)
    async with mounting() as tree:
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
            await tree.write(f"{box.name}/{name}/a", b"old")
        handle = await tree.open(f"{box.name}/e/a", os.O_RDWR)
        await handle.write(b"first")
        service.set_faults(LOST, {"kind": "stall", "operation": "list_files"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.flush)
            await tree.until(lambda: service.fired(1))
            await handle.write(b"second")
            nursery.cancel_scope.cancel()
        service.set_faults()
    async with mounting() as tree:
        assert await tree.all(box.name) == {"d/a": b"old", "e/a": b"second"}
        await tree.unlink(f"{box.name}/e/a")
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"d/a": b"old"}
    assert [content for _, content in service.truth(box)] == [b"old"]


@pytest.mark.parametrize("slashes", ["keep", "flatten", "refuse"])
async def test_equal_files_in_directories_are_recovered_each(service, box, mounting, slashes):
    service.set_behaviours(slashes=slashes)
    files = {f"d{number}/same": b"same" for number in range(4)}
    async with mounting() as tree:
        for number in range(4):
            await tree.mkdir(f"{box.name}/d{number}")
            await killed_while_dirty(tree, f"{box.name}/d{number}/same", b"same")
    async with mounting(recover=True) as tree:
        await all_sent(tree)
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
        assert len(service.truth(box)) == 4


async def test_temporary_files_are_kept_and_not_sent(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/.a.swp", b"temporary")
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {".a.swp": b"temporary"}
        await tree.stop()
    assert service.truth(box) == []


async def test_a_rename_before_the_crash_holds(service, box, mounting):
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await killed_while_dirty(tree, f"{box.name}/d/a", b"content")
        await tree.rename(f"{box.name}/d", f"{box.name}/e")
        await tree.rename(f"{box.name}/e/a", f"{box.name}/e/b")
    async with mounting(recover=True) as tree:
        await all_sent(tree)
        assert await tree.all(box.name) == {"e/b": b"content"}
        assert service.truth(box) == [("e/b", b"content")]


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_rename_that_was_cut_off_is_over_and_touches_nobody_elses_file(
    service, box, mounting, arrives
):
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await tree.write(f"{box.name}/d/same", b"same")
        fault = LOST if arrives else {"kind": "stall", "operation": "create_file"}
        service.set_faults(fault, {"kind": "stall", "operation": "list_files"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.rename, f"{box.name}/d/same", f"{box.name}/d/other")
            await tree.until(lambda: service.fired(1 if arrives else 0))
            nursery.cancel_scope.cancel()
        service.set_faults()
    for name in ("e/other", "xother", "other"):
        service.upload(box, name, b"same")
    expected = dict.fromkeys(("d/same", "e/other", "other", "xother"), b"same")
    async with mounting(recover=True) as tree:
        await tree.until(lambda: len(service.files(box)) == len(expected))
        await tree.refresh(box.name)
        assert await tree.all(box.name) == expected
        assert dict(service.truth(box)) == expected
        await tree.stop()
    assert dict(service.truth(box)) == expected


async def test_a_rename_that_was_cut_off_is_over_where_its_name_was_taken(service, box, mounting):
    service.set_behaviours(naming="plain", slashes="flatten", same_name="overwrite")
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"top")
        await tree.write(f"{box.name}/b", b"content")
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        await tree.write(f"{box.name}/e/c", b"so that it is known to be flat")
        service.set_faults({**LOST}, {"kind": "stall", "operation": "list_files"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.rename, f"{box.name}/b", f"{box.name}/d/a")
            await tree.until(lambda: service.fired(1))
            nursery.cancel_scope.cancel()
        service.set_faults()
        assert len(service.files(box)) == 4
    async with mounting(recover=True) as tree:
        await tree.until(lambda: len(service.files(box)) == 3)
        assert (await tree.all(box.name)).keys() == {"a", "b", "e/c"}


async def test_a_removal_before_the_crash_holds(service, box, mounting, tmp_path):
    async with mounting() as tree:
        await killed_while_dirty(tree, f"{box.name}/a", b"content")
        await tree.unlink(f"{box.name}/a")
    async with mounting(recover=True) as tree:
        assert await tree.names(box.name) == []
        assert tree.journal().entries == []
        assert list((tmp_path / "machine" / "spool").iterdir()) == []


async def test_a_server_that_is_away_at_first_gets_everything_later(service, box, mounting):
    async with mounting() as tree:
        await tree.names(box.name)
        await killed_while_dirty(tree, f"{box.name}/a", b"content")
    service.set_faults(refusing("create_file", count=1))
    async with mounting(recover=True) as tree:
        await tree.until(lambda: service.requests("create_file"))
        service.set_faults()
        await tree.stop()
    assert service.truth(box) == [("a", b"content")]


async def test_a_clean_stop_sends_what_is_open(service, box, mounting):
    async with mounting() as tree:
        await killed_while_dirty(tree, f"{box.name}/a", b"content")
        await tree.stop()
    assert service.truth(box) == [("a", b"content")]


# What only this machine knows.


async def test_local_things_survive_a_remount(service, box, mounting):
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/empty")
        await tree.write(f"{box.name}/a", b"content")
        ino = (await tree.node(f"{box.name}/a")).ino
    async with mounting() as tree:
        assert await tree.names(box.name) == ["a", "empty"]
        assert (await tree.node(f"{box.name}/a")).ino == ino


async def test_containers_keep_their_names_when_a_newer_one_takes_them(service, mounting, new_box):
    box = new_box("twin")
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"first")
    second = service.new_container(box.name)
    service.write(second, "/mnt/data/b", b"second")
    async with mounting() as tree:
        names = [name for name in await tree.names("") if name.startswith(box.name)]
        assert names == [box.name, f"{box.name}~{second[-8:]}"]
        assert await tree.all(names[0]) == {"a": b"first"}
        assert await tree.all(names[1]) == {"b": b"second"}


# Expiry.


async def test_an_expired_container_stays_as_a_snapshot(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/cached", b"cached")
        service.write(box, "/mnt/data/uncached", b"uncached")
        await tree.refresh(box.name)
        await killed_while_dirty(tree, f"{box.name}/unsent", b"unsent")
        service.expire(box)
        await tree.refresh(box.name)
        assert await tree.names(box.name) == ["cached", "uncached", "unsent"]
        assert await tree.read(f"{box.name}/cached") == b"cached"
        assert await tree.read(f"{box.name}/unsent") == b"unsent"
        with pytest.raises(Expired):
            await tree.read(f"{box.name}/uncached")
        for change in (
            tree.write(f"{box.name}/cached", b"x"),
            tree.create(f"{box.name}/new"),
            tree.mkdir(f"{box.name}/d"),
            tree.rename(f"{box.name}/cached", f"{box.name}/x"),
        ):
            with pytest.raises(FileSystemError):
                await change
        assert await tree.read(f"{box.name}/cached") == b"cached"
        await tree.stop()
    async with mounting(recover=True) as tree:  # what was unsent is still shown
        assert await tree.read(f"{box.name}/unsent") == b"unsent"


async def test_a_container_that_is_deleted_elsewhere_keeps_what_is_unsent(service, box, mounting):
    async with mounting() as tree:
        await tree.names(box.name)
        await killed_while_dirty(tree, f"{box.name}/unsent", b"unsent")
        service.call("DELETE", f"/v1/containers/{box}")
        await tree.refresh()
        assert await tree.read(f"{box.name}/unsent") == b"unsent"
    async with mounting(recover=True) as tree:
        assert await tree.read(f"{box.name}/unsent") == b"unsent"


# A machine that fails.


async def test_a_lost_cache_is_only_a_cache(service, box, mounting, tmp_path):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
    shutil.rmtree(tmp_path / "machine" / "content")
    async with mounting() as tree:
        assert await tree.all(box.name) == {"a": b"content"}


async def test_a_spool_that_is_lost_is_told_and_does_not_stop_the_mount(
    service, box, mounting, tmp_path, caplog
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        await killed_while_dirty(tree, f"{box.name}/a", b"new")
    for spool in (tmp_path / "machine" / "spool").iterdir():
        spool.unlink()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"a": b"old"}
        assert "lost" in caplog.text
        caplog.clear()
    async with mounting(recover=True) as tree:
        await tree.write(f"{box.name}/a", b"anew")
        assert await tree.all(box.name) == {"a": b"anew"}
        assert "lost" not in caplog.text, "it is told once"
    (left,) = tree.journal().entries
    assert "not here any more" in left.error
    account = Account(directory=tmp_path / "machine", mountpoint="/nowhere", source="openai:")
    assert discard(account) == 1
    async with mounting() as tree:
        assert tree.journal().entries == []
        assert await tree.all(box.name) == {"a": b"anew"}


async def test_the_spool_directory_is_needed_to_write(service, box, mounting, tmp_path):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        shutil.rmtree(tmp_path / "machine" / "spool")
        with pytest.raises((LocalFault, NoSpace)):
            await tree.write(f"{box.name}/a", b"new")
        with pytest.raises((LocalFault, NoSpace)):
            await tree.create(f"{box.name}/b")
        assert await tree.all(box.name) == {"a": b"old"}
        assert tree.journal().entries == []
