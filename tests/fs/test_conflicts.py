"""Several mounts and the model change one file: something whole wins, and nothing is left over."""

import os
from contextlib import AsyncExitStack

import pytest
import trio

from containerfs.errors import Expired, FileSystemError, NotFound


@pytest.fixture
def machines(mounting, tmp_path):
    """Mounts of the same server on machines of their own: `await machines(2)` inside a stack."""

    async def start(stack: AsyncExitStack, count: int):
        return [
            await stack.enter_async_context(mounting(tmp_path / f"machine {number}"))
            for number in range(count)
        ]

    return start


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("is_at_once", [False, True])
async def test_of_several_who_overwrite_a_file_one_wins(service, box, machines, count, is_at_once):
    service.upload(box, "a", b"old")
    async with AsyncExitStack() as stack:
        trees = await machines(stack, count)
        handles = []
        for number, tree in enumerate(trees):
            handle = await tree.open(f"{box.name}/a", os.O_WRONLY | os.O_TRUNC)
            await handle.write(b"from %d" % number)
            handles.append(handle)
        if is_at_once:
            service.set_behaviours(latency=0.02)
            async with trio.open_nursery() as nursery:
                for handle in handles:
                    nursery.start_soon(handle.close)
            service.set_behaviours(latency=0)
        else:
            for handle in handles:
                await handle.close()
        ((name, data),) = service.truth(box)
        assert name == "a"
        assert is_at_once or data == b"from %d" % (count - 1)  # the last close
        for tree in trees:
            await tree.refresh(box.name)
            assert await tree.all(box.name) == {"a": data}


async def test_a_file_that_others_removed_while_it_was_written_is_there_again(
    service, box, machines
):
    service.upload(box, "a", b"old")
    async with AsyncExitStack() as stack:
        one, two = await machines(stack, 2)
        handle = await one.open(f"{box.name}/a", os.O_WRONLY | os.O_TRUNC)
        await handle.write(b"new")
        await two.unlink(f"{box.name}/a")
        await one.refresh(box.name)
        await handle.close()
        assert service.truth(box) == [("a", b"new")]
        assert await one.all(box.name) == {"a": b"new"}


async def test_a_conflict_touches_no_other_file(service, box, machines):
    id = service.upload(box, "a", b"old")["id"]
    service.upload(box, "d/a", b"another")
    service.write(box, "/mnt/data/xa", b"the model's")
    async with AsyncExitStack() as stack:
        (tree,) = await machines(stack, 1)
        handle = await tree.open(f"{box.name}/a", os.O_WRONLY | os.O_TRUNC)
        await handle.write(b"new")
        service.call("DELETE", f"/v1/containers/{box}/files/{id}")
        await handle.close()
        expected = {"a": b"new", "d/a": b"another", "xa": b"the model's"}
        await tree.refresh(box.name)
        assert await tree.all(box.name) == expected
        assert len(service.truth(box)) == 3


@pytest.mark.parametrize("others", [[], ["b"]])
async def test_what_was_made_here_and_removed_elsewhere_before_it_was_listed_is_gone(
    service, box, tree, others
):
    assert await tree.names(box.name) == []
    await tree.write(f"{box.name}/a", b"content")
    (made,) = service.files(box)
    service.call("DELETE", f"/v1/containers/{box}/files/{made['id']}")
    for name in others:
        service.upload(box, name, b"other")
    await tree.refresh(box.name)
    assert await tree.all(box.name) == dict.fromkeys(others, b"other")


async def test_who_has_a_file_open_reads_on_when_the_model_rewrites_it(service, box, tree):
    id = service.write(box, "/mnt/data/a", b"old")["id"]
    handle = await tree.open(f"{box.name}/a")
    assert await handle.read() == b"old"
    service.admin("PUT", f"/admin/files/{box}/{id}", {"content_base64": "bmV3ZXI="})
    await tree.refresh(box.name)
    assert await tree.read(f"{box.name}/a") == b"newer"
    assert await handle.read() == b"old"
    await handle.close()
    assert await tree.all(box.name) == {"a": b"newer"}


async def test_a_new_version_under_the_same_id_is_seen(service, box, tree):
    id = service.write(box, "/mnt/data/a", b"old", created_at=1)["id"]
    assert await tree.read(f"{box.name}/a") == b"old"
    service.admin(
        "PUT",
        f"/admin/files/{box}/{id}",
        {"content_base64": "bmV3", "same_id": True, "created_at": 2},
    )
    await tree.refresh(box.name)
    assert await tree.read(f"{box.name}/a") == b"new"


