"""Closing a changed file: what the server has afterwards, and what happens when it has not."""

import os

import pytest
import trio

from containerfs.errors import (
    FileSystemError,
    Invalid,
    ServerFault,
    TimedOut,
    TooLarge,
    Uncertain,
)
from containerfs.fs.names.names import components, upload_name

LOST = {"kind": "reset-after", "operation": "create_file"}


def refusing(operation: str, *, status: int = 403, **members):
    return {"kind": "status", "operation": operation, "status": status, **members}


def order(service) -> list[str]:
    """The changes that were asked for, in their order."""
    log = [each["operation"] for each in service.requests()]
    return [operation for operation in log if operation in ("create_file", "delete_file")]


async def test_close_returns_when_the_server_has_the_file(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    assert service.truth(box) == [("a", b"content")]
    assert tree.journal().entries == []


async def test_what_was_written_is_read_without_a_download(service, box, tree):
    data = os.urandom(3 << 20)
    await tree.write(f"{box.name}/a", data)
    assert await tree.read(f"{box.name}/a") == data
    assert service.requests("content") == []


async def test_an_open_and_a_close_without_a_write_send_nothing(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    service.forget_requests()
    handle = await tree.open(f"{box.name}/a", os.O_RDWR)
    await handle.close()
    assert order(service) == []


async def test_the_new_object_is_there_before_the_old_one_goes(service, box, tree):
    await tree.write(f"{box.name}/a", b"old")
    service.forget_requests()
    await tree.write(f"{box.name}/a", b"new")
    assert order(service) == ["create_file", "delete_file"]
    assert service.truth(box) == [("a", b"new")]


async def test_what_is_closed_twice_is_sent_once(service, box, tree):
    handle = await tree.create(f"{box.name}/a")
    await handle.write(b"content")
    await handle.flush()
    await handle.flush()
    await handle.close()
    assert order(service) == ["create_file"]


async def test_what_is_written_after_a_close_is_sent_too(service, box, tree):
    handle = await tree.create(f"{box.name}/a")
    await handle.write(b"one")
    await handle.flush()
    await handle.write(b"two", 3)
    await handle.close()
    assert service.truth(box) == [("a", b"onetwo")]


async def test_fsync_sends(service, box, tree):
    handle = await tree.create(f"{box.name}/a")
    await handle.write(b"content")
    await handle.fsync()
    assert service.truth(box) == [("a", b"content")]
    await handle.close()
    assert order(service) == ["create_file"]


async def test_a_write_during_an_upload_does_not_mix_with_it(service, box, tree):
    old = os.urandom(2 << 20)
    handle = await tree.create(f"{box.name}/a")
    await handle.write(old)
    service.set_faults({"kind": "latency", "operation": "create_file", "seconds": 0.3})
    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.flush)
        await tree.until(lambda: service.fired(0))
        await handle.write(b"new", 1 << 20)
        seen.append(await handle.read(3, 1 << 20))
    (first,) = service.truth(box)
    assert first == ("a", old)
    await handle.close()
    assert seen == [b"new"]
    expected = old[: 1 << 20] + b"new" + old[(1 << 20) + 3 :]
    assert service.truth(box) == [("a", expected)]
    assert await tree.read(f"{box.name}/a") == expected


async def test_a_truncation_during_an_upload_does_not_mix_with_it(service, box, tree):
    old = os.urandom(10 << 20)  # so long that its copy is made by a thread
    handle = await tree.create(f"{box.name}/a")
    await handle.write(old)
    service.set_faults({"kind": "latency", "operation": "create_file", "seconds": 0.2})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.close)
        await tree.until(lambda: service.fired(0))
        await tree.truncate(f"{box.name}/a", 9 << 20)
    await tree.mount.sending.send(await tree.file(f"{box.name}/a"))
    assert service.truth(box) == [("a", old[: 9 << 20])]
    assert await tree.read(f"{box.name}/a") == old[: 9 << 20]


async def test_many_closes_at_once_leave_one_object(service, box, tree):
    await tree.write(f"{box.name}/a", b"first")
    handles = [await tree.open(f"{box.name}/a", os.O_WRONLY) for _ in range(5)]
    for number, handle in enumerate(handles):
        await handle.write(b"%d" % number, number)
    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(handle.close)
    assert service.truth(box) == [("a", b"01234")]
    assert tree.journal().entries == []


