"""Taking disk for parts of a file, and giving it back."""

import fcntl
import os
import struct

# FS_IOC_RESVSP64 and FS_IOC_UNRESVSP64 of linux/falloc.h, _IOW('X', 42 or 43, struct space_resv):
# fallocate(2) with FALLOC_FL_KEEP_SIZE, and with FALLOC_FL_PUNCH_HOLE too (fs/ioctl.c), which
# Python has no functions for. posix_fallocate(3) changes the size, and writes where it must.
_SPACE = struct.Struct("@hhqqiI4i")
_RESERVE = 1 << 30 | _SPACE.size << 16 | ord("X") << 8 | 42
_PUNCH = 1 << 30 | _SPACE.size << 16 | ord("X") << 8 | 43


def reserve(fd: int, start: int, size: int) -> None:
    """Take the disk that *size* bytes from *start* on need; the file's size stays.

    Raises:
        OSError: ENOTTY or EOPNOTSUPP where the kernel or the file system can't, ENOSPC.
    """
    _apply(fd, _RESERVE, start, size)


def punch(fd: int, start: int, size: int) -> None:
    """Give the disk back what *size* bytes from *start* on take; the file's size stays.

    Raises:
        OSError: ENOTTY or EOPNOTSUPP where the kernel or the file system can't.
    """
    _apply(fd, _PUNCH, start, size)


def _apply(fd: int, request: int, start: int, size: int) -> None:
    fcntl.ioctl(fd, request, _SPACE.pack(0, os.SEEK_SET, start, size, 0, 0, 0, 0, 0, 0))
