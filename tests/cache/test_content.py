"""The content store: complete content on disk, the least recently used out first."""

import os

import pytest
import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Content, Parked, content_name
from containerfs.cache.content import WRITE_INTERVAL, ContentStore
from containerfs.cache.index import MANY
from containerfs.cache.packs import BLOCK, LARGEST
from containerfs.cache.room import MOST_PARKED
from containerfs.errors import LocalFault


def version(
    id: str, *, size: int | None = 10, created: int = 1, container_id: str = "c"
) -> RemoteFile:
    return RemoteFile(
        id=id, container_id=container_id, path=id, size=size, created=created, source="user"
    )


@pytest.fixture(params=[0, LARGEST], ids=["files", "packs"])
def open_store(directory, connection, request):
    """Opens the store; its limit is in blocks of the disk."""
    return lambda limit=1_000: ContentStore(
        directory=directory,
        connection=connection,
        limit=limit * BLOCK,
        largest_packed=request.param,
    )


@pytest.fixture
def open_files(directory, connection):
    """The same, where each content is a file."""
    return lambda limit=1_000: ContentStore(
        directory=directory, connection=connection, limit=limit * BLOCK, largest_packed=0
    )


@pytest.fixture
def open_packs(directory, connection):
    """The same, where small contents are in packs."""
    return lambda limit=1_000: ContentStore(
        directory=directory, connection=connection, limit=limit * BLOCK
    )


def begin(store: ContentStore, file: RemoteFile, *, in_order: bool = True) -> Content:
    return store.begin(content_name(file), size=file.size, in_order=in_order)


def fill(store: ContentStore, file: RemoteFile, data: bytes = b"0123456789") -> None:
    content = begin(store, file)
    store.write(content, data, 0)
    store.commit(content, size=len(data))
    store.unpin(content)


def is_kept(store: ContentStore, file: RemoteFile) -> bool:
    content = store.pin(file)
    if content is not None:
        store.unpin(content)
    return content is not None


def test_what_was_committed_can_be_read(open_store):
    store = open_store()
    fill(store, version("a"), b"0123456789")
    content = store.pin(version("a"))
    assert content is not None
    assert (content.read(0, 100), content.read(3, 2), content.read(10, 5)) == (
        b"0123456789",
        b"34",
        b"",
    )
    store.unpin(content)


def test_another_version_is_another_content(open_store):
    store = open_store()
    fill(store, version("a"))
    others = [version("a", created=2), version("a", size=11), version("b")]
    others.append(version("a", container_id="d"))
    assert not any(is_kept(store, other) for other in others)


def test_incomplete_content_is_not_there(open_files, directory):
    store = open_files()
    content = begin(store, version("a"))
    store.write(content, b"01234", 0)
    assert store.pin(version("a")) is None
    assert store.size_of(version("a")) is None
    store.unpin(content)
    assert list(directory.iterdir()) == []


def test_incomplete_content_is_gone_after_a_crash(open_files, directory):
    store = open_files()
    content = begin(store, version("a"))
    store.write(content, b"01234", 0)
    again = open_files()
    assert again.pin(version("a")) is None
    assert list(directory.iterdir()) == []
    store.unpin(content)


def test_complete_content_is_there_after_a_crash(open_store):
    store = open_store()
    content = begin(store, version("a"))
    store.write(content, b"0123456789", 0)
    store.commit(content, size=10)
    store.save()
    again = open_store()
    assert is_kept(again, version("a"))
    assert again.size_of(version("a")) == 10
    store.unpin(content)


def test_content_that_was_not_indexed_before_a_crash_is_gone_whole(open_store, directory):
    fill(open_store(), version("a"))
    again = open_store()
    assert not is_kept(again, version("a"))
    assert list(directory.iterdir()) == []


async def test_new_content_is_indexed_before_long(open_store, autojump_clock):
    store = open_store()
    fill(store, version("a"))
    with trio.move_on_after(2 * WRITE_INTERVAL):
        await store.run()
    assert is_kept(open_store(), version("a"))


