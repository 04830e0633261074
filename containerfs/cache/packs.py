"""Small contents side by side in a few files.

To make, open and remove a file of its own costs more than what a small content holds. A pack only
grows at its end; what goes is punched out of it, so that the disk has the room at once, and a pack
with nothing left in it is removed. Where the file system can't punch, nothing is packed.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from containerfs.cache.allocation import punch

log = logging.getLogger(__name__)

BLOCK = 4096  # bytes: what a disk gives out at a time
SPAN = 1 << 32  # bytes; addresses count through all packs, each of which has so many
LARGEST = 64 << 10  # bytes of a content that is packed
MOST_OPEN = 64  # packs
SUFFIX = ".pack"
_OLD = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def cost(size: int) -> int:
    """Bytes of disk that *size* bytes take, in a file of their own or in a pack."""
    return -(-size // BLOCK) * BLOCK


def pack_name(address: int) -> str:
    """The name of the file that holds this address."""
    return f"{address // SPAN}{SUFFIX}"


class Packs:
    """The packs of a cache directory.

    A place in them is held by whoever took or found it, as often as that was, and goes with the
    last hold.
    """

    def __init__(self, directory: Path) -> None:
        self._prefix = f"{directory}/"
        self._open: dict[int, int] = {}  # descriptors by number
        self._live: Counter[int] = Counter()  # bytes of disk in use, by number
        self._holds: Counter[int] = Counter()  # by address, where there is more than one
        self._end: int | None = None  # the next address; none in a pack of ours yet
        self._first = 0  # the number of the first pack of ours
        self.can_punch = True

    def found(self, places: Iterable[tuple[int, int]], *, last: int) -> None:
        """Hold what an earlier mount has left, and give the disk back what lies between.

        Args:
            places: Addresses and sizes.
            last: The highest number of a pack that is there.
        """
        ends: dict[int, list[tuple[int, int]]] = {}
        seen = set()
        for address, size in places:
            if address in seen:
                self.hold(address)
                continue
            seen.add(address)
            number = address // SPAN
            self._live[number] += cost(size)
            ends.setdefault(number, []).append((address % SPAN, cost(size)))
            last = max(last, number)
        self._first = last + 1  # never one that is there: a power cut may have cut it short
        for number, stretches in ends.items():
            self._tidy(number, sorted(stretches))

    def _tidy(self, number: int, stretches: list[tuple[int, int]]) -> None:
        try:
            told = os.stat(f"{self._prefix}{number}{SUFFIX}", follow_symlinks=False)
            if told.st_blocks * 512 <= self._live[number]:
                return
            end = 0
            for start, size in [*stretches, (told.st_size, 0)]:
                if start > end:
                    self._punch(number, end, start - end)
                end = start + size
        except OSError as exc:
            log.warning("pack %d of the cache is not tidied: %s", number, exc)

    def take(self, size: int) -> int | None:
        """The address of a free place for *size* bytes, held once; None where nothing is packed.

        Raises:
            OSError: There can't be one.
        """
        if not self.can_punch or not self._has_place(cost(size)):
            return None
        assert self._end is not None  # noqa: S101 - tells mypy
        address, self._end = self._end, self._end + cost(size)
        self._live[address // SPAN] += cost(size)
        return address

    def _has_place(self, size: int) -> bool:
        if self._end is not None and self._end % SPAN and self._end % SPAN + size <= SPAN:
            return True
        number = self._first if self._end is None else -(-self._end // SPAN)
        path = f"{self._prefix}{number}{SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._open[number] = os.open(path, flags, 0o600)
        try:
            self._punch(number, 0, BLOCK)
        except OSError as exc:
            log.info("the file system of the cache can't punch holes: %s", exc)
            self.can_punch = False
            self._remove(number)
            return False
        full, self._end = self._newest, number * SPAN
        if full is not None and not self._live[full]:
            self._remove(full)
        return True

    def hold(self, address: int) -> None:
        """Hold this place once more."""
        self._holds[address] += 1

    def let_go(self, address: int, size: int) -> None:
        """Give one hold back; what nobody holds is gone."""
        if self._holds[address]:
            self._holds[address] -= 1
            return
        del self._holds[address]
        number, start = divmod(address, SPAN)
        self._live[number] -= cost(size)
        try:
            if self._live[number] or number == self._newest:
                self._punch(number, start, cost(size))
            else:
                self._remove(number)
        except OSError as exc:
            log.info("a place in pack %d of the cache is not freed: %s", number, exc)

    def has(self, address: int, size: int) -> bool:
        """Whether there are *size* bytes at this address.

        Raises:
            OSError: The pack can't be opened.
        """
        number, start = divmod(address, SPAN)
        return os.fstat(self._fd(number)).st_size >= start + size

    def read(self, address: int, size: int) -> bytes:
        """*size* bytes from *address* on.

        Raises:
            OSError: They can't be read.
        """
        number, start = divmod(address, SPAN)
        return os.pread(self._fd(number), size, start)

    def write(self, data: memoryview, address: int) -> int:
        """Write *data* to where it was taken for; returns how many bytes of it were written.

        Raises:
            OSError: They can't be written.
        """
        number, start = divmod(address, SPAN)
        return os.pwrite(self._fd(number), data, start)

    @property
    def _newest(self) -> int | None:
        """The pack that still grows."""
        return None if self._end is None else (self._end - 1) // SPAN

    def _fd(self, number: int) -> int:
        fd = self._open.get(number)
        if fd is None:
            fd = os.open(f"{self._prefix}{number}{SUFFIX}", _OLD)
            if len(self._open) >= MOST_OPEN:
                first = next(each for each in self._open if each != self._newest)
                os.close(self._open.pop(first))
            self._open[number] = fd
        return fd

    def _punch(self, number: int, start: int, size: int) -> None:
        if size:
            punch(self._fd(number), start, size)

    def _remove(self, number: int) -> None:
        del self._live[number]
        fd = self._open.pop(number, None)
        if fd is not None:
            os.close(fd)
        os.unlink(f"{self._prefix}{number}{SUFFIX}")
