"""An upload whose answer was lost is known by its name and content; what was there is not it."""

import os

import pytest
import trio

from containerfs.errors import FileSystemError

BLIND = {"kind": "status", "status": 403, "operation": "list_files"}
NEVER = {"kind": "reset", "operation": "create_file"}


async def make_older(service, box, tree, slashes):
    """A file that was listed, and a directory for another one of its name."""
    service.set_behaviours(slashes=slashes)
    service.write(box, "/mnt/data/x", b"same")
    assert await tree.names(box.name) == ["x"]
    await tree.mkdir(f"{box.name}/d")


@pytest.mark.parametrize("slashes", ["keep", "flatten"])
async def test_an_older_file_of_that_name_is_not_taken_for_what_was_sent(
    service, box, tree, slashes
):
    await make_older(service, box, tree, slashes)
    service.set_faults({**NEVER, "count": 1})
    await tree.write(f"{box.name}/d/x", b"same")
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"d/x": b"same", "x": b"same"}
    await tree.unlink(f"{box.name}/d/x")
    assert service.truth(box) == [("x", b"same")]


@pytest.mark.parametrize("slashes", ["keep", "flatten"])
async def test_an_older_file_of_that_name_stays_when_what_was_sent_is_removed(
    service, box, tree, slashes
):
    await make_older(service, box, tree, slashes)
    service.set_faults(NEVER, BLIND)
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/d/x", b"same")
    service.set_faults()
    await tree.unlink(f"{box.name}/d/x")
    assert service.truth(box) == [("x", b"same")]


@pytest.mark.parametrize("slashes", ["keep", "flatten"])
async def test_an_older_file_stays_when_it_is_sent_again(service, box, tree, slashes):
    await make_older(service, box, tree, slashes)
    service.set_faults(NEVER, BLIND)
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/d/x", b"same")
    service.set_faults()
    handle = await tree.open(f"{box.name}/d/x", os.O_WRONLY)
    await handle.fsync()
    await handle.close()
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"d/x": b"same", "x": b"same"}


@pytest.mark.parametrize("is_removed", [True, False])
async def test_after_a_crash_a_file_of_another_directory_is_not_taken_for_it(
    service, box, mounting, is_removed
):
    service.write(box, "/mnt/data/x", b"same")
    files = {"d/x": b"same", "d/y": b"beside it", "x": b"same"}
    async with mounting() as tree:
        assert await tree.names(box.name) == ["x"]
        await tree.mkdir(f"{box.name}/d")
        await tree.write(f"{box.name}/d/y", b"beside it")
        service.set_faults(NEVER, BLIND)
        with pytest.raises(FileSystemError):
            await tree.write(f"{box.name}/d/x", b"same")
    service.set_faults()
    async with mounting(recover=not is_removed) as tree:
        if is_removed:
            await tree.unlink(f"{box.name}/d/x")
            del files["d/x"]
        await tree.until(lambda: not tree.journal().entries)
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
        assert service.truth(box) == sorted(files.items())


async def test_what_is_being_sent_is_not_taken_for_what_was_lost(service, box, tree):
    service.set_behaviours(slashes="flatten")
    await tree.names(box.name)
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    service.set_faults(NEVER, BLIND)
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/d/x", b"same")
    late = {"kind": "stall-body", "operation": "create_file", "seconds": 1}
    service.set_faults(late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.write, f"{box.name}/e/x", b"same")
        await tree.until(lambda: service.files(box))
        await tree.unlink(f"{box.name}/d/x")
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"e/x": b"same"}
    assert service.truth(box) == [("x", b"same")]