def test_much_new_content_is_indexed_at_once(open_store):
    store = open_store()
    for number in range(MANY):
        fill(store, version(f"{number}"))
    assert is_kept(open_store(), version("0"))


def test_content_that_was_dropped_before_it_was_indexed_is_not_indexed_later(open_store, directory):
    store = open_store()
    fill(store, version("a"))
    store.discard(version("a"))
    fill(store, version("b"))
    store.save()
    again = open_store()
    assert (is_kept(again, version("a")), is_kept(again, version("b"))) == (False, True)


def test_what_is_filled_out_of_order_is_no_content_before_it_is_whole(open_files, directory):
    # Its file is as long as the whole: were it taken for one after a crash, it would be wrong.
    store = open_files()
    fill(store, version("a"))
    store.save()
    (directory / content_name(version("a"))).unlink()
    assert store.pin(version("a")) is None
    content = begin(store, version("a"), in_order=False)
    store.write(content, b"9", 9)
    assert content_name(version("a")) not in [path.name for path in directory.iterdir()]
    store.write(content, b"012345678", 0)
    store.commit(content, size=10)
    assert [path.name for path in directory.iterdir()] == [content_name(version("a"))]
    store.unpin(content)
    assert is_kept(store, version("a"))
    left = begin(store, version("b"), in_order=False)
    store.unpin(left)
    assert len(list(directory.iterdir())) == 1


def test_strangers_in_the_directory_are_removed(open_store, directory):
    directory.mkdir()
    (directory / "stranger").write_bytes(b"x")
    (directory / content_name(version("a"))).write_bytes(b"0123456789")
    assert not is_kept(open_store(), version("a"))
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"012345678", b"0123456789a"])
def test_content_of_the_wrong_size_is_dropped(open_files, directory, data, caplog):
    first = open_files()
    fill(first, version("a"))
    first.save()
    (directory / content_name(version("a"))).write_bytes(data)
    store = open_files()
    assert store.pin(version("a")) is None
    assert store.size_of(version("a")) is None
    assert "wrong size" in caplog.text
    fill(store, version("a"))
    assert is_kept(store, version("a"))


def test_content_whose_file_is_missing_is_dropped(open_files, directory):
    store = open_files()
    fill(store, version("a"))
    fill(store, version("b"))
    (directory / content_name(version("a"))).unlink()
    assert store.pin(version("a")) is None
    store.save()
    (directory / content_name(version("b"))).unlink()
    assert open_files().pin(version("b")) is None


def test_a_link_in_the_place_of_content_is_not_followed(open_files, directory, tmp_path):
    first = open_files()
    fill(first, version("a"))
    first.save()
    (tmp_path / "secret").write_bytes(b"0123456789")
    (directory / content_name(version("a"))).unlink()
    (directory / content_name(version("a"))).symlink_to(tmp_path / "secret")
    assert open_files().pin(version("a")) is None


def test_the_least_recently_used_goes_first(open_files, directory):
    store = open_files(limit=3)
    for id in "abc":
        fill(store, version(id))
    assert is_kept(store, version("a"))
    fill(store, version("d"))
    assert [is_kept(store, version(id)) for id in "abcd"] == [True, False, True, True]
    assert len(list(directory.iterdir())) == 3


def test_content_in_use_is_never_evicted(open_store):
    store = open_store(limit=2)
    fill(store, version("a"))
    pinned = store.pin(version("a"))
    assert pinned is not None
    for id in "bcde":
        fill(store, version(id))
    assert pinned.read(0, 10) == b"0123456789"
    assert is_kept(store, version("a"))
    store.unpin(pinned)
    fill(store, version("f"))
    fill(store, version("g"))
    assert not is_kept(store, version("a"))


def test_content_larger_than_the_cache_lives_as_long_as_it_is_used(open_files, directory):
    store = open_files(limit=0)
    content = begin(store, version("a"))
    store.write(content, b"0123456789", 0)
    store.commit(content, size=10)
    assert is_kept(store, version("a"))
    store.unpin(content)
    assert not is_kept(store, version("a"))
    assert list(directory.iterdir()) == []


