"""The content store: complete content on disk, the least recently used out first."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore, content_name
from containerfs.errors import LocalFault


def version(id: str, *, size: int | None = 10, created: int = 1) -> RemoteFile:
    return RemoteFile(id=id, container_id="c", path=id, size=size, created=created, source="user")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "content"


@pytest.fixture
def connection(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    yield connection
    connection.close()


@pytest.fixture
def open_store(directory, connection):
    return lambda limit=1_000: ContentStore(directory=directory, connection=connection, limit=limit)


def fill(store: ContentStore, file: RemoteFile, data: bytes = b"0123456789") -> None:
    content = store.begin(file)
    os.pwrite(content.fd, data, 0)
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
    others.append(replace(version("a"), container_id="d"))
    assert not any(is_kept(store, other) for other in others)


def test_incomplete_content_is_not_there(open_store, directory):
    store = open_store()
    content = store.begin(version("a"))
    os.pwrite(content.fd, b"01234", 0)
    assert store.pin(version("a")) is None
    assert store.size_of(version("a")) is None
    store.unpin(content)
    assert list(directory.iterdir()) == []


def test_incomplete_content_is_gone_after_a_crash(open_store, directory):
    store = open_store()
    content = store.begin(version("a"))
    os.pwrite(content.fd, b"01234", 0)
    again = open_store()
    assert again.pin(version("a")) is None
    assert list(directory.iterdir()) == []
    store.unpin(content)


def test_complete_content_is_there_after_a_crash(open_store):
    store = open_store()
    content = store.begin(version("a"))
    os.pwrite(content.fd, b"0123456789", 0)
    store.commit(content, size=10)
    again = open_store()
    assert is_kept(again, version("a"))
    assert again.size_of(version("a")) == 10
    store.unpin(content)


def test_strangers_in_the_directory_are_removed(open_store, directory):
    directory.mkdir()
    (directory / "stranger").write_bytes(b"x")
    (directory / content_name(version("a"))).write_bytes(b"0123456789")
    assert not is_kept(open_store(), version("a"))
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"012345678", b"0123456789a"])
def test_content_of_the_wrong_size_is_dropped(open_store, directory, data, caplog):
    fill(open_store(), version("a"))
    (directory / content_name(version("a"))).write_bytes(data)
    store = open_store()
    assert store.pin(version("a")) is None
    assert store.size_of(version("a")) is None
    assert "wrong size" in caplog.text
    fill(store, version("a"))
    assert is_kept(store, version("a"))


def test_content_whose_file_is_missing_is_dropped(open_store, directory):
    store = open_store()
    fill(store, version("a"))
    fill(store, version("b"))
    (directory / content_name(version("a"))).unlink()
    assert store.pin(version("a")) is None
    (directory / content_name(version("b"))).unlink()
    assert open_store().pin(version("b")) is None


def test_a_link_in_the_place_of_content_is_not_followed(open_store, directory, tmp_path):
    fill(open_store(), version("a"))
    (tmp_path / "secret").write_bytes(b"0123456789")
    (directory / content_name(version("a"))).unlink()
    (directory / content_name(version("a"))).symlink_to(tmp_path / "secret")
    assert open_store().pin(version("a")) is None


def test_the_least_recently_used_goes_first(open_store, directory):
    store = open_store(limit=30)
    for id in "abc":
        fill(store, version(id))
    assert is_kept(store, version("a"))
    fill(store, version("d"))
    assert [is_kept(store, version(id)) for id in "abcd"] == [True, False, True, True]
    assert len(list(directory.iterdir())) == 3


def test_content_in_use_is_never_evicted(open_store):
    store = open_store(limit=20)
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


def test_content_larger_than_the_cache_lives_as_long_as_it_is_used(open_store, directory):
    store = open_store(limit=5)
    content = store.begin(version("a"))
    os.pwrite(content.fd, b"0123456789", 0)
    store.commit(content, size=10)
    assert is_kept(store, version("a"))
    store.unpin(content)
    assert not is_kept(store, version("a"))
    assert list(directory.iterdir()) == []


def test_a_pin_is_given_back_once_for_each_pin(open_store):
    store = open_store(limit=10)
    fill(store, version("a"))
    first, second = store.pin(version("a")), store.pin(version("a"))
    assert first is second
    assert first is not None
    store.unpin(first)
    assert first.read(0, 1) == b"0"
    store.unpin(first)
    with pytest.raises(LocalFault):
        first.read(0, 1)


def test_the_limit_holds_from_the_start(open_store, directory):
    store = open_store(limit=1_000)
    for id in "abcdef":
        fill(store, version(id))
    small = open_store(limit=25)
    fill(small, version("g"))
    assert len(list(directory.iterdir())) == 2


def test_the_order_of_use_survives_a_restart(open_store):
    store = open_store(limit=30)
    for id in "abc":
        fill(store, version(id))
    is_kept(store, version("a"))
    store.save()
    again = open_store(limit=30)
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
    first = store.begin(version("a"))
    os.pwrite(first.fd, b"first", 0)
    second = store.begin(version("a"))
    os.pwrite(second.fd, b"0123456789", 0)
    store.commit(second, size=10)
    store.unpin(first)
    store.unpin(second)
    assert is_kept(store, version("a"))


def test_a_disk_that_fails_is_not_a_missing_file(open_store, directory):
    store = open_store()
    directory.rmdir()
    with pytest.raises(LocalFault):
        store.begin(version("a"))


@pytest.mark.parametrize("id", ["", "../x", "a/b", "\0", "\ud800", "x" * 237])
def test_any_id_makes_a_plain_file_name(id):
    name = content_name(version(id))
    assert name.isalnum()
    assert len(name) == 40
