"""What is changed while a rename is under way, by others or here, is neither lost nor mixed up."""

import os
from contextlib import asynccontextmanager

import pytest
import trio

from containerfs.errors import Invalid, Stale

EXCHANGE = 2
SLOW = {"kind": "latency", "operation": "create_file", "seconds": 0.5, "count": 1}
LATE = {"kind": "stall-body", "operation": "create_file", "at": 1, "seconds": 0.5, "count": 1}


@asynccontextmanager
async def slowly_renaming(service, tree, old, new):
    """Inside, the server has begun to receive *new*; the rename is over afterwards."""
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, old, new)
        await tree.until(lambda: service.fired(0))
        yield


@pytest.fixture
def flat(service):
    """A server that has one name for files of one name in several directories."""
    service.set_behaviours(slashes="flatten", same_name="overwrite")


@pytest.fixture
async def machines(mounting, box, tmp_path):
    """Two mounts of one container, of two machines."""
    async with mounting(tmp_path / "one") as one, mounting(tmp_path / "other") as other:
        yield one, other


async def test_what_another_machine_writes_to_a_file_stays(service, box, machines):
    one, other = machines
    await other.write(f"{box.name}/a", b"first")
    await one.refresh(box.name)
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.rename, f"{box.name}/a", f"{box.name}/b")
        await one.until(lambda: service.fired(0))
        await other.write(f"{box.name}/a", b"second, and longer")
        await one.refresh(box.name)
    assert service.truth(box) == [("a", b"second, and longer"), ("b", b"first")]
    for machine in machines:
        await machine.refresh(box.name)
        assert await machine.all(box.name) == {"a": b"second, and longer", "b": b"first"}


async def test_what_the_model_writes_under_the_same_id_stays(service, box, tree):
    service.write(box, "/mnt/data/a", b"first")
    await tree.refresh(box.name)
    async with slowly_renaming(service, tree, f"{box.name}/a", f"{box.name}/b"):
        service.write(box, "/mnt/data/a", b"second, and longer")
        await tree.refresh(box.name)
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"second, and longer", "b": b"first"}


async def test_what_another_machine_writes_to_the_files_of_a_directory_stays(
    service, box, machines
):
    one, other = machines
    await other.mkdir(f"{box.name}/d")
    for name in ("a", "b"):
        await other.write(f"{box.name}/d/{name}", b"first")
    await one.refresh(box.name)
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.rename, f"{box.name}/d", f"{box.name}/e")
        await one.until(lambda: len(service.files(box)) == 3)
        for name in ("a", "b"):
            await other.write(f"{box.name}/d/{name}", b"second")
        await one.refresh(box.name)
    contents = [content for _, content in service.truth(box)]
    assert sorted(contents) == 2 * [b"first"] + 2 * [b"second"]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("is_gone_first", [False, True])
async def test_what_others_put_into_a_directory_stays_where_they_did(
    service, box, tree, is_open, is_gone_first
):
    await tree.mkdir(f"{box.name}/d")
    for name in ("a", "b"):
        await tree.write(f"{box.name}/d/{name}", b"first")
    (old,) = (each["id"] for each in service.files(box) if each["path"].endswith("-a"))
    handle = await tree.open(f"{box.name}/d/a", os.O_RDONLY) if is_open else None
    async with slowly_renaming(service, tree, f"{box.name}/d", f"{box.name}/e"):
        await tree.write(f"{box.name}/d/own", b"own")
        if is_gone_first:
            service.call("DELETE", f"/v1/containers/{box}/files/{old}")
            await tree.refresh(box.name)
        service.upload(box, "d/a", b"second")
        await tree.refresh(box.name)
        if not is_gone_first:
            service.call("DELETE", f"/v1/containers/{box}/files/{old}")
    if handle is not None:
        await handle.close()
    for _ in range(2):
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {
            "d/a": b"second",
            "e/a": b"first",
            "e/b": b"first",
            "e/own": b"own",
        }


async def test_what_another_machine_puts_into_the_empty_directory_that_is_replaced_is_seen(
    service, box, tree
):
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    await tree.write(f"{box.name}/d/a", b"content")
    async with slowly_renaming(service, tree, f"{box.name}/d", f"{box.name}/e"):
        service.write(box, "/mnt/data/e/below/other", b"other")
        await tree.refresh(box.name)
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"e/a": b"content", "e/below/other": b"other"}


