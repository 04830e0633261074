"""Small contents in packs: as good as files, and the disk has the room of what goes at once."""

import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import content_name
from containerfs.cache.content import ContentStore
from containerfs.cache.index import SCHEMA
from containerfs.cache.packs import BLOCK, LARGEST, SPAN, Packs, cost

LIMIT = 1_000 * BLOCK


def version(id: str, *, size: int | None = 10) -> RemoteFile:
    return RemoteFile(id=id, container_id="c", path=id, size=size, created=1, source="user")


@pytest.fixture
def open_store(directory, connection):
    def opened(limit=LIMIT, **options):
        return ContentStore(directory=directory, connection=connection, limit=limit, **options)

    return opened


def fill(store: ContentStore, id: str, data: bytes) -> RemoteFile:
    file = version(id, size=len(data))
    content = store.begin(content_name(file), size=len(data))
    assert store.make_room(content, len(data))
    store.write(content, data, 0)
    store.commit(content, size=len(data))
    store.unpin(content)
    return file


def read(store: ContentStore, file: RemoteFile) -> bytes | None:
    content = store.pin(file)
    if content is None:
        return None
    try:
        return content.read(0, 1 << 20)
    finally:
        store.unpin(content)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def test_small_contents_share_a_file_and_larger_ones_have_their_own(open_store, directory):
    store = open_store()
    small = [fill(store, f"{number}", os.urandom(1000 + number)) for number in range(50)]
    assert files(directory) == ["0.pack"]
    large = fill(store, "large", bytes(LARGEST + 1))
    assert files(directory) == sorted(["0.pack", content_name(large)])
    fill(store, "empty", b"")
    assert len(files(directory)) == 3
    assert all(len(read(store, file) or b"") == file.size for file in small)


def test_contents_do_not_run_into_each_other(open_store):
    store = open_store()
    datas = {str(size): os.urandom(size) for size in (1, BLOCK - 1, BLOCK, BLOCK + 1, LARGEST)}
    kept = {id: fill(store, id, data) for id, data in datas.items()}
    assert {id: read(store, file) for id, file in kept.items()} == datas
    content = store.pin(kept[str(BLOCK + 1)])
    assert content is not None
    assert content.read(BLOCK, 10) == datas[str(BLOCK + 1)][BLOCK:]
    assert content.read(BLOCK + 1, 10) == b""
    with pytest.raises(ValueError, match="past the end"):
        content.write(memoryview(b"xy"), BLOCK)
    store.unpin(content)


def test_the_descriptor_of_a_packed_content_begins_with_it(open_store):
    store = open_store()
    fill(store, "a", b"before")
    file = fill(store, "b", b"content")
    content = store.pin(file)
    assert content is not None
    assert os.pread(content.fd, 100, 0) == b"content"
    assert content.fd == content.fd
    store.unpin(content)


def test_the_disk_has_the_room_of_what_was_evicted(open_store, directory):
    store = open_store(limit=20 * BLOCK)
    kept = [fill(store, f"{number}", os.urandom(BLOCK)) for number in range(500)]
    assert disk(directory) <= 21 * BLOCK
    assert [read(store, file) is not None for file in kept] == [False] * 480 + [True] * 20


def test_room_is_made_for_a_large_content_too(open_store, directory):
    store = open_store(limit=100 * BLOCK)
    for number in range(100):
        fill(store, f"{number}", os.urandom(BLOCK))
    fill(store, "large", os.urandom(99 * BLOCK))
    assert disk(directory) <= 101 * BLOCK


def test_what_goes_while_it_is_read_stays_for_its_reader(open_store, tmp_path, directory):
    store = open_store()
    file = fill(store, "a", b"old-------")
    reader = store.pin(file)
    assert reader is not None
    spool = tmp_path / "spool"
    spool.write_bytes(b"new-------")
    store.unpin(store.adopt(spool, os.open(spool, os.O_RDWR), file, size=10))
    assert reader.read(0, 10) == b"old-------"
    assert read(store, file) == b"new-------"
    before = disk(directory)
    store.unpin(reader)
    assert disk(directory) < before


