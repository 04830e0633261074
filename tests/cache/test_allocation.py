"""Taking disk for parts of a file, and giving it back."""

import errno
import os

import pytest

from containerfs.cache.allocation import punch, reserve

SIZE = 1 << 20


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def reserve_if_possible(fd, start):
    try:
        reserve(fd, start, SIZE)
    except OSError as exc:
        if exc.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise
        pytest.skip("the file system can't")


def test_disk_is_taken_and_given_back_and_the_size_stays(fd):
    os.pwrite(fd, b"what is here", 0)
    os.truncate(fd, 2 * SIZE)
    reserve_if_possible(fd, SIZE)
    taken = os.fstat(fd)
    assert (taken.st_size, taken.st_blocks * 512 >= SIZE) == (2 * SIZE, True)
    punch(fd, SIZE, SIZE)
    given_back = os.fstat(fd)
    assert (given_back.st_size, given_back.st_blocks * 512 < SIZE) == (2 * SIZE, True)
    assert os.pread(fd, 12, 0) == b"what is here"


def test_what_was_reserved_can_be_written_and_reads_as_nothing_before(fd):
    reserve_if_possible(fd, 0)
    os.pwrite(fd, b"end", SIZE)
    assert os.pread(fd, 2 * SIZE, 0) == bytes(SIZE) + b"end"