def test_a_pin_is_given_back_once_for_each_pin(open_files):
    store = open_files(limit=1)
    fill(store, version("a"))
    first, second = store.pin(version("a")), store.pin(version("a"))
    assert first is second
    assert first is not None
    store.unpin(first)
    assert first.read(0, 1) == b"0"
    store.unpin(first)
    with pytest.raises(LocalFault):
        first.read(0, 1)


def test_the_limit_holds_from_the_start(open_files, directory):
    store = open_files(limit=1_000)
    for id in "abcdef":
        fill(store, version(id))
    store.save()
    small = open_files(limit=2)
    fill(small, version("g"))
    assert len(list(directory.iterdir())) == 2


def test_the_order_of_use_survives_a_restart(open_store):
    store = open_store(limit=3)
    for id in "abc":
        fill(store, version(id))
    is_kept(store, version("a"))
    store.save()
    again = open_store(limit=3)
    fill(again, version("d"))
    assert [is_kept(again, version(id)) for id in "abcd"] == [True, False, True, True]


def test_an_upload_is_its_own_download(open_store, directory, tmp_path):
    store = open_store()
    spool = tmp_path / "spool"
    spool.write_bytes(b"0123456789")
    content = store.adopt(spool, os.open(spool, os.O_RDWR), version("a"), size=10)
    assert not spool.exists()
    assert content.read(0, 10) == b"0123456789"
    store.unpin(content)
    store.save()
    assert is_kept(open_store(), version("a"))


def test_an_upload_under_an_old_id_replaces_what_was_kept(open_store, tmp_path):
    store = open_store()
    fill(store, version("a"), b"old-------")
    reader = store.pin(version("a"))
    spool = tmp_path / "spool"
    spool.write_bytes(b"new-------")
    store.unpin(store.adopt(spool, os.open(spool, os.O_RDWR), version("a"), size=10))
    assert reader is not None
    assert reader.read(0, 3) == b"old"
    content = store.pin(version("a"))
    assert content is not None
    assert content.read(0, 3) == b"new"
    store.unpin(content)
    store.unpin(reader)
    assert is_kept(store, version("a"))


def test_a_spool_that_cannot_be_adopted_stays_the_callers(open_store, tmp_path):
    store = open_store()
    spool = tmp_path / "spool"
    spool.write_bytes(b"x")
    with spool.open("rb") as opened, pytest.raises(LocalFault):
        store.adopt(tmp_path / "missing", opened.fileno(), version("a"), size=1)
    assert not is_kept(store, version("a"))


def test_a_renamed_file_keeps_its_content_under_the_new_id(open_store):
    store = open_store()
    fill(store, version("a"))
    store.alias(version("a"), version("b"))
    store.discard(version("a"))
    assert (is_kept(store, version("a")), is_kept(store, version("b"))) == (False, True)
    store.alias(version("missing"), version("c"))
    assert not is_kept(store, version("c"))


def test_two_contents_that_the_server_tells_alike_are_not_mixed_up(open_store):
    # It gave a new content the id of an older one, in the same second and of the same size.
    store = open_store()
    fill(store, version("a"), b"old of a--")
    fill(store, version("b"), b"old of b--")
    reader = store.pin(version("b"))
    store.alias(version("a"), version("b"))
    store.alias(version("b"), version("a"))
    assert (is_kept(store, version("a")), is_kept(store, version("b"))) == (False, False)
    assert reader is not None
    assert reader.read(0, 10) == b"old of b--"
    store.unpin(reader)
    store.alias(version("a"), version("a"))


def test_content_that_is_in_use_is_not_discarded(open_store):
    store = open_store()
    fill(store, version("a"))
    content = store.pin(version("a"))
    store.discard(version("a"))
    assert content is not None
    assert content.read(0, 1) == b"0"
    store.unpin(content)


