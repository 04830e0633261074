"""Servers on which a second upload of a name overwrites: no file is lost for another one."""

import os
from collections import Counter

import pytest

EXCHANGE = 2


@pytest.fixture(params=["overwrite", "overwrite_keep_id"])
def same_name(request):
    return request.param


@pytest.fixture
def flat(service, same_name):
    service.set_behaviours(naming="plain", slashes="flatten", same_name=same_name)


@pytest.fixture
async def check(service, box, tree):
    """Checks that these are the files, here and, but for their names, on the server."""

    async def check(**files):
        files = {path.replace("_", "/"): data for path, data in files.items()}
        for _ in range(2):
            assert await tree.all(box.name) == files
            await tree.refresh(box.name)
        found = [data for _, data in service.truth(box)]
        assert Counter(found) == Counter(files.values())

    return check


@pytest.fixture
async def tree(box, tree):
    for name in ("d", "e"):
        await tree.mkdir(f"{box.name}/{name}")
    return tree


@pytest.mark.usefixtures("flat")
@pytest.mark.parametrize(("one", "other"), [("d/a", "a"), ("a", "d/a"), ("d/a", "e/a")])
async def test_files_of_one_name_are_exchanged(box, tree, check, one, other):
    await tree.write(f"{box.name}/{one}", b"one")
    await tree.write(f"{box.name}/{other}", b"other")
    for _ in range(3):
        await tree.rename(f"{box.name}/{other}", f"{box.name}/{one}", EXCHANGE)
        await check(**{one.replace("/", "_"): b"other", other.replace("/", "_"): b"one"})
        await tree.rename(f"{box.name}/{one}", f"{box.name}/{other}", EXCHANGE)
        await check(**{one.replace("/", "_"): b"one", other.replace("/", "_"): b"other"})


@pytest.mark.parametrize("slashes", ["keep", "flatten"])
async def test_what_is_being_written_is_exchanged(service, box, tree, check, slashes, same_name):
    service.set_behaviours(naming="plain", slashes=slashes, same_name=same_name)
    await tree.write(f"{box.name}/a", b"one")
    await tree.write(f"{box.name}/d/b", b"other")
    handle = await tree.open(f"{box.name}/a", os.O_RDWR)
    await handle.write(b"ONE")
    await tree.rename(f"{box.name}/d/b", f"{box.name}/a", EXCHANGE)
    await tree.refresh(box.name)
    assert await tree.all(box.name) == {"a": b"other", "d/b": b"ONE"}
    await handle.close()
    await check(a=b"other", d_b=b"ONE")


@pytest.mark.usefixtures("flat")
async def test_what_another_file_has_become_is_not_deleted_for_the_file_that_it_was(
    box, tree, check
):
    await tree.write(f"{box.name}/d/a", b"replaced")
    await tree.write(f"{box.name}/d/b", b"one")
    handle = await tree.open(f"{box.name}/d/b", os.O_RDWR)
    await handle.write(b"ONE")
    await tree.rename(f"{box.name}/d/b", f"{box.name}/d/a")
    await tree.write(f"{box.name}/a", b"another")
    await handle.close()
    await check(a=b"another", d_a=b"ONE")


@pytest.mark.parametrize("is_remounted", [False, True])
@pytest.mark.parametrize("slashes", ["keep", "flatten"])
@pytest.mark.parametrize("path", ["a", "d/a"])
async def test_a_backup_is_not_lost_for_the_file_that_it_was(
    service, box, mounting, same_name, slashes, path, is_remounted
):
    service.set_behaviours(naming="plain", slashes=slashes, same_name=same_name)
    files = {"e/a": b"another", f"{path}~": b"old"}
    async with mounting() as tree:
        for name in ("d", "e"):
            await tree.mkdir(f"{box.name}/{name}")
        await tree.write(f"{box.name}/e/a", b"another")
        await tree.write(f"{box.name}/{path}", b"old")
        await tree.rename(f"{box.name}/{path}", f"{box.name}/{path}~")
        if not is_remounted:
            await tree.write(f"{box.name}/{path}", b"saved")
    async with mounting() as tree:
        await tree.write(f"{box.name}/{path}", b"saved")
        for _ in range(2):
            await tree.refresh(box.name)
            assert await tree.all(box.name) == {**files, path: b"saved"}
    async with mounting() as tree:
        assert await tree.all(box.name) == {**files, path: b"saved"}


@pytest.mark.parametrize("slashes", ["keep", "flatten"])
async def test_a_file_is_exchanged_with_a_temporary_one(service, box, tree, same_name, slashes):
    service.set_behaviours(naming="plain", slashes=slashes, same_name=same_name)
    await tree.write(f"{box.name}/a", b"one")
    await tree.write(f"{box.name}/b~", b"other")
    await tree.rename(f"{box.name}/a", f"{box.name}/b~", EXCHANGE)
    for _ in range(2):
        await tree.until(lambda: service.truth(box) == [("a", b"other")])
        await tree.refresh(box.name)
        assert await tree.all(box.name) == {"a": b"other", "b~": b"one"}


@pytest.mark.parametrize("list_lag_lists", [0, 2])
async def test_what_a_name_was_first_sent_as_is_not_shown_while_the_listing_lags(
    service, box, tree, list_lag_lists
):
    service.set_behaviours(delete_lag_lists=3, list_lag_lists=list_lag_lists)
    await tree.write(f"{box.name}/a", b"one")
    await tree.write(f"{box.name}/d/a", b"other")  # marked, until it is known to be another's
    for _ in range(5):
        assert await tree.all(box.name) == {"a": b"one", "d/a": b"other"}
        await tree.refresh(box.name)


@pytest.mark.parametrize("slashes", ["flatten", "refuse"])
async def test_what_an_earlier_mount_has_sent_tells_that_directories_are_dropped(
    service, box, mounting, slashes, same_name
):
    service.set_behaviours(slashes=slashes, same_name=same_name)
    files = {"d/b": b"in a directory", "e/a": b"one", "d/a": b"marked"}
    async with mounting() as tree:
        for directory in ("d", "e"):
            await tree.mkdir(f"{box.name}/{directory}")
        for path, data in files.items():
            await tree.write(f"{box.name}/{path}", data)
        await tree.unlink(f"{box.name}/d/b")
        del files["d/b"]
    async with mounting() as tree:
        await tree.write(f"{box.name}/a", b"another")
        files["a"] = b"another"
        await tree.refresh(box.name)
        assert await tree.all(box.name) == files
