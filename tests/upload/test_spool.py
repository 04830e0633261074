"""Spools: dirty bytes on disk, and a local disk that is full."""

import os
import subprocess
import sys
import textwrap
from collections import deque
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from containerfs.errors import LocalFault
from containerfs.upload.spares import AHEAD, MOST, MOST_DOOMED
from containerfs.upload.spools import SpoolDirectory

MIB = 1 << 20


@pytest.fixture
def spools(tmp_path: Path) -> SpoolDirectory:
    return SpoolDirectory(tmp_path / "spool")


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows one another is taken for a burst, however slow the machine is."""
    monkeypatch.setattr("containerfs.upload.spares.BURST", 60.0)


def test_what_was_written_is_read(spools):
    spool = spools.new()
    spool.write(0, b"0123456789")
    spool.write(3, b"xyz")
    assert spool.read(0, 100) == b"012xyz6789"
    assert spool.size == 10
    spool.discard()


def test_a_gap_reads_as_zeros(spools):
    spool = spools.new()
    spool.write(5, b"x")
    assert spool.read(0, 10) == bytes(5) + b"x"
    assert spool.size == 6
    spool.discard()


def test_truncating_cuts_and_grows_with_zeros(spools):
    spool = spools.new()
    spool.write(0, b"0123456789")
    spool.truncate(4)
    spool.truncate(6)
    assert (spool.read(0, 10), spool.size) == (b"0123\0\0", 6)
    spool.discard()


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 50), st.binary(max_size=20)),
            st.tuples(st.just("truncate"), st.integers(0, 60), st.just(b"")),
        ),
        max_size=12,
    )
)
def test_a_spool_holds_what_a_file_would(tmp_path_factory, steps):
    spool = SpoolDirectory(tmp_path_factory.mktemp("s")).new()
    model = bytearray()
    for kind, offset, data in steps:
        if kind == "write":
            spool.write(offset, data)
            if data:
                model.extend(bytes(max(0, offset - len(model))))
                model[offset : offset + len(data)] = data
        else:
            spool.truncate(offset)
            model = model[:offset] + bytes(max(0, offset - len(model)))
        assert spool.size == len(model)
    assert spool.read(0, 1000) == bytes(model)
    spool.discard()


def test_a_spool_is_found_again_by_its_name(tmp_path, spools):
    spool = spools.new()
    spool.write(0, b"content")
    spool.close()
    assert spool.read(0, 10) == b"content"  # closing only saves a descriptor
    again = SpoolDirectory(tmp_path / "spool").open(spool.path.name)
    assert again is not None
    assert (again.size, again.read(0, 10)) == (7, b"content")
    again.close()
    spool.discard()


def test_a_spool_that_is_gone_is_not_found(spools):
    spool = spools.new()
    spool.close()
    spool.path.unlink()
    assert spools.open(spool.path.name) is None


def test_a_spool_that_vanished_is_a_failure_of_the_disk(spools):
    spool = spools.new()
    spool.close()
    spool.path.unlink()
    for use in (lambda: spool.read(0, 1), lambda: spool.write(0, b"x"), lambda: spool.truncate(1)):
        with pytest.raises(LocalFault):
            use()


def test_only_what_the_journal_names_survives_a_restart(tmp_path, spools):
    kept, other = spools.new(), spools.new()
    SpoolDirectory(tmp_path / "spool").remove_others({kept.path.name})
    assert spools.open(kept.path.name) is not None
    assert spools.open(other.path.name) is None
    kept.close()
    other.close()


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MIB + 1, 9 * MIB])
async def test_a_copy_begins_with_the_same_bytes_and_is_another_file(spools, size):
    data = os.urandom(size)
    frozen = spools.new()
    frozen.write(0, data)
    frozen.frozen = True
    copy = await spools.copy(frozen.fd, size)
    assert not copy.frozen
    copy.write(0, b"changed")
    assert frozen.read(0, size) == data
    assert copy.read(7, size) == data[7:]
    frozen.discard()
    copy.discard()


async def test_a_copy_can_be_a_part(spools):
    spool = spools.new()
    spool.write(0, b"0123456789")
    copy = await spools.copy(spool.fd, 4)
    assert (copy.size, copy.read(0, 10)) == (4, b"0123")
    spool.discard()
    copy.discard()


async def test_a_copy_of_what_is_shorter_fails_and_leaves_nothing(tmp_path, spools):
    spool = spools.new()
    spool.write(0, b"0123")
    with pytest.raises(LocalFault):
        await spools.copy(spool.fd, 5)
    spools.close()
    assert len(list((tmp_path / "spool").iterdir())) == 1
    spool.discard()


async def test_a_copy_does_not_depend_on_the_source_staying_open(spools):
    spool = spools.new()
    spool.write(0, b"x" * 20 * MIB)
    source = os.dup(spool.fd)
    copy = None

    async def copying() -> None:
        nonlocal copy
        copy = await spools.copy(source, 20 * MIB)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copying)
        await wait_all_tasks_blocked()
        os.close(source)  # its owner is done with it
    assert copy is not None
    assert copy.read(20 * MIB - 1, 10) == b"x"
    spool.discard()
    copy.discard()


def test_a_directory_that_cannot_be_made_is_a_failure_of_the_disk(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LocalFault):
        SpoolDirectory(tmp_path / "file" / "spool")


# A disk that is full: what the child does on a file system of one MiB must fail, and say why.


def on_full_disk(directory: Path, script: str) -> None:
    """Run *script* with `full`, a directory on a disk with 1 MiB, and `tmp`, on one with room."""
    directory.mkdir()
    program = textwrap.dedent(
        """
        import os, subprocess, sys, trio
        from pathlib import Path
        from containerfs.errors import NoSpace, FileSystemError
        from containerfs.upload.spools import SpoolDirectory
        full, tmp = Path(sys.argv[1]), Path(sys.argv[2])
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(full)], check=True
        )
        spools = SpoolDirectory(full / "spool")
        """
    ) + textwrap.dedent(script)
    # A mount namespace of its own: the small disk goes with the child.
    command = ["unshare", "--mount", sys.executable, "-c", program, directory, directory.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk")


@needs_root
def test_a_write_on_a_full_disk_says_so_and_keeps_what_was_there(tmp_path):
    on_full_disk(
        tmp_path / "full",
        """
        spool = spools.new()
        spool.write(0, b"kept")
        try:
            spool.write(4, bytes(2 << 20))
        except NoSpace:
            pass
        else:
            raise SystemExit("no error")
        assert spool.read(0, 4) == b"kept"
        assert spool.size == os.fstat(spool.fd).st_size
        """,
    )


@needs_root
def test_a_copy_on_a_full_disk_says_so_and_leaves_nothing(tmp_path):
    on_full_disk(
        tmp_path / "full",
        """
        for extra in (1, 4096, 9 << 20):
            with open(tmp / "source", "wb+") as source:
                source.write(os.urandom((1 << 20) + extra))
                source.flush()
                try:
                    trio.run(spools.copy, source.fileno(), (1 << 20) + extra)
                except NoSpace:
                    pass
                else:
                    raise SystemExit(f"no error for {extra} bytes too many")
            assert not any(path.stat().st_size for path in (full / "spool").iterdir())
            spools.close()
            assert not list((full / "spool").iterdir())
        """,
    )


@needs_root
def test_a_copy_that_just_fits_is_whole(tmp_path):
    on_full_disk(
        tmp_path / "full",
        """
        data = os.urandom(900_000)
        with open(tmp / "source", "wb+") as source:
            source.write(data)
            source.flush()
            spool = trio.run(spools.copy, source.fileno(), len(data))
        assert spool.read(0, len(data) + 1) == data
        """,
    )


def test_a_spool_that_passes_the_file_size_limit_is_no_silent_loss(tmp_path):
    program = textwrap.dedent(
        """
        import os, resource, sys, trio
        from pathlib import Path
        from containerfs.errors import FileSystemError
        from containerfs.upload.spools import SpoolDirectory
        spools = SpoolDirectory(Path(sys.argv[1]))
        source = os.memfd_create("source")
        os.pwrite(source, os.urandom(3 << 20), 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        for attempt in (
            lambda: trio.run(spools.copy, source, 3 << 20),
            lambda: spools.new().write(0, bytes(3 << 20)),
            lambda: spools.new().truncate(3 << 20),
        ):
            try:
                attempt()
            except FileSystemError:
                pass
            else:
                raise SystemExit("no error")
        """
    )
    command = [sys.executable, "-c", program, tmp_path / "spool"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_no_journal_names_any_more_is_moved_aside(tmp_path, spools):
    assert spools.rescue() is None
    spool, empty = spools.new(), spools.new()
    spool.write(0, b"the only copy")
    spool.close()
    empty.close()
    aside = spools.rescue()
    assert [path.read_bytes() for path in aside.iterdir()] == [b"the only copy"]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spool_that_is_being_sent_is_discarded_after_that(spools):
    spool = spools.new()
    spool.write(0, b"on its way")
    spool.freeze()
    spool.discard()
    assert spool.read(0, 100) == b"on its way"
    spool.thaw()
    spools.close()
    assert not spool.path.exists()


# Files that are used again.


def used(spools, size=1):
    """A spool that held something and is not needed any more."""
    spool = spools.new()
    spool.write(0, b"x" * size)
    return spool


async def given(spools):
    """The paths of many small spools that are not needed any more."""
    many = [used(spools) for _ in range(AHEAD)]
    for spool in many:
        spool.discard()
    await trio.testing.wait_all_tasks_blocked(0.01)
    return {spool.path for spool in many}


def used_again(spools, paths):
    """New spools whose files are some of these."""
    found = [spools.new() for _ in range(3 * AHEAD)]
    return [spool for spool in found if spool.path in paths]


async def test_files_of_small_spools_are_those_of_later_ones_and_empty(spools, nursery):
    nursery.start_soon(spools.run)
    again = used_again(spools, await given(spools))
    assert again
    assert {(spool.size, spool.read(0, 10)) for spool in again} == {(0, b"")}
    nursery.cancel_scope.cancel()


async def test_no_file_is_used_again_before_the_journal_has_forgotten_it_for_good(
    tmp_path, nursery
):
    synced = trio.Event()
    spools = SpoolDirectory(tmp_path / "spool", sync=synced.wait)
    nursery.start_soon(spools.run)
    paths = await given(spools)
    assert used_again(spools, paths) == []
    assert all(path.read_bytes() == b"x" for path in paths), "as they were: it may come back"
    synced.set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert used_again(spools, paths)
    nursery.cancel_scope.cancel()


def test_a_large_spool_is_removed_as_it_may_still_be_copied(spools):
    spool = used(spools, MIB)
    spool.discard()
    assert not spool.path.exists()


async def test_a_synced_spool_is_removed_as_the_journal_may_come_to_name_it_again(spools):
    spool = used(spools)
    await spool.sync()
    spool.discard()
    assert not spool.path.exists()


async def test_a_file_that_somebody_removed_is_not_used_again(spools, nursery):
    nursery.start_soon(spools.run)
    paths = await given(spools)
    for path in paths:
        path.unlink()
    assert used_again(spools, paths) == []
    nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("slow_machine")
async def test_where_many_spools_are_made_their_files_are_made_ahead(tmp_path, spools, nursery):
    nursery.start_soon(spools.run)
    made = [spools.new() for _ in range(2)]
    with trio.fail_after(60):
        while len(list((tmp_path / "spool").iterdir())) < 2 + AHEAD:
            await trio.lowlevel.checkpoint()
    nursery.cancel_scope.cancel()
    for spool in made:
        spool.discard()


async def test_files_that_were_made_ahead_go_with_the_directorys_end(tmp_path, spools):
    used(spools).discard()
    spools.close()
    used(spools).discard()
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.usefixtures("slow_machine")
async def test_one_sync_is_for_the_files_of_many_spools(tmp_path, nursery):
    syncs = 0

    async def sync() -> None:
        nonlocal syncs
        syncs += 1

    spools = SpoolDirectory(tmp_path / "spool", sync=sync)
    nursery.start_soon(spools.run)
    under_way = deque(used(spools) for _ in range(AHEAD + 1))
    with trio.fail_after(60):
        while len(list((tmp_path / "spool").iterdir())) < 2 * AHEAD:
            await trio.lowlevel.checkpoint()
    for _ in range(10 * AHEAD):  # each time that one is made, one has been sent
        await wait_all_tasks_blocked(0.0005)
        under_way.append(used(spools))
        under_way.popleft().discard()
    assert 0 < syncs <= 20
    nursery.cancel_scope.cancel()


async def test_files_of_more_spools_than_can_be_used_again_are_removed(tmp_path, spools, nursery):
    nursery.start_soon(spools.run)
    many = [used(spools) for _ in range(MOST + MOST_DOOMED + AHEAD)]
    await wait_all_tasks_blocked(0.01)
    for spool in many:
        spool.discard()
    with trio.fail_after(60):
        while len(list((tmp_path / "spool").iterdir())) > MOST + 2 * AHEAD:
            await trio.lowlevel.checkpoint()
    nursery.cancel_scope.cancel()


async def test_files_that_wait_to_be_removed_go_with_the_directorys_end(tmp_path, spools):
    for spool in [used(spools) for _ in range(2 * MOST)]:
        spool.discard()
    assert list((tmp_path / "spool").iterdir())
    spools.close()
    assert list((tmp_path / "spool").iterdir()) == []