def test_content_begun_anew_does_not_disturb_who_still_has_the_first(open_store):
    store = open_store()
    first = begin(store, version("a"))
    store.write(first, b"first", 0)
    second = begin(store, version("a"))
    store.write(second, b"0123456789", 0)
    store.commit(second, size=10)
    store.unpin(first)
    store.unpin(second)
    assert is_kept(store, version("a"))


def test_a_disk_that_fails_is_not_a_missing_file(open_store, directory):
    store = open_store()
    directory.rmdir()
    with pytest.raises(LocalFault):
        begin(store, version("a"))


@pytest.mark.parametrize("id", ["", "../x", "a/b", "\0", "\ud800", "x" * 237])
def test_any_id_makes_a_plain_file_name(id):
    name = content_name(version(id))
    assert name.isalnum()
    assert len(name) == 40


# Room for what is being filled.


def test_room_is_made_by_the_least_recently_used(open_store):
    store = open_store(limit=3)
    for id in "abc":
        fill(store, version(id))
    content = begin(store, version("d"))
    assert store.make_room(content, BLOCK + 1)
    assert [is_kept(store, version(id)) for id in "abc"] == [False, False, True]
    store.unpin(content)


def test_nothing_is_evicted_for_what_does_not_fit_anyway(open_store):
    store = open_store(limit=3)
    for id in "abc":
        fill(store, version(id))
    pinned = store.pin(version("a"))
    content = begin(store, version("d"))
    assert store.could_hold(2 * BLOCK)
    assert not store.could_hold(2 * BLOCK + 1)
    assert not store.make_room(content, 2 * BLOCK + 1)
    assert all(is_kept(store, version(id)) for id in "abc")
    assert store.make_room(content, 2 * BLOCK + 1, always=True)
    assert [is_kept(store, version(id)) for id in "abc"] == [True, False, False]
    store.unpin(content)
    assert pinned is not None
    store.unpin(pinned)


def test_room_is_given_back(open_store):
    store = open_store(limit=2)
    for _ in range(5):
        content = begin(store, version("a"))
        assert store.make_room(content, 2 * BLOCK)
        store.unpin(content)
    nameless = store.begin_nameless()
    assert store.make_room(nameless, 2 * BLOCK)
    store.unpin(nameless)
    assert store.could_hold(2 * BLOCK)


def test_small_content_counts_as_the_disk_does(open_store):
    store = open_store(limit=10)
    for number in range(20):
        fill(store, version(f"{number}"), b"x")
    assert sum(is_kept(store, version(f"{number}")) for number in range(20)) == 10


def test_what_was_begun_and_left_is_taken_up(open_store):
    store = open_store()
    content = begin(store, version("a"))
    store.make_room(content, 5)
    store.write(content, b"01234", 0)
    store.park(Parked(content=content, available=5, total=10))
    store.unpin(content)
    assert not is_kept(store, version("a"))
    parked = store.resume(content_name(version("a")))
    assert parked is not None
    assert (parked.available, parked.total) == (5, 10)
    store.write(parked.content, b"56789", 5)
    store.commit(parked.content, size=10)
    assert parked.content.read(0, 10) == b"0123456789"
    store.unpin(parked.content)
    assert is_kept(store, version("a"))
    assert store.resume(content_name(version("a"))) is None


def test_what_was_begun_and_left_makes_room_first(open_files, directory):
    store = open_files(limit=2)
    fill(store, version("old"))
    left = begin(store, version("left"))
    store.make_room(left, BLOCK)
    store.park(Parked(content=left, available=BLOCK, total=10 * BLOCK))
    store.unpin(left)
    fill(store, version("new"))
    assert store.resume(content_name(version("left"))) is None
    assert [is_kept(store, version(id)) for id in ("old", "new")] == [True, True]
    assert len(list(directory.iterdir())) == 2


def test_few_of_those_that_were_begun_and_left_are_kept(open_files, directory):
    store = open_files()
    for number in range(2 * MOST_PARKED):
        content = begin(store, version(f"{number}"))
        store.park(Parked(content=content, available=0, total=10))
        store.unpin(content)
    assert len(list(directory.iterdir())) == MOST_PARKED
