"""Renaming, and renaming that fails half way: neither name is ever lost."""

import os
from contextlib import suppress

import pytest
import trio

from containerfs.errors import (
    CrossDevice,
    Exists,
    FileSystemError,
    Invalid,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
)

NOREPLACE, EXCHANGE = 1, 2


def refusing(operation: str, *, status: int = 403, **members):
    return {"kind": "status", "operation": operation, "status": status, **members}


def counts(service) -> tuple[int, int, int]:
    """How many uploads, deletions and downloads there were."""
    operations = ("create_file", "delete_file", "content")
    return tuple(len(service.requests(operation)) for operation in operations)  # type: ignore[return-value]


async def test_a_file_has_its_new_name_here_and_on_the_server(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    service.forget_requests()
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert counts(service) == (1, 1, 0)
    assert await tree.all(box.name) == {"b": b"content"}
    assert service.truth(box) == [("b", b"content")]
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"b": b"content"}


async def test_a_file_that_is_not_cached_is_downloaded_once(service, box, tree):
    service.write(box, "/mnt/data/a", b"content")
    await tree.names(box.name)
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert counts(service) == (1, 1, 1)
    assert await tree.read(f"{box.name}/b") == b"content"
    assert counts(service) == (1, 1, 1)


async def test_a_file_replaces_what_had_the_name(service, box, tree):
    await tree.write(f"{box.name}/a", b"one")
    await tree.write(f"{box.name}/b", b"two")
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert await tree.all(box.name) == {"b": b"one"}
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"b": b"one"}
    assert service.truth(box) == [("b", b"one")]


async def test_a_file_goes_to_another_container(service, new_box, tree):
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.write(f"{one.name}/a", b"content")
    await tree.rename(f"{one.name}/a", f"{two.name}/b")
    for name in (one.name, two.name):
        await tree.refresh(name)
    assert (await tree.all(one.name), await tree.all(two.name)) == ({}, {"b": b"content"})
    assert (service.truth(one), service.truth(two)) == ([], [("b", b"content")])


