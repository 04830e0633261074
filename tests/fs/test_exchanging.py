"""Exchanges of names that a crash has cut off, or that failed, where servers may overwrite."""

import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
import trio

from containerfs.errors import FileSystemError

EXCHANGE = 2
PARALLEL = 16  # files of a directory that are on their way at once
LOST = {"kind": "reset-after", "operation": "create_file"}
STALL = {"kind": "stall"}
SILENT = {
    "kind": "status",
    "operation": "list_files",
    "status": 500,
    "header": "x-should-retry",
    "value": "false",
}


async def cut_off(service, tree, one, other, *, arrive):
    """Exchange them, and end when so many of what is sent have arrived, the rest has not."""
    service.set_faults(
        {**LOST, "count": arrive},
        {**STALL, "operation": "create_file"},
        {**STALL, "operation": "list_files"},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, one, other, EXCHANGE)
        await tree.until(lambda: service.fired(0) == arrive and service.fired(2))
        nursery.cancel_scope.cancel()
    service.set_faults()


@pytest.mark.parametrize("arrive", [1, 2])
@pytest.mark.parametrize("same_name", ["add", "overwrite", "overwrite_keep_id"])
async def test_what_was_being_exchanged_is_all_there(service, box, mounting, same_name, arrive):
    service.set_behaviours(naming="plain", same_name=same_name)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"one")
        await tree.write(f"{box.name}/b", b"other")
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrive=arrive)
    async with mounting(recover=True) as tree:
        await tree.until(lambda: not tree.journal().entries and not tree.journal().deletions)
        for _ in range(2):
            await tree.refresh(box.name)
            assert await tree.all(box.name) == {"a": b"one", "b": b"other"}
    assert service.truth(box) == [("a", b"one"), ("b", b"other")]


@pytest.fixture
def power_cut(tmp_path):
    """Lets the machine have booted anew, without what nobody has synced."""

    def power_cut():
        with closing(sqlite3.connect(tmp_path / "machine/state.sqlite")) as connection:
            assert connection.execute("UPDATE boot SET id = 'the boot before'").rowcount == 1
            connection.commit()
        shutil.rmtree(tmp_path / "machine/content")

    return power_cut


async def check(tree, service, box, files):
    await tree.until(lambda: not tree.journal().entries and not tree.journal().deletions)
    await tree.until(lambda: not tree.renames())
    for _ in range(2):
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
    assert Counter(data for _, data in service.truth(box)) == Counter(files.values())


@pytest.mark.parametrize("arrive", [1, 2, 3, 4])
@pytest.mark.parametrize("slashes", ["keep", "flatten"])
@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_so_it_is_with_directories(service, box, mounting, same_name, slashes, arrive):
    service.set_behaviours(naming="plain", slashes=slashes, same_name=same_name)
    files = {path: f"at {path}".encode() for path in ("d/a", "d/s/a", "e/a", "e/b")}
    async with mounting() as tree:
        for name in ("d", "d/s", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        for path, data in files.items():
            await tree.write(f"{box.name}/{path}", data)
        await cut_off(service, tree, f"{box.name}/d", f"{box.name}/e", arrive=arrive)
    async with mounting(recover=True) as tree:
        await check(tree, service, box, files)


@pytest.mark.parametrize("is_sent", [True, False])
@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_it_is_there_after_a_power_cut(service, box, mounting, power_cut, same_name, is_sent):
    service.set_behaviours(naming="plain", same_name=same_name)
    files = {"a": b"one", "b": b"other"}
    async with mounting() as tree:
        for name, data in files.items():
            await tree.write(f"{box.name}/{name}", data)
        if not is_sent:
            handle = await tree.open(f"{box.name}/a", os.O_WRONLY | os.O_APPEND)
            await handle.write(b", longer", 3)
            files["a"] += b", longer"
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrive=1)
    power_cut()
    async with mounting(recover=True) as tree:
        await check(tree, service, box, files)


@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_what_was_to_get_a_temporary_name_is_there_after_a_power_cut(
    service, box, mounting, power_cut, same_name
):
    service.set_behaviours(naming="plain", same_name=same_name)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"one")
        await tree.write(f"{box.name}/b~", b"other")
        await (await tree.open(f"{box.name}/b~")).fsync()
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b~", arrive=1)
    power_cut()
    async with mounting(recover=True) as tree:
        await tree.until(lambda: [each.held for each in tree.journal().entries] == [True])
        for _ in range(2):
            await tree.refresh(box.name)
            assert await tree.all(box.name) == {"a": b"one", "b~": b"other"}
    assert service.truth(box) == [("a", b"one")]


