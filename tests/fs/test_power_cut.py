"""What a mount finds after a power cut: nobody's word counts but that of a sync, and the server's.

Here every byte is still there; that what is left may be older is `tests/faults/test_power_cut.py`.
"""

import os
import sqlite3
from contextlib import closing

import pytest
import trio

from containerfs.errors import FileSystemError

ASIDE = ".power-cut~"


@pytest.fixture
def boot_anew(tmp_path):
    """Lets the mounts so far be those of another boot: a test can't switch the machine off."""

    def boot_anew():
        with closing(sqlite3.connect(tmp_path / "machine" / "state.sqlite")) as connection:
            cursor = connection.execute("UPDATE boot SET id = 'the boot before'")
            assert cursor.rowcount == 1
            connection.commit()

    return boot_anew


def spools(tmp_path):
    return list((tmp_path / "machine" / "spool").iterdir())


async def half_written(tree, path, data):
    try:
        handle = await tree.open(path, os.O_WRONLY | os.O_TRUNC)
    except FileSystemError:
        handle = await tree.create(path)
    await handle.write(data)


async def cut_off(service, tree, path, data, *, arrives):
    """Write and close; the upload is cut off before it arrives, or before its answer does."""
    handle = await tree.open(path, os.O_WRONLY | os.O_TRUNC)
    await handle.write(data)
    lost = {"kind": "reset-after" if arrives else "stall", "operation": "create_file"}
    service.set_faults(lost, {"kind": "stall", "operation": "list_files"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.flush)
        await tree.until(lambda: service.fired(1 if arrives else 0))
        nursery.cancel_scope.cancel()
    service.set_faults()


async def test_what_was_not_synced_does_not_take_the_place_of_what_the_server_has(
    service, box, mounting, boot_anew
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        await half_written(tree, f"{box.name}/a", b"half")
    boot_anew()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"a": b"old", f"a{ASIDE}": b"half"}
        await tree.stop()
    async with mounting() as tree:
        assert await tree.all(box.name) == {"a": b"old", f"a{ASIDE}": b"half"}
    assert service.truth(box) == [("a", b"old")]


async def test_what_was_never_sent_is_shown_aside_each_time_under_another_name(
    service, box, mounting, boot_anew, tmp_path
):
    long = "x" * 255
    for content in (b"one", b"two"):
        async with mounting() as tree:
            await half_written(tree, f"{box.name}/{long}", content)
            await half_written(tree, f"{box.name}/empty", b"")
        boot_anew()
    async with mounting() as tree:
        shown = await tree.all(box.name)
        assert sorted(shown.values()) == [b"one", b"two"]
        assert all(len(name) == 255 and name.endswith(ASIDE) for name in shown)
        for name in shown:
            await tree.unlink(f"{box.name}/{name}")
    assert service.truth(box) == []
    assert spools(tmp_path) == []


@pytest.mark.parametrize("arrives", [False, True])
async def test_an_upload_that_was_cut_off_leaves_the_old_or_the_new_file_not_both(
    service, box, mounting, boot_anew, arrives, tmp_path
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        await cut_off(service, tree, f"{box.name}/a", b"new", arrives=arrives)
    boot_anew()
    aside = {} if arrives else {f"a{ASIDE}": b"new"}
    content = b"new" if arrives else b"old"
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"a": content, **aside}
        await tree.stop()
    assert service.truth(box) == [("a", content)]
    assert len(spools(tmp_path)) == len(aside)


@pytest.mark.parametrize("arrives", [False, True])
async def test_an_upload_that_was_cut_off_is_known_by_the_name_that_it_got(
    service, box, mounting, boot_anew, arrives
):
    service.set_behaviours(naming="plain", slashes="flatten", same_name="overwrite")
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"top")
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        await tree.write(f"{box.name}/e/c", b"so that it is known to be flat")
        await (await tree.create(f"{box.name}/d/a")).release()
        await cut_off(service, tree, f"{box.name}/d/a", b"new", arrives=arrives)
    boot_anew()
    async with mounting(recover=True) as tree:
        shown = await tree.all(box.name)
        assert sorted(shown.values()) == [b"new", b"so that it is known to be flat", b"top"]
        assert (f"d/a{ASIDE}" in shown) == (not arrives)


async def test_what_another_file_has_become_is_not_deleted_for_what_it_was(
    service, box, mounting, boot_anew
):
    service.set_behaviours(naming="plain", slashes="flatten", same_name="overwrite_keep_id")
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await tree.write(f"{box.name}/d/a", b"replaced")
        await tree.write(f"{box.name}/d/b", b"old")
        handle = await tree.open(f"{box.name}/d/b", os.O_RDWR)
        await handle.write(b"new")
        await tree.rename(f"{box.name}/d/b", f"{box.name}/d/a")
        await tree.write(f"{box.name}/a", b"another")
        service.set_faults(
            {"kind": "reset-after", "operation": "create_file"},
            {"kind": "stall", "operation": "list_files"},
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.flush)
            await tree.until(lambda: service.fired(1))
            nursery.cancel_scope.cancel()
        service.set_faults()
    boot_anew()
    async with mounting(recover=True) as tree:
        assert sorted((await tree.all(box.name)).values()) == [b"another", b"new"]
        assert tree.journal().deletions == []
    assert sorted(content for _, content in service.truth(box)) == [b"another", b"new"]