async def test_who_has_the_file_open_reads_and_writes_on(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    handle = await tree.open(f"{box.name}/a", os.O_RDWR)
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert await handle.read() == b"content"
    await handle.write(b"CON")
    await handle.close()
    assert service.truth(box) == [("b", b"CONtent")]
    assert await tree.all(box.name) == {"b": b"CONtent"}


async def test_who_has_the_replaced_file_open_reads_on(service, box, tree):
    await tree.write(f"{box.name}/a", b"one")
    service.write(box, "/mnt/data/b", b"two")
    await tree.refresh(box.name)
    handle = await tree.open(f"{box.name}/b")
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert await handle.read() == b"two"
    await handle.close()


async def test_an_unsent_file_is_sent_under_its_new_name_only(service, box, tree):
    handle = await tree.create(f"{box.name}/a")
    await handle.write(b"content")
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    await handle.close()
    assert counts(service) == (1, 0, 0)
    assert service.truth(box) == [("b", b"content")]


async def test_a_temporary_file_becomes_real_by_its_name(service, box, tree):
    await tree.write(f"{box.name}/a", b"old")
    await tree.write(f"{box.name}/.a.swp", b"new")
    service.forget_requests()
    await tree.rename(f"{box.name}/.a.swp", f"{box.name}/a")
    assert counts(service) == (1, 1, 0)
    assert service.truth(box) == [("a", b"new")]
    assert tree.journal().entries == []


@pytest.mark.parametrize("status", [403, 500])
async def test_a_file_is_never_lost_where_its_deletion_fails_after_it_was_done(
    service, box, tree, status
):
    await tree.write(f"{box.name}/a", b"content")
    service.set_faults(refusing("delete_file", status=status, done=True))
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert service.truth(box) == [("b", b"content")]
    assert await tree.all(box.name) == {"b": b"content"}


async def test_a_file_is_never_lost_where_its_deletion_is_done_after_it_was_given_up(
    service, box, tree
):
    await tree.write(f"{box.name}/a", b"content")
    (old,) = service.files(box)
    service.set_faults({"kind": "stall", "operation": "delete_file", "count": 2})
    with suppress(FileSystemError):
        await tree.rename(f"{box.name}/a", f"{box.name}/b")
    service.set_faults()
    service.exchange("DELETE", f"/v1/containers/{box}/files/{old['id']}")
    assert [data for _, data in service.truth(box)] == [b"content"]


async def test_an_editors_save_with_a_backup_loses_nothing_at_any_moment(service, box, tree):
    await tree.write(f"{box.name}/a", b"old")
    service.forget_requests()
    await tree.rename(f"{box.name}/a", f"{box.name}/a~")
    assert counts(service) == (0, 0, 0)
    assert [data for _, data in service.truth(box)] == [b"old"]
    await tree.write(f"{box.name}/a", b"new")
    assert sorted(data for _, data in service.truth(box)) == [b"new", b"old"]
    await tree.unlink(f"{box.name}/a~")
    assert service.truth(box) == [("a", b"new")]
    assert counts(service)[:2] == (1, 1)


# What rename(2) refuses.


async def test_what_cannot_be_renamed_is_refused(service, box, tree):
    for path in ("d", "full", "d/e"):
        await tree.mkdir(f"{box.name}/{path}")
    for path in ("a", "b", "full/x"):
        await tree.write(f"{box.name}/{path}", path.encode())
    cases = [
        ("missing", "x", 0, NotFound),
        ("a", "b", NOREPLACE, Exists),
        ("a", "x", EXCHANGE, NotFound),
        ("a", "x", 8, Invalid),
        ("a", "x", NOREPLACE | EXCHANGE, Invalid),
        ("d", "d/e/f", 0, Invalid),
        ("d", "d/e", 0, Invalid),
        ("d", "full", 0, NotEmpty),
        ("d", "a", 0, NotADirectory),
        ("a", "d", 0, IsADirectory),
        ("d", "d/e", EXCHANGE, Invalid),
        ("d/e", "d", EXCHANGE, Invalid),
    ]
    service.forget_requests()
    for old, new, flags, error in cases:
        with pytest.raises(error):
            await tree.rename(f"{box.name}/{old}", f"{box.name}/{new}", flags)
    with pytest.raises(NotPermitted):
        await tree.rename(box.name, "other")
    with pytest.raises(CrossDevice):
        await tree.rename(f"{box.name}/d", "other")
    with pytest.raises(NotPermitted):
        await tree.rename(f"{box.name}/a", "other")
    assert counts(service) == (0, 0, 0)
    assert await tree.all(box.name) == {"a": b"a", "b": b"b", "full/x": b"full/x"}


async def test_a_file_onto_itself_changes_nothing(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    service.forget_requests()
    await tree.rename(f"{box.name}/a", f"{box.name}/a")
    assert counts(service) == (0, 0, 0)


# Failing half way.


@pytest.mark.parametrize("operation", ["create_file", "delete_file", "content"])
@pytest.mark.parametrize("has_target", [False, True])
@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_failure_leaves_both_names_as_they_were(
    service, new_box, tree, operation, has_target, is_elsewhere
):
    box = new_box("box")
    other = new_box("other") if is_elsewhere else box
    service.write(box, "/mnt/data/a", b"one")
    files = {"a": b"one"}
    others = {} if is_elsewhere else files
    if has_target:
        service.write(other, "/mnt/data/b", b"two")
        others["b"] = b"two"
    await tree.refresh()
    before = [service.truth(box), service.truth(other)]
    await tree.names(box.name)
    await tree.names(other.name)
    service.set_faults(refusing(operation, count=1))
    with pytest.raises(FileSystemError):
        await tree.rename(f"{box.name}/a", f"{other.name}/b")
    service.set_faults()
    assert [service.truth(box), service.truth(other)] == before
    for _ in range(2):
        assert [await tree.all(box.name), await tree.all(other.name)] == [files, others]
        await tree.refresh(box.name)
        await tree.refresh(other.name)
    await tree.rename(f"{box.name}/a", f"{other.name}/b")
    await tree.refresh(other.name)
    assert (await tree.all(other.name))["b"] == b"one"


@pytest.mark.parametrize("same_name", ["overwrite", "overwrite_keep_id"])
@pytest.mark.parametrize("operation", ["create_file", "delete_file", "content"])
async def test_a_failure_loses_nothing_where_the_server_overwrites(
    service, box, tree, operation, same_name
):
    service.set_behaviours(same_name=same_name, naming="plain")
    service.upload(box, "a", b"one")
    service.upload(box, "b", b"two")
    await tree.names(box.name)
    service.set_faults(refusing(operation, count=1))
    try:
        await tree.rename(f"{box.name}/a", f"{box.name}/b")
    except FileSystemError:
        expected = {"a": b"one", "b": b"two"}
    else:
        expected = {"b": b"one"}
    service.set_faults()
    await tree.refresh(box.name)
    assert await tree.all(box.name) == expected


async def test_a_lost_answer_is_no_failure(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    service.set_faults(refusing("create_file", status=500, count=1, done=True))
    await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert service.truth(box) == [("b", b"content")]


async def test_an_unsent_file_that_cannot_be_sent_keeps_its_name(service, box, tree):
    service.set_faults(refusing("create_file"))
    with pytest.raises(FileSystemError):
        await tree.write(f"{box.name}/a", b"content")
    with pytest.raises(FileSystemError):
        await tree.rename(f"{box.name}/a", f"{box.name}/b")
    assert await tree.all(box.name) == {"a": b"content"}
    (entry,) = tree.journal().entries
    assert entry.path == "a"


async def test_an_unsent_change_takes_its_old_object_along(service, new_box, tree):
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.write(f"{one.name}/a", b"old")
    service.set_faults(refusing("create_file"))
    with pytest.raises(FileSystemError):
        await tree.write(f"{one.name}/a", b"new")
    service.set_faults()
    await tree.rename(f"{one.name}/a", f"{two.name}/a")
    assert (service.truth(one), service.truth(two)) == ([], [("a", b"new")])
    await tree.refresh(one.name)
    assert await tree.all(one.name) == {}
    assert await tree.all(two.name) == {"a": b"new"}


@pytest.mark.parametrize("is_directory", [False, True])
async def test_a_file_whose_change_is_not_closed_is_to_be_copied_to_another_container(
    service, new_box, tree, is_directory
):
    # Its old object must stay until the new content is sent, and it is in another container.
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.mkdir(f"{one.name}/d")
    await tree.write(f"{one.name}/d/a", b"old")
    handle = await tree.open(f"{one.name}/d/a", os.O_WRONLY)
    await handle.write(b"new")
    old, new = ("d", "e") if is_directory else ("d/a", "a")
    with pytest.raises(CrossDevice):
        await tree.rename(f"{one.name}/{old}", f"{two.name}/{new}")
    assert service.truth(one) == [("d/a", b"old")]
    await handle.close()
    assert (service.truth(one), service.truth(two)) == ([("d/a", b"new")], [])
    await tree.rename(f"{one.name}/{old}", f"{two.name}/{new}")
    assert service.truth(one) == []
    assert [data for _, data in service.truth(two)] == [b"new"]


async def test_a_file_goes_to_another_container_under_a_temporary_name(service, new_box, tree):
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.write(f"{one.name}/a", b"content")
    await tree.rename(f"{one.name}/a", f"{two.name}/a~")
    for name in (one.name, two.name):
        await tree.refresh(name)
    assert (await tree.all(one.name), await tree.all(two.name)) == ({}, {"a~": b"content"})


async def test_a_rename_is_two_requests_and_no_third_one_later(service, box, mounting):
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"content")
        await tree.rename(f"{box.name}/a", f"{box.name}/b")
        assert tree.journal().deletions == []


# Directories.


async def make_directory(tree, box, name: str = "d", *, files: int = 5) -> dict[str, bytes]:
    await tree.mkdir(f"{box.name}/{name}")
    await tree.mkdir(f"{box.name}/{name}/sub")
    made = {}
    for number in range(files):
        path = f"sub/{number}" if number % 2 else str(number)
        made[path] = b"content %d" % number
        await tree.write(f"{box.name}/{name}/{path}", made[path])
    return made


async def test_a_directory_takes_an_upload_and_a_deletion_for_each_file(service, box, tree):
    files = await make_directory(tree, box, files=20)
    await tree.write(f"{box.name}/d/.x.swp", b"temporary")
    service.forget_requests()
    await tree.rename(f"{box.name}/d", f"{box.name}/e")
    assert counts(service) == (20, 20, 0)
    assert service.truth(box) == sorted((f"e/{path}", data) for path, data in files.items())
    await tree.refresh(box.name)
    expected = {f"e/{path}": data for path, data in files.items()}
    assert await tree.all(box.name) == expected | {"e/.x.swp": b"temporary"}


async def test_a_directory_of_temporary_files_costs_nothing(service, box, tree):
    await tree.mkdir(f"{box.name}/d")
    await tree.write(f"{box.name}/d/.x.swp", b"temporary")
    service.forget_requests()
    await tree.rename(f"{box.name}/d", f"{box.name}/e")
    assert counts(service) == (0, 0, 0)
    assert await tree.all(box.name) == {"e/.x.swp": b"temporary"}


async def test_a_directory_with_too_many_files_is_to_be_copied(service, box, mounting):
    async with mounting(rename_limit=4) as tree:
        await make_directory(tree, box, files=5)
        service.forget_requests()
        with pytest.raises(CrossDevice):
            await tree.rename(f"{box.name}/d", f"{box.name}/e")
        assert counts(service) == (0, 0, 0)
        await tree.unlink(f"{box.name}/d/0")
        await tree.rename(f"{box.name}/d", f"{box.name}/e")
        assert len(await tree.all(box.name)) == 4


async def test_a_directory_replaces_an_empty_one(service, box, tree):
    files = await make_directory(tree, box)
    await tree.mkdir(f"{box.name}/e")
    await tree.rename(f"{box.name}/d", f"{box.name}/e")
    await tree.refresh(box.name)
    assert await tree.all(f"{box.name}/e") == files


@pytest.mark.parametrize(("operation", "after"), [("create_file", 3), ("content", 0)])
async def test_a_directory_that_fails_half_way_stays_as_it_was(
    service, box, mounting, tmp_path, operation, after
):
    async with mounting(tmp_path / "one") as tree:
        files = await make_directory(tree, box)
    async with mounting(tmp_path / "two") as tree:  # with nothing cached
        await tree.names(box.name)
        service.set_faults(refusing(operation, after=after, count=1))
        with pytest.raises(FileSystemError):
            await tree.rename(f"{box.name}/d", f"{box.name}/e")
        service.set_faults()
        assert service.truth(box) == sorted((f"d/{path}", data) for path, data in files.items())
        await tree.refresh(box.name)
        assert await tree.all(f"{box.name}/d") == files
        assert "e" not in await tree.names(box.name)


async def test_old_objects_of_a_directory_that_cannot_be_deleted_stay_hidden(service, box, tree):
    files = await make_directory(tree, box)
    service.set_faults(refusing("delete_file"))
    await tree.rename(f"{box.name}/d", f"{box.name}/e")
    await tree.refresh(box.name)
    assert await tree.all(f"{box.name}/e") == files
    assert "d" not in await tree.names(box.name)
    assert len(tree.journal().deletions) == len(files)


async def test_unsent_files_move_with_their_directory(service, box, tree):
    await tree.mkdir(f"{box.name}/d")
    handle = await tree.create(f"{box.name}/d/a")
    await handle.write(b"content")
    await tree.rename(f"{box.name}/d", f"{box.name}/e")
    assert service.truth(box) == []
    await handle.close()
    assert service.truth(box) == [("e/a", b"content")]


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_file_that_is_on_its_way_moves_with_its_directory(
    service, new_box, tree, is_elsewhere
):
    box = new_box("box")
    other = new_box("other") if is_elsewhere else box
    await tree.refresh()
    await tree.names(other.name)
    await tree.mkdir(f"{box.name}/d")
    handle = await tree.create(f"{box.name}/d/a")
    await handle.write(b"content")
    service.set_faults({"kind": "latency", "operation": "create_file", "seconds": 0.2})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.close)
        await tree.until(lambda: service.fired(0))
        await tree.rename(f"{box.name}/d", f"{other.name}/e")
    await tree.refresh(box.name)
    await tree.refresh(other.name)
    assert await tree.all(other.name) == {"e/a": b"content"}
    assert service.truth(other) == [("e/a", b"content")]
    if is_elsewhere:
        assert (await tree.all(box.name), service.truth(box)) == ({}, [])


async def test_what_appears_under_the_new_name_meanwhile_disturbs_nothing(service, box, tree):
    await tree.write(f"{box.name}/a", b"one")
    service.set_faults({"kind": "latency", "operation": "create_file", "seconds": 0.2})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/b")
        await tree.until(lambda: service.fired(0))
        service.write(box, "/mnt/data/b", b"two")
        await tree.refresh(box.name)
    await tree.refresh(box.name)
    shown = await tree.all(box.name)
    assert b"one" in shown.values()
    assert "a" not in shown
    for name in shown:
        await tree.unlink(f"{box.name}/{name}")
    assert await tree.names(box.name) == []


# Exchanging.


@pytest.mark.parametrize("same_name", ["add", "overwrite", "overwrite_keep_id"])
@pytest.mark.parametrize("naming", ["hash", "plain"])
async def test_two_files_change_places(service, box, mounting, same_name, naming):
    service.set_behaviours(same_name=same_name, naming=naming)
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"one")
        await tree.write(f"{box.name}/b", b"two")
        await tree.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE)
        assert await tree.all(box.name) == {"a": b"two", "b": b"one"}
        assert service.truth(box) == [("a", b"two"), ("b", b"one")]
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"two", "b": b"one"}
        assert tree.journal().deletions == []
    async with mounting() as tree:  # which would delete what was recorded to be deleted
        await trio.sleep(0.1)
        assert service.truth(box) == [("a", b"two"), ("b", b"one")]
        assert await tree.all(box.name) == {"a": b"two", "b": b"one"}