# Failures.


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ({"max_file_size": 3}, TooLarge),
        ({"refuse_svg": True}, Invalid),
        ({"full": True}, ServerFault),
    ],
)
async def test_close_reports_why_the_server_has_not_got_the_file(
    service, box, tree, behaviour, error
):
    service.set_behaviours(**behaviour)
    with pytest.raises(error):
        await tree.write(f"{box.name}/a", b"<svg></svg>")
    assert service.truth(box) == []
    (entry,) = tree.journal().entries
    assert (entry.path, entry.state) == ("a", "dirty")
    assert entry.error
    assert await tree.read(f"{box.name}/a") == b"<svg></svg>"
    service.set_behaviours(max_file_size=None, refuse_svg=False, full=False)
    handle = await tree.open(f"{box.name}/a", os.O_RDWR)
    await handle.fsync()
    await handle.close()
    assert service.truth(box) == [("a", b"<svg></svg>")]
    assert tree.journal().entries == []


async def test_a_refused_overwrite_leaves_the_old_object(service, box, tree):
    await tree.write(f"{box.name}/a", b"old")
    service.set_faults(refusing("create_file"))
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/a", b"new")
    assert service.truth(box) == [("a", b"old")]
    assert await tree.read(f"{box.name}/a") == b"new"


async def test_an_answer_that_was_lost_leaves_one_object(service, box, tree):
    await tree.write(f"{box.name}/a", b"old")
    service.set_faults({**LOST, "count": 1})
    await tree.write(f"{box.name}/a", b"new")
    assert service.truth(box) == [("a", b"new")]
    assert len(service.requests("create_file")) == 2


async def test_an_upload_of_which_nobody_knows_is_looked_for_before_it_is_sent_again(
    service, box, tree
):
    await tree.names(box.name)
    service.set_faults({**LOST, "count": 1}, refusing("list_files"))
    with pytest.raises(Uncertain):
        await tree.write(f"{box.name}/a", b"content")
    (entry,) = tree.journal().entries
    assert entry.state == "sending"
    service.set_faults()
    await tree.mount.sending.send(await tree.file(f"{box.name}/a"))
    assert service.truth(box) == [("a", b"content")]
    assert len(service.requests("create_file")) == 1


@pytest.mark.parametrize("slashes", ["keep", "flatten", "refuse"])
async def test_equal_files_of_one_name_are_not_taken_for_each_other(service, box, tree, slashes):
    # As a tree of empty `__init__.py` is copied, and some uploads get lost.
    service.set_behaviours(slashes=slashes)
    directories = [f"{box.name}/d{number}" for number in range(4)]
    for directory in directories:
        await tree.mkdir(directory)
    await tree.write(f"{directories[0]}/same", b"same")
    service.set_faults(
        refusing("create_file", status=500, count=1),
        {"kind": "latency", "operation": "create_file", "seconds": 0.1},
        {**LOST, "after": 1, "count": 1},
    )
    async with trio.open_nursery() as nursery:
        for directory in directories[1:]:
            nursery.start_soon(tree.write, f"{directory}/same", b"same")
    service.set_faults()
    await tree.refresh(box.name)
    expected = {f"d{number}/same": b"same" for number in range(4)}
    assert await tree.all(box.name) == expected
    assert len(service.truth(box)) == 4
    await tree.unlink(f"{directories[1]}/same")
    del expected["d1/same"]
    await tree.refresh(box.name)
    assert await tree.all(box.name) == expected


async def test_a_file_of_others_is_not_taken_for_a_lost_upload(service, box, tree):
    service.write(box, "/mnt/data/xa", b"content")
    await tree.names(box.name)
    service.set_faults(refusing("create_file", status=500, count=1))
    await tree.write(f"{box.name}/a", b"content")
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"content", "xa": b"content"}


async def test_what_the_model_has_made_of_the_same_content_is_not_taken_for_a_lost_upload(
    service, box, tree
):
    await tree.names(box.name)
    await tree.mkdir(f"{box.name}/d")
    service.set_faults({**LOST, "kind": "reset"}, refusing("list_files"))
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/d/a", b"content")
    service.write(box, "/mnt/data/a", b"content")
    service.set_faults()
    await tree.mount.sending.send(await tree.file(f"{box.name}/d/a"))
    await tree.unlink(f"{box.name}/d/a")
    assert service.truth(box) == [("a", b"content")]


async def test_the_old_object_that_could_not_be_deleted_is_hidden_and_deleted_later(
    service, box, tree, mounting
):
    await tree.write(f"{box.name}/a", b"old")
    service.set_faults(refusing("delete_file"))
    await tree.write(f"{box.name}/a", b"new")
    assert len(service.truth(box)) == 2
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"new"}
    assert len(tree.journal().deletions) == 1