async def test_what_was_closed_with_write_back_is_sent(service, box, mounting, boot_anew):
    async with mounting(write_back=60.0) as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.rename(f"{box.name}/a", f"{box.name}/b")
    boot_anew()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"b": b"content"}
        await tree.until(lambda: service.truth(box) == [("b", b"content")])


@pytest.mark.parametrize("left", [None, b"", b"\0" * 7, b"cont"], ids=["gone", "empty", "0", "cut"])
async def test_a_small_file_that_was_closed_needs_no_spool(
    service, box, mounting, boot_anew, tmp_path, left
):
    async with mounting(write_back=60.0) as tree:
        await tree.write(f"{box.name}/a", b"content")
    (spool,) = spools(tmp_path)
    spool.unlink()
    if left is not None:
        spool.write_bytes(left)
    boot_anew()
    async with mounting(recover=True) as tree:
        await tree.until(lambda: service.truth(box) == [("a", b"content")])


async def test_a_file_that_grew_since_it_was_closed_is_the_one_that_was_closed_last(
    service, box, mounting, boot_anew
):
    large = bytes(100_000)
    async with mounting(write_back=60.0) as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.write(f"{box.name}/a", large)
    boot_anew()
    async with mounting(recover=True) as tree:
        await tree.until(lambda: service.truth(box) == [("a", large)])


async def test_without_a_power_cut_what_was_written_last_counts(service, box, mounting, tmp_path):
    async with mounting(write_back=60.0) as tree:
        await tree.write(f"{box.name}/a", b"content")
    (spool,) = spools(tmp_path)
    spool.write_bytes(b"written later")
    async with mounting(recover=True) as tree:
        await tree.until(lambda: service.truth(box) == [("a", b"written later")])


async def test_what_could_not_be_sent_is_sent(service, box, mounting, boot_anew):
    async with mounting() as tree:
        service.set_faults({"kind": "status", "operation": "create_file", "status": 403})
        with pytest.raises(FileSystemError):
            await tree.write(f"{box.name}/a", b"content")
    service.set_faults()
    boot_anew()
    async with mounting(recover=True) as tree:
        await tree.until(lambda: service.truth(box) == [("a", b"content")])


@pytest.mark.parametrize("is_by_model", [False, True])
async def test_a_file_of_that_name_in_another_directory_is_not_what_was_written(
    service, box, mounting, boot_anew, is_by_model
):
    if is_by_model:
        service.write(box, "/mnt/data/a", b"another")
    else:
        service.upload(box, "a", b"another")
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await half_written(tree, f"{box.name}/d/a", b"half")
    boot_anew()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"a": b"another", f"d/a{ASIDE}": b"half"}


async def test_what_stays_here_stays(service, box, mounting, boot_anew):
    async with mounting() as tree:
        await half_written(tree, f"{box.name}/.a.swp", b"content")
    boot_anew()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {".a.swp": b"content"}
    assert service.truth(box) == []


@pytest.mark.parametrize("is_synced", [False, True])
async def test_what_stays_here_and_is_gone_is_told_only_where_it_was_synced(
    service, box, mounting, boot_anew, tmp_path, caplog, is_synced
):
    async with mounting() as tree:
        handle = await tree.create(f"{box.name}/.a.swp")
        await handle.write(bytes(100_000))
        if is_synced:
            await handle.fsync()
    (spool,) = spools(tmp_path)
    spool.unlink()
    boot_anew()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {}
        assert [entry.path for entry in tree.journal().entries] == [".a.swp"] * is_synced
    assert ("the spool of '.a.swp' is lost" in caplog.text) == is_synced


async def test_while_the_server_can_not_be_asked_what_is_in_doubt_waits(
    service, box, mounting, boot_anew
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        await half_written(tree, f"{box.name}/a", b"half")
    boot_anew()
    service.set_faults({"kind": "status", "operation": "list_files", "status": 403})
    for _ in range(2):
        async with mounting(recover=True) as tree:
            assert tree.journal().entries == []
    service.set_faults()
    async with mounting() as tree:
        assert await tree.all(box.name) == {"a": b"old", f"a{ASIDE}": b"half"}


async def test_cached_content_that_was_not_synced_is_fetched_again(
    service, box, mounting, boot_anew
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/synced", b"one")
        await tree.mount.store.sync()
        await tree.write(f"{box.name}/unsynced", b"two")
    boot_anew()
    async with mounting() as tree:
        assert await tree.all(box.name) == {"synced": b"one", "unsynced": b"two"}
    (fetched,) = service.requests("content")
    assert id_of(service, box, "unsynced") in fetched["path"]


async def test_a_rename_that_was_cut_off_leaves_one_name_without_its_cached_content(
    service, box, mounting, boot_anew
):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        service.set_faults({"kind": "stall", "operation": "delete_file"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/b")
            await tree.until(lambda: service.fired(0))
            nursery.cancel_scope.cancel()
    service.set_faults()
    boot_anew()
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"a": b"content"}
    assert service.truth(box) == [("a", b"content")]


def id_of(service, box, name):
    (id,) = [file["id"] for file in service.files(box) if file["path"].endswith(f"-{name}")]
    return id
