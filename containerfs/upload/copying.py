"""File content copied from one file of this machine to another."""

import os
from collections.abc import Callable
from functools import partial

import trio

from containerfs.errors import LocalFault

CHUNK = 8 << 20  # bytes that are copied at once; more than that is a thread's work


async def copy_bytes_in_thread(source: int, target: int, size: int) -> None:
    """`copy_bytes`, which may take long; whoever owns *source* may close it meanwhile."""
    own = os.dup(source)
    try:
        await trio.to_thread.run_sync(copy_bytes, own, target, size)
    finally:
        os.close(own)


def copy_bytes(source: int, target: int, size: int) -> None:
    """Let *target* begin with the first *size* bytes of *source*.

    By the kernel where it can (a reflink where the disk has them), else by reading.

    Raises:
        LocalFault: There are fewer.
        OSError: The disk failed.
    """
    done = _copy_with(partial(os.copy_file_range, source, target), size)
    while done < size:
        data = os.pread(source, min(CHUNK, size - done), done)
        if not data:
            raise LocalFault(f"the cached copy ends at {done} of {size} bytes")
        done += os.pwrite(target, data, done)  # on a full disk, less than all of it


def _copy_with(copy_range: Callable[[int, int, int], int], size: int) -> int:
    done = 0
    try:
        while done < size:
            count = copy_range(size - done, done, done)
            if not count:
                break
            done += count
    except OSError:  # not between these two files: the reader goes on where it stopped
        pass
    return done