async def test_a_file_that_would_come_into_a_directory_that_has_another_name_by_now_stays(
    service, box, tree
):
    await tree.mkdir(f"{box.name}/d")
    await tree.write(f"{box.name}/a", b"content")
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:

        async def rename():
            with pytest.raises(Stale):
                await tree.rename(f"{box.name}/a", f"{box.name}/d/a")

        nursery.start_soon(rename)
        await tree.until(lambda: service.fired(0))
        await tree.rename(f"{box.name}/d", f"{box.name}/e")
    assert service.truth(box) == [("a", b"content")]
    assert await tree.all(box.name) == {"a": b"content"}
    await tree.rename(f"{box.name}/a", f"{box.name}/e/a")
    assert service.truth(box) == [("e/a", b"content")]


async def test_what_the_model_makes_of_an_open_file_that_is_exchanged_stays(service, box, tree):
    for name in ("a", "b"):
        service.write(box, f"/mnt/data/{name}", name.encode())
    await tree.refresh(box.name)
    handle = await tree.open(f"{box.name}/a")
    (id,) = [file["id"] for file in service.files(box) if file["path"].endswith("a")]
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:

        async def rename():
            with pytest.raises(Stale):
                await tree.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE)

        nursery.start_soon(rename)
        await tree.until(lambda: service.fired(0))
        body = {"content_base64": "QUJD", "same_id": True}
        service.admin("PUT", f"/admin/files/{box}/{id}", body)
        await tree.refresh(box.name)
    assert await handle.read() == b"a"
    await handle.close()
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"ABC", "b": b"b"}


async def test_a_file_that_others_replace_while_it_is_open_and_exchanged_stays_theirs(
    service, box, machines
):
    one, other = machines
    for name in ("a", "b"):
        await other.write(f"{box.name}/{name}", name.encode())
    await one.refresh(box.name)
    handle = await one.open(f"{box.name}/a")
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:

        async def rename():
            with pytest.raises(Stale):
                await one.rename(f"{box.name}/a", f"{box.name}/b", EXCHANGE)

        nursery.start_soon(rename)
        await one.until(lambda: service.fired(0))
        await other.write(f"{box.name}/a", b"another")
        await one.refresh(box.name)
    assert await handle.read() == b"a"
    await handle.close()
    await one.refresh(box.name)
    assert await one.all(box.name) == {"a": b"another", "b": b"b"}
    assert service.truth(box) == [("a", b"another"), ("b", b"b")]
    assert one.renames() == []


async def test_a_file_that_others_replace_while_it_is_open_and_renamed_stays_theirs(
    service, box, machines
):
    one, other = machines
    await other.write(f"{box.name}/a", b"first")
    await one.refresh(box.name)
    handle = await one.open(f"{box.name}/a")
    service.set_faults(SLOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.rename, f"{box.name}/a", f"{box.name}/b")
        await one.until(lambda: service.fired(0))
        await other.write(f"{box.name}/a", b"another")
        await one.refresh(box.name)
    assert await handle.read() == b"first"
    await handle.close()
    for machine in machines:
        await machine.refresh(box.name)
        assert await machine.all(box.name) == {"a": b"another", "b": b"first"}
    assert one.renames() == []


async def test_a_file_that_is_removed_while_its_directory_goes_to_another_container_is_gone(
    service, new_box, tree
):
    one, two = new_box("one"), new_box("two")
    await tree.refresh()
    await tree.names(two.name)
    for path in ("d", "d/below"):
        await tree.mkdir(f"{one.name}/{path}")
    await tree.write(f"{one.name}/d/below/a", b"content")
    async with slowly_renaming(service, tree, f"{one.name}/d", f"{two.name}/d"):
        await tree.unlink(f"{one.name}/d/below/a")
    await tree.refresh(two.name)
    assert await tree.all(two.name) == {}
    assert service.truth(two) == []


@pytest.mark.parametrize("fault", [LATE, SLOW | {"operation": "delete_file"}])
@pytest.mark.parametrize(
    ("old", "new"), [("d/a", "e/a"), ("d/a", "d/b"), ("d/a", "b"), ("d", "f"), ("d", "e")]
)
async def test_what_is_listed_under_its_new_name_before_the_rename_is_over_stays(
    service, box, tree, old, new, fault
):
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    await tree.write(f"{box.name}/d/a", b"content")
    service.set_faults(fault)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, f"{box.name}/{old}", f"{box.name}/{new}")
        await tree.until(lambda: service.fired(0) and len(service.files(box)) == 2)
        await tree.refresh(box.name)
    path = new if old == "d/a" else f"{new}/a"
    for _ in range(2):
        assert await tree.all(box.name) == {path: b"content"}
        await tree.refresh(box.name)
    assert service.truth(box) == [(path, b"content")]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("behaviours", [{}, {"slashes": "flatten", "same_name": "overwrite"}])
