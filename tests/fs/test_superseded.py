"""What arrived of an upload whose answer was lost, and was written to since, does not stay.

On servers that drop directories it has nothing of the file but its base name, and an older content.
"""

import os

import pytest
import trio

from containerfs.errors import FileSystemError, Uncertain

LOST = {"kind": "reset-after", "operation": "create_file"}
BLIND = {"kind": "status", "status": 403, "operation": "list_files"}
STALL = {"kind": "stall", "operation": "list_files"}


@pytest.fixture(params=["keep", "flatten", "refuse"])
def slashes(service, request):
    service.set_behaviours(slashes=request.param)
    return request.param


async def make_files(tree, box, path, *, others):
    files = {"b": b"b", **dict.fromkeys(others, b"other")}
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    for name, data in files.items():
        await tree.write(f"{box.name}/{name}", data)
    await tree.write(f"{box.name}/{path}", b"old")
    await tree.refresh(box.name)
    return files


async def end(tree, box, how, path, files):
    """What is done to the file in the end; returns what is there then."""
    if how == "removed":
        await tree.unlink(f"{box.name}/{path}")
        return files
    if how == "replaced":
        await tree.rename(f"{box.name}/b", f"{box.name}/{path}")
        return {name: data for name, data in files.items() if name != "b"} | {path: b"b"}
    if how == "renamed":
        await tree.rename(f"{box.name}/{path}", f"{box.name}/b")
        return files | {"b": b"second"}
    return files | {path: b"second"}


async def check(service, tree, box, files):
    await tree.until(lambda: not tree.journal().entries and not tree.journal().deletions)
    for _ in range(2):
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
    assert sorted(data for _, data in service.truth(box)) == sorted(files.values())


@pytest.mark.usefixtures("slashes")
@pytest.mark.parametrize("how", ["sent", "removed", "replaced", "renamed"])
@pytest.mark.parametrize("others", [[], ["e/a"]])
@pytest.mark.parametrize("path", ["a", "d/a"])
async def test_it_is_known_after_a_crash(service, box, mounting, path, others, how):
    async with mounting() as tree:
        files = await make_files(tree, box, path, others=others)
        handle = await tree.open(f"{box.name}/{path}", os.O_RDWR)
        await handle.write(b"first")
        service.set_faults(LOST, STALL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.flush)
            await tree.until(lambda: service.fired(1))
            await handle.write(b"second")
            nursery.cancel_scope.cancel()
    service.set_faults()
    async with mounting(recover=how == "sent") as tree:
        files = await end(tree, box, how, path, files)
        await check(service, tree, box, files)


@pytest.mark.parametrize("is_remounted", [False, True])
@pytest.mark.parametrize("others", [[], ["e/a"]])
@pytest.mark.parametrize("path", ["a", "d/a"])
@pytest.mark.parametrize("slashes", ["flatten", "refuse"], indirect=True)
async def test_it_goes_when_the_file_is_sent(
    service, box, mounting, slashes, path, others, is_remounted
):
    async with mounting() as tree:
        files = await make_files(tree, box, path, others=others)
        handle = await tree.open(f"{box.name}/{path}", os.O_RDWR)
        await handle.write(b"first")
        service.set_faults(LOST, BLIND)
        with pytest.raises(FileSystemError):
            await handle.flush()
        await handle.write(b"second")
        service.set_faults()
        if not is_remounted:
            await handle.close()
            await check(service, tree, box, files | {path: b"second"})
    async with mounting(recover=True) as tree:
        await check(service, tree, box, files | {path: b"second"})


async def test_while_the_server_does_not_tell_it_may_still_have_arrived(service, box, tree):
    service.set_behaviours(slashes="flatten")
    files = await make_files(tree, box, "d/a", others=[])
    handle = await tree.open(f"{box.name}/d/a", os.O_RDWR)
    service.set_faults(LOST, BLIND)
    for content in (b"first", b"second", b"first again"):
        await handle.write(content)
        with pytest.raises(Uncertain):
            await handle.flush()
    service.set_faults()
    await handle.close()
    await check(service, tree, box, files | {"d/a": b"first again"})