async def test_directories_and_files_change_places(service, box, tree):
    files = await make_directory(tree, box)
    await tree.write(f"{box.name}/a", b"file")
    await tree.rename(f"{box.name}/a", f"{box.name}/d", EXCHANGE)
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"d": b"file"} | {
        f"a/{path}": data for path, data in files.items()
    }


async def test_files_of_two_containers_change_places(service, new_box, tree):
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.write(f"{one.name}/a", b"one")
    await tree.write(f"{two.name}/b", b"two")
    await tree.rename(f"{one.name}/a", f"{two.name}/b", EXCHANGE)
    for name in (one.name, two.name):
        await tree.refresh(name)
    assert await tree.all(one.name) == {"a": b"two"}
    assert await tree.all(two.name) == {"b": b"one"}
    assert (service.truth(one), service.truth(two)) == ([("a", b"two")], [("b", b"one")])


@pytest.mark.parametrize("same_name", ["add", "overwrite", "overwrite_keep_id"])
@pytest.mark.parametrize("after", [0, 1])
async def test_an_exchange_that_fails_half_way_loses_nothing(
    service, box, mounting, same_name, after
):
    service.set_behaviours(same_name=same_name, naming="plain")
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"one")
        await tree.write(f"{box.name}/b", b"two")
        service.set_faults(refusing("create_file", after=after, count=1))
        with pytest.raises(FileSystemError):
            await tree.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE)
        service.set_faults()
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"one", "b": b"two"}
        await tree.stop()
        assert service.truth(box) == [("a", b"one"), ("b", b"two")]


async def test_what_was_taken_back_is_not_shown_however_late_it_is_listed(service, box, tree):
    service.set_behaviours(delete_lag_lists=3, list_lag_lists=2)
    files = {f"d/{name}": name.encode() for name in "ab"}
    await tree.mkdir(f"{box.name}/d")
    for path, content in files.items():
        await tree.write(f"{box.name}/{path}", content)
    refused = {"kind": "status", "status": 403, "operation": "create_file", "after": 1}
    service.set_faults(refused)
    with pytest.raises(FileSystemError):
        await tree.rename(f"{box.name}/d", f"{box.name}/e")
    service.set_faults()
    for _ in range(8):
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