async def test_close_does_not_wait_while_only_the_deletion_of_the_old_object_fails(
    service, box, tree
):
    await tree.write(f"{box.name}/a", b"old")
    service.set_faults(refusing("delete_file", status=500))
    service.forget_requests()
    await tree.write(f"{box.name}/a", b"new")
    assert order(service) == ["create_file", "delete_file", "delete_file"]
    (left,) = tree.journal().doomed.all
    assert left.path == "a"
    service.set_faults()
    await tree.until(lambda: service.truth(box) == [("a", b"new")])  # soon, in the background


async def test_a_deletion_that_was_put_off_finds_out_who_else_replaced_the_file(
    service, box, mounting, tmp_path
):
    async with mounting(tmp_path / "one") as one, mounting(tmp_path / "other") as other:
        await one.write(f"{box.name}/a", b"old")
        assert await other.read(f"{box.name}/a") == b"old"
        service.set_faults(refusing("delete_file", status=500, count=2))
        await one.write(f"{box.name}/a", b"one's")
        await other.write(f"{box.name}/a", b"other's")
        await one.until(lambda: service.truth(box) == [("a", b"other's")])


async def test_fsync_of_a_file_deletes_what_it_replaced_before(service, box, tree):
    await tree.write(f"{box.name}/a", b"old")
    service.set_faults(refusing("delete_file"))
    await tree.write(f"{box.name}/a", b"new")
    service.set_faults()
    handle = await tree.open(f"{box.name}/a")
    await handle.fsync()
    await handle.close()
    assert service.truth(box) == [("a", b"new")]


async def test_what_was_to_be_deleted_is_deleted_by_the_next_mount(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"old")
        service.set_faults(refusing("delete_file"))
        await tree.write(f"{box.name}/a", b"new")
    service.set_faults()
    async with mounting() as tree:
        await tree.until(lambda: not tree.journal().deletions)
        assert service.truth(box) == [("a", b"new")]
        assert await tree.all(box.name) == {"a": b"new"}


async def test_a_failed_file_can_be_removed(service, box, tree):
    service.set_faults(refusing("create_file"))
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/a", b"content")
    await tree.unlink(f"{box.name}/a")
    assert tree.journal().entries == []
    assert await tree.names(box.name) == []


# Empty files.


async def test_a_new_empty_file_is_sent_after_a_moment(service, box, tree):
    await tree.write(f"{box.name}/a", b"")
    await tree.until(lambda: not tree.journal().entries)
    assert service.truth(box) == [("a", b"")]


async def test_a_refused_empty_file_stays_here(service, box, tree):
    service.set_behaviours(refuse_empty=True)
    handle = await tree.create(f"{box.name}/a")
    with pytest.raises(Invalid):
        await handle.fsync()
    await handle.close()
    assert await tree.all(box.name) == {"a": b""}
    assert len(tree.journal().entries) == 1
    await tree.append(f"{box.name}/a", b"content")
    assert service.truth(box) == [("a", b"content")]


# What others do to slashes.


@pytest.mark.parametrize("slashes", ["flatten", "refuse"])
async def test_directories_are_kept_here_where_the_server_has_none(service, box, mounting, slashes):
    service.set_behaviours(slashes=slashes)
    files = {"d/e/a": b"deep", "d/a": b"middle", "a": b"top"}
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await tree.mkdir(f"{box.name}/d/e")
        for path, data in files.items():
            await tree.write(f"{box.name}/{path}", data)
        await tree.write(f"{box.name}/d/a", b"middle again")
        files["d/a"] = b"middle again"
        assert len(service.truth(box)) == 3
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
    async with mounting() as tree:
        assert await tree.all(box.name) == files


@pytest.mark.parametrize("naming", ["hash", "file_id", "plain"])
@pytest.mark.parametrize("prefix", ["base", "front"])
async def test_a_name_is_the_same_here_after_a_remount_and_elsewhere(
    service, box, mounting, tmp_path, naming, prefix
):
    service.set_behaviours(naming=naming, prefix=prefix)
    names = ["a.csv", "☃ é", "%41", "100%", "-x", "x" * 255, "é" * 127, "\udcff\udc80", "a\nb"]
    files = {name: name.encode("utf-8", "surrogateescape") for name in names}
    files["d/deep"] = b"deep"
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        for name, data in files.items():
            await tree.write(f"{box.name}/{name}", data)
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
    async with mounting() as tree:
        assert await tree.all(box.name) == files
    elsewhere = {**files}
    # What is no text, or no line of a header, is uploaded as an escape: elsewhere that is a name.
    for name, escape in (("\udcff\udc80", "%ff%80"), ("a\nb", "a%0Ab")):
        shown = "/".join(components(upload_name(name), id=""))
        assert shown.replace("%25", "%").startswith(f"{escape}~")
        elsewhere[shown] = elsewhere.pop(name)
    async with mounting(tmp_path / "another machine") as tree:
        assert await tree.all(box.name) == elsewhere