async def test_the_models_new_version_survives_beside_an_unsent_change(service, box, tree):
    service.write(box, "/mnt/data/a", b"old", created_at=1)
    handle = await tree.open(f"{box.name}/a", os.O_WRONLY | os.O_TRUNC)
    await handle.write(b"mine")
    service.write(box, "/mnt/data/a", b"theirs", created_at=2)
    await tree.refresh(box.name)
    assert await tree.read(f"{box.name}/a") == b"mine"
    await handle.close()
    assert await tree.all(box.name) == {"a": b"mine"}
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"mine"}


async def test_removing_a_path_removes_its_older_objects_too(service, box, tree):
    for number in range(3):
        service.write(box, "/mnt/data/a", b"%d" % number, created_at=number)
    assert await tree.all(box.name) == {"a": b"2"}
    await tree.unlink(f"{box.name}/a")
    assert service.truth(box) == []


async def test_a_removal_that_fails_half_way_never_brings_old_content_back(service, box, tree):
    for number in range(3):
        service.write(box, "/mnt/data/a", b"%d" % number, created_at=number)
    await tree.names(box.name)
    service.set_faults({"kind": "status", "status": 403, "operation": "delete_file", "after": 1})
    with pytest.raises(Exception, match="403"):
        await tree.unlink(f"{box.name}/a")
    service.set_faults()
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"2"}


async def test_overwriting_a_path_removes_its_older_objects_too(service, box, tree):
    for number in range(3):
        service.write(box, "/mnt/data/a", b"%d" % number, created_at=number)
    await tree.write(f"{box.name}/a", b"new")
    assert service.truth(box) == [("a", b"new")]


# Servers that overwrite.


@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
@pytest.mark.parametrize("naming", ["hash", "plain"])
async def test_a_server_that_overwrites_is_understood(service, box, mounting, same_name, naming):
    service.set_behaviours(same_name=same_name, naming=naming)
    async with mounting() as tree:
        await tree.mkdir(f"{box.name}/d")
        for data in (b"one", b"two", b"three", b"four!"):
            await tree.write(f"{box.name}/a", data)
            await tree.write(f"{box.name}/d/a", data + b" deep")
            assert service.truth(box) == [("a", data), ("d/a", data + b" deep")]
            await tree.refresh(box.name)
            assert await tree.all(box.name) == {"a": data, "d/a": data + b" deep"}
        await tree.rename(f"{box.name}/d/a", f"{box.name}/a")
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"four! deep"}
        assert service.truth(box) == [("a", b"four! deep")]
        await tree.write(f"{box.name}/b", b"b")
        await tree.unlink(f"{box.name}/b")
        assert service.truth(box) == [("a", b"four! deep")]
    async with mounting(recover=True) as tree:
        assert await tree.all(box.name) == {"a": b"four! deep"}
        await tree.until(lambda: not tree.journal().deletions)
        assert await tree.all(box.name) == {"a": b"four! deep"}


# Objects that are not what they seem.


async def test_a_listed_file_that_is_not_there_leaves_the_directory(service, box, tree):
    service.write(box, "/mnt/data/a", phantom=True)
    service.write(box, "/mnt/data/b", b"b")
    assert await tree.names(box.name) == ["a", "b"]
    with pytest.raises(NotFound):
        await tree.read(f"{box.name}/a")
    assert await tree.names(box.name) == ["b"]
    await tree.refresh(box.name)
    assert await tree.names(box.name) == ["b"]


async def test_a_file_of_unknown_size_has_its_true_size(service, box, tree):
    service.write(box, "/mnt/data/a", b"content", bytes=None)
    assert await tree.size(f"{box.name}/a") == 7
    assert await tree.read(f"{box.name}/a") == b"content"
    await tree.append(f"{box.name}/a", b" and more")
    assert service.truth(box) == [("a", b"content and more")]


async def test_a_deleted_file_stays_away_though_it_is_still_listed(service, box, mounting):
    service.set_behaviours(delete_lag=60)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.unlink(f"{box.name}/a")
        await tree.refresh(box.name)
        assert await tree.names(box.name) == []
    async with mounting() as tree:
        assert await tree.names(box.name) == []
        await tree.write(f"{box.name}/a", b"again")
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"again"}


async def test_a_new_file_is_there_though_it_is_not_listed_yet(service, box, tree):
    service.set_behaviours(list_lag=60)
    await tree.write(f"{box.name}/a", b"content")
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"content"}


