"""Giving parts of a file back to the disk."""

import fcntl
import os
import struct

# FS_IOC_UNRESVSP64 of linux/falloc.h, _IOW('X', 43, struct space_resv): fallocate(2) with
# FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (fs/ioctl.c), which Python has no function for.
_SPACE = struct.Struct("@hhqqiI4i")
_PUNCH = 1 << 30 | _SPACE.size << 16 | ord("X") << 8 | 43


def punch(fd: int, start: int, size: int) -> None:
    """Give the disk back what *size* bytes from *start* on take; the file's size stays.

    Raises:
        OSError: ENOTTY or EOPNOTSUPP where the kernel or the file system can't.
    """
    fcntl.ioctl(fd, _PUNCH, _SPACE.pack(0, os.SEEK_SET, start, size, 0, 0, 0, 0, 0, 0))