@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id", "add"])
@pytest.mark.parametrize("slashes", ["flatten", "refuse", "keep"])
@pytest.mark.parametrize("naming", ["plain", "hash"])
async def test_files_of_one_name_are_kept_apart_where_the_server_overwrites(
    service, box, mounting, slashes, same_name, naming
):
    service.set_behaviours(naming=naming, slashes=slashes, same_name=same_name)
    files = {"a": b"top", "d/a": b"middle", "d/e/a": b"deep", "d/b": b"below", "b": b"above"}
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        await tree.mkdir(f"{box.name}/d/e")
        for path, data in files.items():
            await tree.write(f"{box.name}/{path}", data)
        for path in files:
            await tree.write(f"{box.name}/{path}", files[path] + b" again")
            files[path] += b" again"
        await tree.rename(f"{box.name}/d/b", f"{box.name}/d/e/b")
        files["d/e/b"] = files.pop("d/b")
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
        assert sorted(data for _, data in service.truth(box)) == sorted(files.values())
    async with mounting() as tree:
        for path in ("c", "d/c"):
            await tree.mkdir(f"{box.name}/{path}")
        async with trio.open_nursery() as nursery:
            for path in ("a", "c/a", "d/c/a"):
                files[path] = b"new " + path.encode()
                nursery.start_soon(tree.write, f"{box.name}/{path}", files[path])
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
    assert sorted(data for _, data in service.truth(box)) == sorted(files.values())
    if slashes == "keep":
        assert sorted(path for path, _ in service.truth(box)) == sorted(files)


async def test_a_name_that_begins_as_a_servers_prefix_tells_nothing_of_the_server(
    service, box, tree
):
    service.set_behaviours(naming="plain", slashes="flatten", same_name="overwrite")
    files = {f"{'0' * 32}-a": b"one", "a": b"two", "d/a": b"three"}
    await tree.mkdir(f"{box.name}/d")
    for path, data in files.items():
        await tree.write(f"{box.name}/{path}", data)
    await tree.refresh(box.name)
    assert await tree.all(box.name) == files


async def test_what_is_sent_again_under_its_own_name_leaves_nothing_where_that_fails(
    service, box, tree
):
    service.set_behaviours(naming="plain")
    await tree.write(f"{box.name}/a", b"top")
    await tree.mkdir(f"{box.name}/d")
    service.set_faults(refusing("create_file", after=1, count=1))
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/d/a", b"below")
    assert service.truth(box) == [("a", b"top")]
    await tree.mount.sending.send(await tree.file(f"{box.name}/d/a"))
    assert service.truth(box) == [("a", b"top"), ("d/a", b"below")]


STALL = {"kind": "stall", "operation": "create_file"}


def attempts(service) -> int:
    """How many uploads stood still."""
    return service.admin("GET", "/admin/faults")[0]["fired"]


async def test_those_who_wait_for_one_file_while_the_server_hangs_do_not_wait_in_turn(
    service, box, mounting
):
    async with mounting(op_timeout=1) as tree:
        handle = await tree.create(f"{box.name}/a")
        await handle.write(b"content")
        service.set_faults(STALL)
        failed = []

        async def fsync() -> None:
            with pytest.raises(FileSystemError) as caught:
                await handle.fsync()
            failed.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fsync)
        assert attempts(service) == 1
        assert [type(error) for error in failed] == [TimedOut] * 5
        service.set_faults()
        await handle.fsync()
        await handle.close()
        assert service.truth(box) == [("a", b"content")]


async def test_many_files_below_a_directory_do_not_hang_one_after_the_other(service, box, mounting):
    most = 64
    async with mounting(op_timeout=1, write_back=600, max_connections=most) as tree:
        files = {f"f{number}": b"content" for number in range(most + 10)}
        for name, data in files.items():
            await tree.write(f"{box.name}/{name}", data)
        service.set_faults(STALL)
        directory = await tree.node(box.name)
        with pytest.raises(TimedOut):
            await tree.mount.sending.send_below(directory)
        assert attempts(service) <= most
        service.set_faults()
        await tree.mount.sending.send_below(directory)
        assert dict(service.truth(box)) == files