async def test_a_new_file_is_there_though_the_server_describes_no_file(service, box, tree):
    service.set_behaviours(list_lag=60)
    service.set_faults({"kind": "status", "operation": "retrieve_file", "status": 404})
    await tree.write(f"{box.name}/a", b"content")
    await tree.write(f"{box.name}/empty", b"")
    for _ in range(2):
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"content", "empty": b""}


async def test_an_unlinked_file_that_is_open_is_read_to_its_end(service, box, tree):
    data = os.urandom(2 << 20)
    service.write(box, "/mnt/data/a", data)
    handle = await tree.open(f"{box.name}/a", os.O_RDWR)
    await tree.unlink(f"{box.name}/a")
    assert service.truth(box) == []
    assert await handle.read() == data
    await handle.write(b"changed")
    assert await handle.read(7) == b"changed"
    await handle.close()
    assert service.truth(box) == []
    assert tree.journal().entries == []
    await tree.write(f"{box.name}/a", b"another")
    assert service.truth(box) == [("a", b"another")]


async def test_stale_listings_show_what_was_just_written(service, box, mounting):
    async with mounting(ttl=0.0) as tree:
        await tree.write(f"{box.name}/a", b"a")
        await tree.write(f"{box.name}/b", b"b")
        await tree.unlink(f"{box.name}/a")
        # The server fails quickly, and in a way that may pass.
        service.set_faults(
            {
                "kind": "status",
                "status": 503,
                "operation": "list_files",
                "header": "x-should-retry",
                "value": "false",
            }
        )
        assert await tree.names(box.name) == ["b"]
        assert await tree.read(f"{box.name}/b") == b"b"


async def test_a_container_expires_under_an_open_file(service, box, tree):
    service.write(box, "/mnt/data/a", os.urandom(1_000_000))
    handle = await tree.open(f"{box.name}/a")
    service.expire(box)
    with pytest.raises(Expired):
        await handle.read()
    await handle.close()


@pytest.mark.parametrize("count", [2, 3])
async def test_of_several_who_make_a_file_at_once_one_wins(service, box, machines, count):
    async with AsyncExitStack() as stack:
        trees = await machines(stack, count)
        handles = []
        for number, tree in enumerate(trees):
            handle = await tree.create(f"{box.name}/a")
            await handle.write(b"from %d" % number)
            handles.append(handle)
        for handle in handles:
            await handle.close()
        assert len(service.truth(box)) == count
        for _ in range(3):  # whoever looks at the directory settles it
            for tree in trees:
                await tree.refresh(box.name)
        await trees[0].until(lambda: len(service.truth(box)) == 1)
        assert service.truth(box) == [("a", b"from %d" % (count - 1))]
        for tree in trees:
            await tree.refresh(box.name)
            assert await tree.all(box.name) == {"a": b"from %d" % (count - 1)}


async def test_files_of_one_name_that_others_uploaded_long_ago_are_nobodys_rivals(
    service, box, tree
):
    paths = [f"/mnt/data/{digit * 32}-a" for digit in "12"]
    for path in paths:
        service.write(box, path, b"others", created_at=1000, source="user")
    await tree.refresh(box.name)
    await tree.write(f"{box.name}/a", b"ours")
    for _ in range(3):
        await tree.refresh(box.name)
    names = [path.rpartition("/")[2] for path in paths]
    assert await tree.all(box.name) == {"a": b"ours"} | dict.fromkeys(names, b"others")
    assert len(service.files(box)) == 3


async def test_a_file_that_was_renamed_is_no_rival_of_who_takes_its_name(service, box, tree):
    service.set_behaviours(same_name="add")
    await tree.write(f"{box.name}/a", b"first")
    (first,) = service.files(box)
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    await tree.write(f"{box.name}/a", b"second")
    service.upload(box, "b~", b"other")
    for _ in range(3):
        await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"second", "b": b"first", "b~": b"other"}
    assert first["id"] not in [each["id"] for each in service.files(box)]


@pytest.mark.parametrize("lag", [1, 3])
async def test_an_upload_that_arrived_twice_stays_once_though_lists_lag(service, box, tree, lag):
    service.set_behaviours(list_lag_lists=lag)
    service.set_faults({"kind": "reset-after", "operation": "create_file", "count": 1})
    await tree.write(f"{box.name}/a", b"content")
    for _ in range(10):
        await tree.refresh(box.name)
    await tree.until(lambda: service.truth(box) == [("a", b"content")])
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"content"}