@pytest.mark.parametrize("fault", [LATE, SLOW | {"after": 1}])
async def test_what_is_listed_before_two_names_are_exchanged_stays(
    service, box, tree, fault, behaviours, is_open
):
    service.set_behaviours(**behaviours)
    await tree.mkdir(f"{box.name}/d")
    await tree.write(f"{box.name}/d/a", b"one")
    await tree.write(f"{box.name}/b", b"another")
    before = service.files(box)
    handles = [await tree.open(f"{box.name}/{name}") for name in ("d/a", "b") if is_open]
    service.set_faults(fault)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, f"{box.name}/d/a", f"{box.name}/b", EXCHANGE)
        await tree.until(lambda: service.fired(0) and service.files(box) != before)
        await tree.refresh(box.name)
    assert [await handle.read() for handle in handles] == [b"one", b"another"][: len(handles)]
    for handle in handles:
        await handle.close()
    for _ in range(2):
        assert await tree.all(box.name) == {"b": b"one", "d/a": b"another"}
        await tree.refresh(box.name)
    assert sorted(data for _, data in service.truth(box)) == [b"another", b"one"]


async def test_what_is_not_listed_any_more_before_the_rename_is_over_stays(service, box, tree):
    await tree.write(f"{box.name}/a", b"content")
    service.set_faults(LATE | {"operation": "delete_file"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/b")
        await tree.until(lambda: service.truth(box) == [("b", b"content")])
        await tree.refresh(box.name)
    for _ in range(2):
        assert await tree.all(box.name) == {"b": b"content"}
        await tree.refresh(box.name)
    assert tree.renames() == []


async def test_what_was_renamed_does_not_come_back_while_others_of_its_directory_are_deleted(
    service, box, tree
):
    await tree.mkdir(f"{box.name}/d")
    for name in ("a", "b"):
        await tree.write(f"{box.name}/d/{name}", b"content")
    service.set_faults(SLOW | {"operation": "delete_file"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, f"{box.name}/d", f"{box.name}/e")
        await tree.until(lambda: service.fired(0) and len(service.files(box)) == 3)
        await tree.refresh(box.name)
    assert await tree.all(box.name) == {"e/a": b"content", "e/b": b"content"}


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize(("old", "new"), [("d/a", "e/a"), ("d", "f")])
async def test_what_has_overwritten_itself_has_its_new_name_where_a_listing_tells_so_too_early(
    service, box, tree, old, new
):
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    await tree.write(f"{box.name}/d/a", b"content")
    (before,) = service.files(box)
    service.set_faults(LATE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.rename, f"{box.name}/{old}", f"{box.name}/{new}")
        await tree.until(lambda: before not in service.files(box))
        await tree.refresh(box.name)
    for _ in range(2):
        assert await tree.all(box.name) == {new if old == "d/a" else f"{new}/a": b"content"}
        await tree.refresh(box.name)
    assert service.truth(box) == [("a", b"content")]


@pytest.mark.usefixtures("flat")
async def test_what_has_overwritten_itself_stays_where_another_one_can_not_be_sent(
    service, box, tree
):
    await tree.mkdir(f"{box.name}/d")
    contents = {name: name.encode() for name in ("a", "b")}
    for name, content in contents.items():
        await tree.write(f"{box.name}/d/{name}", content)
    service.set_faults(
        {"kind": "status", "status": 400, "operation": "create_file", "after": 1, "count": 1}
    )
    with pytest.raises(Invalid):
        await tree.rename(f"{box.name}/d", f"{box.name}/e")
    await tree.refresh(box.name)
    assert await tree.all(f"{box.name}/d") == contents
    assert service.truth(box) == sorted(contents.items())


@pytest.mark.parametrize("is_removed", [False, True])
async def test_what_is_seen_to_be_gone_as_it_goes_is_not_shown_again_by_lists_that_lag(
    service, box, tree, is_removed
):
    service.set_behaviours(list_lag_lists=2, delete_lag_lists=3)
    await tree.names(box.name)
    await tree.write(f"{box.name}/a", b"content")
    service.set_faults({**LATE, "operation": "delete_file"})
    async with trio.open_nursery() as nursery:
        if is_removed:
            nursery.start_soon(tree.unlink, f"{box.name}/a")
        else:
            nursery.start_soon(tree.rename, f"{box.name}/a", f"{box.name}/b")
        await tree.until(lambda: service.fired(0))
        await tree.refresh(box.name)  # it is not listed yet, so the server is asked for it
    for _ in range(4):
        assert await tree.all(box.name) == ({} if is_removed else {"b": b"content"})
        await tree.refresh(box.name)
