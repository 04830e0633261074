"""Small contents of one place side by side in one file, its pack.

To make and remove a file costs more than what a small content holds. A pack grows at its end only;
what goes is punched out of it, so that the disk has the room at once and its bytes are gone.
"""

import fcntl
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LARGEST = 64 * 1024  # bytes of a content that is packed
NAME = "pack"
_BLOCK = 4096  # bytes: what a disk gives out at a time
_KEY = re.compile(r"([0-9]+)\+([0-9]+)")
# FS_IOC_UNRESVSP64 of linux/falloc.h, _IOW('X', 43, struct space_resv): fallocate(2) with
# FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (fs/ioctl.c), which Python has no function for.
_SPACE = struct.Struct("@hhqqiI4i")
_PUNCH = 1 << 30 | _SPACE.size << 16 | ord("X") << 8 | 43
_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where in its pack a content is, in bytes."""

    start: int
    size: int

    @property
    def key(self) -> str:
        """The content's key, which tells all of this."""
        return f"{self.start}+{self.size}"

    @property
    def end(self) -> int:
        """Where the next content may be: no block holds bytes of two."""
        return self.start + -(-self.size // _BLOCK) * _BLOCK


def stretch_of(key: str) -> Stretch | None:
    """The stretch that a key tells; None for the key of a content in a file of its own."""
    match = _KEY.fullmatch(key)
    return Stretch(int(match[1]), int(match[2])) if match else None


def append(pack: Path, data: bytes | memoryview) -> Stretch:
    """Put *data* at the end of a pack, which is made if missing.

    Raises:
        OSError: It isn't there, nor is a part of it.
    """
    with _opened(pack, os.O_CREAT) as fd:
        end = os.lseek(fd, 0, os.SEEK_END)
        stretch = Stretch(-(-end // _BLOCK) * _BLOCK, len(data))
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(fd, data[written:], stretch.start + written)
        except OSError:
            os.ftruncate(fd, end)
            raise
    return stretch


def remove(pack: Path, stretch: Stretch) -> None:
    """Remove a content from its pack."""
    if stretch.size:
        with _opened(pack) as fd:
            _punch(fd, stretch.start, stretch.end - stretch.start)


def tidy(pack: Path, known: Iterable[Stretch]) -> None:
    """Remove whatever isn't known."""
    with _opened(pack) as fd:
        end = 0
        for stretch in sorted(known, key=lambda each: each.start):
            if stretch.start > end:
                _punch(fd, end, stretch.start - end)
            end = max(end, stretch.end)
        if os.fstat(fd).st_size > end:
            os.ftruncate(fd, end)


def extend(pack: Path, end: int) -> None:
    """Have a pack, made if missing, be *end* bytes long at least."""
    with _opened(pack, os.O_CREAT) as fd:
        if os.fstat(fd).st_size < end:
            os.ftruncate(fd, end)


def can_punch(directory: Path) -> bool:
    """Whether what goes from a pack in this directory would be gone."""
    trial = directory / NAME
    try:
        remove(trial, append(trial, bytes(_BLOCK)))
    except OSError:
        return False
    finally:
        trial.unlink(missing_ok=True)
    return True


@contextmanager
def _opened(pack: Path, flags: int = 0) -> Iterator[int]:
    fd = os.open(pack, _FLAGS | flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _punch(fd: int, start: int, size: int) -> None:
    fcntl.ioctl(fd, _PUNCH, _SPACE.pack(0, os.SEEK_SET, start, size, 0, 0, 0, 0, 0, 0))