def test_what_two_names_share_goes_with_the_second(open_store, directory):
    store = open_store()
    file, other, third = fill(store, "a", b"content"), version("b", size=7), version("c", size=7)
    store.alias(file, other)
    store.discard(file)
    assert (read(store, file), read(store, other)) == (None, b"content")
    store.save()
    store = open_store()
    store.alias(other, third)
    store.save()
    store = open_store()
    store.discard(other)
    assert read(store, third) == b"content"
    store.discard(third)
    assert files(directory) == []


def test_unfinished_content_gives_its_place_back(open_store, directory):
    store = open_store()
    for number in range(50):
        content = store.begin(content_name(version(f"{number}", size=BLOCK)), size=BLOCK)
        store.write(content, bytes(range(256)) * 16, 0)
        store.unpin(content)
    assert disk(directory) == 0


def test_a_mount_goes_on_with_what_another_has_left(open_store, directory):
    first = open_store()
    old = fill(first, "old", b"old content")
    first.save()
    store = open_store()
    new = fill(store, "new", b"new content")
    assert (read(store, old), read(store, new)) == (b"old content", b"new content")
    assert files(directory) == ["0.pack", "1.pack"]
    store.discard(old)
    assert files(directory) == ["1.pack"], "nothing is left in it"
    store.save()
    assert read(open_store(), new) == b"new content"


def test_what_a_crash_left_unindexed_is_given_back(open_store, directory):
    store = open_store()
    kept = [fill(store, f"kept{number}", os.urandom(BLOCK)) for number in range(3)]
    store.save()
    lost = [fill(store, f"lost{number}", os.urandom(BLOCK)) for number in range(100)]
    again = open_store()
    assert all(read(again, file) is not None for file in kept)
    assert not any(read(again, file) for file in lost)
    assert disk(directory) <= 4 * BLOCK


def test_after_a_power_cut_what_was_not_synced_is_not_believed(open_store, directory):
    store = open_store()
    file = fill(store, "a", b"content")
    store.save()
    again = open_store(after_power_cut=True)
    assert read(again, file) is None
    assert files(directory) == []


async def test_what_was_synced_survives_a_power_cut(open_store):
    store = open_store()
    file = fill(store, "a", b"content")
    await store.sync()
    late = fill(store, "late", b"content")
    store.save()
    again = open_store(after_power_cut=True)
    assert (read(again, file), read(again, late)) == (b"content", None)


def test_what_an_earlier_mount_left_is_believed_if_it_has_its_checksum(
    open_store, directory, connection, caplog
):
    # A power cut can take back that a row was deleted, and not that its place was punched out.
    store = open_store()
    other = fill(store, "other", os.urandom(BLOCK))
    gone, same = fill(store, "gone", b"content"), version("same", size=7)
    store.alias(gone, same)
    store.save()
    rows = connection.execute("SELECT * FROM content").fetchall()
    store.discard(gone)
    store.discard(same)
    connection.execute("DELETE FROM content")
    connection.executemany("INSERT INTO content VALUES(?, ?, ?, ?, ?)", rows)
    again = open_store()
    assert (read(again, gone), read(again, same)) == (None, None)
    assert "wrong size or content" in caplog.text
    assert read(again, other) is not None
    gone = fill(again, "gone", b"content")
    assert read(again, gone) == b"content"


def test_a_pack_that_was_cut_short_is_no_content(open_store, directory, caplog):
    store = open_store()
    first, last = fill(store, "a", os.urandom(BLOCK)), fill(store, "b", os.urandom(BLOCK))
    store.save()
    os.truncate(directory / "0.pack", BLOCK + 1)
    again = open_store()
    assert read(again, first) is not None
    assert read(again, last) is None
    assert "wrong size" in caplog.text


def test_a_pack_that_is_missing_is_no_content(open_store, directory):
    store = open_store()
    file = fill(store, "a", b"content")
    store.save()
    (directory / "0.pack").unlink()
    again = open_store()
    assert read(again, file) is None
    file = fill(again, "a", b"content")
    assert read(again, file) == b"content"


def test_a_link_in_the_place_of_a_pack_is_not_followed(open_store, directory, tmp_path):
    store = open_store()
    file = fill(store, "a", b"content")
    store.save()
    (tmp_path / "secret").write_bytes(b"secrets")
    (directory / "0.pack").unlink()
    (directory / "0.pack").symlink_to(tmp_path / "secret")
    assert read(open_store(), file) is None


