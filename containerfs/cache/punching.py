"""Giving parts of a file back to the disk."""

import ctypes
import errno
import os

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch(fd: int, start: int, size: int) -> None:
    """Give the disk back what *size* bytes from *start* on take; the file's size stays.

    Raises:
        OSError: EOPNOTSUPP where the file system can't.

    Source: fallocate(2).
    """
    while _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, start, size):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