@pytest.mark.parametrize("lag", [1, 3])
async def test_a_rename_that_arrived_twice_leaves_one_object(service, box, tree, lag):
    await tree.write(f"{box.name}/a", b"content")
    service.set_behaviours(list_lag_lists=lag)
    service.set_faults({"kind": "reset-after", "operation": "create_file", "count": 1})
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    for _ in range(10):
        await tree.refresh(box.name)
    await tree.until(lambda: service.truth(box) == [("b", b"content")])
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"b": b"content"}


async def test_what_others_put_under_the_name_at_the_same_time_and_took_away_wins_nothing(
    service, box, machines
):
    async with AsyncExitStack() as stack:
        one, two = await machines(stack, 2)
        handles = [await tree.create(f"{box.name}/a") for tree in (one, two)]
        for number, handle in enumerate(handles):
            await handle.write(b"from %d" % number)
            await handle.close()
        await two.unlink(f"{box.name}/a")
        for _ in range(3):
            await one.refresh(box.name)
        assert service.truth(box) == [("a", b"from 0")]
        assert await one.all(box.name) == {"a": b"from 0"}


async def test_what_is_made_and_listed_while_a_conflict_is_settled_stays(service, box, machines):
    async with AsyncExitStack() as stack:
        one, other = await machines(stack, 2)
        handles = [await tree.create(f"{box.name}/a") for tree in (other, one)]
        for handle in handles:
            await handle.write(b"content")
        for handle in handles:
            await handle.close()
        service.set_faults({"kind": "latency", "operation": "delete_file", "seconds": 0.5})
        await one.refresh(box.name)
        await one.until(lambda: service.fired(0))
        handle = await one.create(f"{box.name}/b")
        await handle.write(b"first")
        await handle.fsync()
        await one.refresh(box.name)  # it is listed from now on
        await one.until(lambda: len(service.files(box)) == 2)
        await one.until(lambda: not one.journal().deletions)
        await handle.write(b"second")
        await handle.close()
        assert await one.all(box.name) == {"a": b"content", "b": b"second"}
        assert service.truth(box) == [("a", b"content"), ("b", b"second")]


# A server may give what is sent the id of what has its name, and is still to be deleted.


@pytest.fixture
async def doomed(service, box, tree):
    """`a` was renamed to `b`, and could not be deleted."""
    service.set_behaviours(naming="plain", same_name="overwrite_keep_id")
    await tree.write(f"{box.name}/a", b"one")
    at_once = {"header": "x-should-retry", "value": "false"}
    service.set_faults({"kind": "status", "status": 500, "operation": "delete_file", **at_once})
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert tree.journal().deletions
    service.set_faults()


async def test_what_gets_the_id_of_what_is_to_be_deleted_stays(service, box, tree, doomed):
    await tree.write(f"{box.name}/a", b"two")
    assert tree.journal().deletions == []
    await tree.mount.outstanding.delete()
    assert service.truth(box) == [("a", b"two"), ("b", b"one")]


async def test_what_gets_the_id_of_what_is_just_deleted_is_sent_again(service, box, tree, doomed):
    service.set_faults({"kind": "latency", "operation": "delete_file", "seconds": 0.5})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.mount.outstanding.delete)
        await tree.until(lambda: service.fired(0))
        with pytest.raises(FileSystemError):
            await tree.write(f"{box.name}/a", b"two")
    handle = await tree.open(f"{box.name}/a", os.O_WRONLY)
    await handle.fsync()
    await handle.close()
    assert service.truth(box) == [("a", b"two"), ("b", b"one")]


async def test_what_gets_the_id_of_what_is_deleted_before_its_answer_comes_is_sent_again(
    service, box, tree, doomed
):
    service.set_faults(
        {"kind": "stall-body", "operation": "create_file", "at": 1, "seconds": 0.5, "count": 1}
    )
    async with trio.open_nursery() as nursery:

        async def write():
            with pytest.raises(FileSystemError):
                await tree.write(f"{box.name}/a", b"two")

        nursery.start_soon(write)
        await tree.until(lambda: ("a", b"two") in service.truth(box))
        await tree.mount.outstanding.delete()
    handle = await tree.open(f"{box.name}/a", os.O_WRONLY)
    await handle.fsync()
    await handle.close()
    assert service.truth(box) == [("a", b"two"), ("b", b"one")]