def test_a_new_pack_never_takes_the_name_of_one_that_is_there(open_store, directory):
    directory.mkdir()
    (directory / "7.pack").write_bytes(b"stranger")
    (directory / "x.pack").write_bytes(b"stranger")
    store = open_store()
    fill(store, "a", b"content")
    assert files(directory) == ["8.pack"]


def test_a_cache_from_before_there_were_packs_goes_on(open_store, directory, connection):
    old = version("old", size=11)
    connection.executescript(SCHEMA.replace(",\n    address INTEGER, crc INTEGER", ""))
    connection.execute("INSERT INTO content VALUES(?, 11, 1)", (content_name(old),))
    directory.mkdir()
    (directory / content_name(old)).write_bytes(b"old content")
    store = open_store()
    new = fill(store, "new", b"new content")
    assert (read(store, old), read(store, new)) == (b"old content", b"new content")
    store.save()
    store = open_store()
    assert (read(store, old), read(store, new)) == (b"old content", b"new content")


def test_a_full_pack_is_followed_by_the_next(tmp_path):
    packs = Packs(tmp_path)
    packs.found([], last=-1)
    size = SPAN // 4 - BLOCK
    addresses = [packs.take(size) for _ in range(9)]
    assert [address // SPAN for address in addresses if address is not None] == [
        *[0] * 4,
        *[1] * 4,
        2,
    ]
    for address in addresses:
        assert address is not None
        assert packs.write(memoryview(b"end"), address + size - 3) == 3
        assert packs.has(address, size)
        packs.let_go(address, size)
    assert disk(tmp_path) == 0
    assert files(tmp_path) == ["2.pack"]


class Store(RuleBasedStateMachine):
    """Any order of filling, reading, pinning and going: contents are whole or gone."""

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self._temp = tempfile.TemporaryDirectory()
        self.directory = Path(self._temp.name) / "content"
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.pinned: list[tuple[object, bytes]] = []
        self.data: dict[str, bytes] = {}
        self.open()

    def open(self) -> None:
        self.store = ContentStore(
            directory=self.directory, connection=self.connection, limit=30 * BLOCK
        )

    def file(self, id: str) -> RemoteFile:
        return version(id, size=len(self.data[id]))

    @rule(id=st.sampled_from("abcdefgh"), blocks=st.integers(0, 9), rest=st.integers(1, BLOCK))
    def fill(self, id: str, blocks: int, rest: int) -> None:
        size = blocks * BLOCK + rest
        name = content_name(version(id, size=size))
        if self.store.has(name):
            return
        if id in self.data:
            self.store.discard(self.file(id))
        self.data[id] = os.urandom(size)
        content = self.store.begin(name, size=size)
        self.store.make_room(content, size, always=True)
        self.store.write(content, self.data[id], 0)
        self.store.commit(content, size=size)
        self.store.unpin(content)

    @precondition(lambda self: self.data)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.data)))
        content = self.store.pin(self.file(id))
        if content is not None:
            self.pinned.append((content, self.data[id]))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.pinned) - 1))
        self.store.unpin(self.pinned.pop(place)[0])  # type: ignore[arg-type]

    @precondition(lambda self: self.data)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        self.store.discard(self.file(data.draw(st.sampled_from(sorted(self.data)))))

    @rule()
    def remount(self) -> None:
        while self.pinned:
            self.store.unpin(self.pinned.pop()[0])  # type: ignore[arg-type]
        self.store.save()
        self.open()

    @rule(size=st.integers(1, 20 * BLOCK))
    def need_room(self, size: int) -> None:
        self.store.free(size)

    @invariant()
    def what_is_there_is_whole(self) -> None:
        for id, data in self.data.items():
            found = read(self.store, self.file(id))
            assert found is None or found == data
        for content, data in self.pinned:
            assert content.read(0, 1 << 20) == data  # type: ignore[attr-defined]

    @invariant()
    def the_disk_has_no_more_than_that(self) -> None:
        if self.directory.exists():
            held = sum(cost(len(data)) for _, data in self.pinned)
            assert disk(self.directory) <= 31 * BLOCK + held

    def teardown(self) -> None:
        for content, _ in self.pinned:
            self.store.unpin(content)  # type: ignore[arg-type]
        self.connection.close()
        self._temp.cleanup()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
