"""Renames that a crash has cut off: what goes then is what was sent, and nothing else."""

from contextlib import suppress

import pytest
import trio

from containerfs.errors import FileSystemError

LOST = {"kind": "reset-after", "operation": "create_file"}
STALL = {"kind": "stall"}


async def cut_off(service, tree, old, new, *, arrives):
    """`mv old new`, and the end of the process while the new object is sent: there, or not."""
    never = {**STALL, "operation": "create_file"}
    service.set_faults(LOST if arrives else never, {**STALL, "operation": "list_files"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, old, new)
        await tree.until(lambda: service.fired(1 if arrives else 0))
        nursery.cancel_scope.cancel()
    service.set_faults()


@pytest.mark.parametrize(
    ("slashes", "naming", "other"),
    [("flatten", "hash", "d/x"), ("flatten", "plain", "d/x"), ("keep", "plain", "x")],
)
async def test_a_copy_that_was_written_before_is_not_taken_for_what_was_sent(
    service, box, mounting, slashes, naming, other
):
    service.set_behaviours(slashes=slashes, naming=naming)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"same")
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        await tree.write(f"{box.name}/{other}", b"same")  # it is in no listing yet
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/e/x", arrives=False)
    async with mounting(recover=True) as tree:
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"same", other: b"same"}
        assert len(service.truth(box)) == 2


@pytest.mark.parametrize("is_listed", [False, True])
@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_what_has_overwritten_its_target_stays(service, box, mounting, same_name, is_listed):
    service.set_behaviours(naming="plain", same_name=same_name)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.write(f"{box.name}/b", b"another")
        if is_listed:
            await tree.refresh(box.name)
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrives=True)
    async with mounting(recover=True) as tree:
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"content", "b": b"content"}


@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
async def test_what_has_overwritten_its_target_has_its_directory(service, box, mounting, same_name):
    service.set_behaviours(naming="plain", slashes="flatten", same_name=same_name)
    async with mounting() as tree:
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        await tree.write(f"{box.name}/d/a", b"content")
        await tree.write(f"{box.name}/e/b", b"another")
        await cut_off(service, tree, f"{box.name}/d/a", f"{box.name}/e/b", arrives=True)
    async with mounting(recover=True) as tree:
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"d/a": b"content", "e/b": b"content"}


async def test_what_the_model_calls_like_an_upload_tells_nothing_of_the_server(
    service, box, mounting
):
    service.set_behaviours(slashes="flatten")
    service.write(box, f"/mnt/data/d/{32 * '0'}-y", b"by the model")
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.mkdir(f"{box.name}/e")
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/e/x", arrives=True)
    async with mounting(recover=True) as tree:
        await tree.refresh(box.name)
        assert (await tree.all(box.name)).keys() == {"a", f"d/{32 * '0'}-y"}
        assert len(service.files(box)) == 2


# What is renamed over has content that is not sent yet.


async def test_what_was_renamed_over_unsent_content_is_not_lost(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        handle = await tree.create(f"{box.name}/b")
        await handle.write(b"replaced")
        service.set_faults({"kind": "stall-body", "operation": "delete_file"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/b")
            await tree.until(lambda: service.fired(0))
            nursery.cancel_scope.cancel()
    service.set_faults()
    async with mounting(recover=True) as tree:
        await tree.until(lambda: not tree.journal().entries and not tree.journal().deletions)
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"b": b"content"}
    assert service.truth(box) == [("b", b"content")]


async def overwrite_itself(service, box, mounting, old, new):
    """`mv` over what is unsent, on a server where that has overwritten what was renamed."""
    service.set_behaviours(naming="plain", slashes="flatten", same_name="overwrite")
    async with mounting() as tree:
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        await tree.write(f"{box.name}/{old}", b"content")
        handle = await tree.create(f"{box.name}/{new}")
        await handle.write(b"replaced")
        await cut_off(service, tree, f"{box.name}/{old}", f"{box.name}/{new}", arrives=True)
    assert [content for _, content in service.truth(box)] == [b"content"]


@pytest.mark.parametrize(("old", "new"), [("d/a", "e/a"), ("a", "d/a")])
async def test_what_has_overwritten_itself_is_not_lost_for_unsent_content(
    service, box, mounting, old, new
):
    await overwrite_itself(service, box, mounting, old, new)
    async with mounting(recover=True) as tree:
        await tree.until(lambda: not tree.journal().entries)
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {new: b"content"}
    assert [content for _, content in service.truth(box)] == [b"content"]


@pytest.mark.parametrize(("old", "new"), [("d/a", "e/a"), ("a", "d/a")])
async def test_it_is_not_lost_for_what_was_shown_while_the_server_was_silent(
    service, box, mounting, old, new
):
    await overwrite_itself(service, box, mounting, old, new)
    service.set_faults(SILENT)
    async with mounting() as tree:
        service.set_faults()
        await tree.append(f"{box.name}/{new}", b", and changed")
        files = {old: b"content", new: b"replaced, and changed"}
        for _ in range(2):
            await tree.refresh(box.name)
            assert await tree.all(box.name) == files
    assert sorted(content for _, content in service.truth(box)) == sorted(files.values())


# The next mount begins while the server can't be asked.


SILENT = {
    "kind": "status",
    "operation": "list_files",
    "status": 500,
    "header": "x-should-retry",
    "value": "false",
}


@pytest.mark.parametrize("is_sent", [True, False])
async def test_it_is_ended_before_anything_is_done_to_the_file(service, box, mounting, is_sent):
    async with mounting() as tree:
        if not is_sent:
            service.set_faults({"kind": "status", "status": 403, "operation": "create_file"})
        with suppress(FileSystemError):
            await tree.write(f"{box.name}/a", b"content")
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrives=True)
    service.set_faults(SILENT)
    async with mounting() as tree:
        service.set_faults()
        await tree.write(f"{box.name}/a", b"another")
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"another"}
        assert tree.renames() == []
    assert service.truth(box) == [("a", b"another")]


async def test_it_is_ended_once_the_server_answers(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await cut_off(service, tree, f"{box.name}/a", f"{box.name}/b", arrives=True)
    service.set_faults(SILENT)
    async with mounting() as tree:
        assert len(tree.renames()) == 1
        service.set_faults()
        await tree.until(lambda: not tree.renames())
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"content"}
    assert service.truth(box) == [("a", b"content")]


async def test_what_is_all_that_is_left_is_seen_and_stays(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.write(f"{box.name}/b", b"older one")
        done = {"kind": "status", "status": 500, "operation": "delete_file", "done": True}
        service.set_faults(done)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/b")
            await tree.until(lambda: service.fired(0))
            nursery.cancel_scope.cancel()
    service.set_faults(SILENT)
    async with mounting() as tree:
        service.set_faults()
        await tree.write(f"{box.name}/a", b"a new one")
        await tree.until(lambda: not tree.renames())
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"a new one", "b": b"content"}
    assert service.truth(box) == [("a", b"a new one"), ("b", b"content")]


async def test_a_server_that_does_not_answer_is_not_asked_for_each_file(service, box, mounting):
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        files = {f"d/{number}": b"%d" % number for number in range(5)}
        for path, content in files.items():
            await tree.write(f"{box.name}/{path}", content)
        await cut_off(service, tree, f"{box.name}/d", f"{box.name}/e", arrives=True)
    service.set_faults(SILENT)
    service.forget_requests()
    async with mounting() as tree:
        assert len(service.requests("list_files")) == 1
        service.set_faults()
        await tree.until(lambda: not tree.renames())
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