@pytest.mark.parametrize("same_name", ["add", "overwrite", "overwrite_keep_id"])
async def test_it_is_shown_while_the_server_is_silent(service, box, mounting, same_name):
    service.set_behaviours(naming="plain", same_name=same_name)
    files = {"a": b"one", "b": b"other"}
    async with mounting() as tree:
        for name, data in files.items():
            await tree.write(f"{box.name}/{name}", data)
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrive=1)
    service.set_faults(SILENT, {**SILENT, "operation": "retrieve_file"})
    async with mounting(recover=True) as tree:
        service.set_faults()
        assert await tree.all(box.name) == files
        await check(tree, service, box, files)


async def test_what_another_machine_has_made_of_it_since_stays(service, box, mounting, tmp_path):
    service.set_behaviours(naming="plain")
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"one")
        await tree.write(f"{box.name}/b", b"other")
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrive=1)
    async with mounting(tmp_path / "other") as tree:
        for name in ("a", "b"):
            await tree.write(f"{box.name}/{name}", b"newer " + name.encode())
    async with mounting(recover=True) as tree:
        await check(tree, service, box, {"a": b"newer a", "b": b"newer b"})


async def test_what_is_written_meanwhile_is_not_sent_in_the_place_of_what_was_copied(
    service, box, mounting
):
    service.set_behaviours(naming="plain", same_name="overwrite")
    files = {f"{above}/{number}": b"?" for above in "de" for number in range(PARALLEL // 2 + 1)}
    async with mounting() as tree:
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        for path in files:
            await tree.write(f"{box.name}/{path}", path.encode())
        handles = {path: await tree.open(f"{box.name}/{path}", os.O_WRONLY) for path in files}
        service.set_faults(
            {"kind": "latency", "seconds": 1, "operation": "create_file", "count": PARALLEL},
            {**LOST, "after": PARALLEL},
            {**STALL, "operation": "list_files"},
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.rename, f"{box.name}/d", f"{box.name}/e", EXCHANGE)
            await tree.until(lambda: service.fired(0) == PARALLEL)
            for path, handle in handles.items():
                files[path] = path.upper().encode()
                await handle.write(files[path])
            await tree.until(lambda: service.fired(2))
            nursery.cancel_scope.cancel()
    service.set_faults()
    async with mounting(recover=True) as tree:
        await check(tree, service, box, files)


# They fail.

REFUSED = {"kind": "status", "status": 403, "operation": "create_file", "count": 1}


@pytest.mark.parametrize("arrive", [0, 1, 2, 3])
@pytest.mark.parametrize("slashes", ["keep", "flatten"])
@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_directories_are_as_they_were_after_a_failure(
    service, box, tree, same_name, slashes, arrive
):
    service.set_behaviours(naming="plain", slashes=slashes, same_name=same_name)
    files = {path: f"at {path}".encode() for path in ("d/a", "d/s/a", "e/a", "e/b")}
    for name in ("d", "d/s", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    for path, data in files.items():
        await tree.write(f"{box.name}/{path}", data)
    service.set_faults({**REFUSED, "after": arrive})
    with pytest.raises(FileSystemError):
        await tree.rename(f"{box.name}/d", f"{box.name}/e", EXCHANGE)
    service.set_faults()
    await check(tree, service, box, files)


@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_what_was_overwritten_before_the_failure_is_there_after_a_power_cut(
    service, box, mounting, power_cut, same_name
):
    service.set_behaviours(naming="plain", same_name=same_name)
    files = {"a": b"one", "b": b"other"}
    async with mounting() as tree:
        for name, data in files.items():
            await tree.write(f"{box.name}/{name}", data)
        service.set_faults(
            {"kind": "latency", "operation": "create_file", "after": 1, "count": 1, "seconds": 0.5},
            {**REFUSED, "after": 1},
            {**STALL, "operation": "create_file", "after": 1},
        )
        with pytest.raises(FileSystemError):
            await tree.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE)
    service.set_faults()
    power_cut()
    async with mounting(recover=True) as tree:
        await check(tree, service, box, files)


async def test_what_was_to_get_a_temporary_name_is_sent_after_a_failure(service, box, tree):
    await tree.write(f"{box.name}/a", b"one")
    await tree.write(f"{box.name}/b~", b"other")
    service.set_faults(REFUSED)
    with pytest.raises(FileSystemError):
        await tree.rename(f"{box.name}/a", f"{box.name}/b~", EXCHANGE)
    await tree.until(lambda: [each.held for each in tree.journal().entries] == [True])
    assert await tree.all(box.name) == {"a": b"one", "b~": b"other"}
