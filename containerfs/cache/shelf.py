"""Where complete content is: a file each, or a place in a pack, as the index tells.

What the index tells is looked at before it is believed: the cache directory may have been changed,
and a power cut takes things back in an order of its own.
"""

import logging
import os
import zlib
from pathlib import Path

from containerfs.cache.cachefile import Content, PackedContent, local_disk
from containerfs.cache.index import ContentIndex
from containerfs.cache.packs import SUFFIX, Packs, pack_name

log = logging.getLogger(__name__)


class Shelf:
    """The complete content of a cache directory."""

    def __init__(self, *, directory: Path, index: ContentIndex, packs: Packs) -> None:
        self._directory = directory
        self._prefix = f"{directory}/"  # pathlib's joins are slow where there are many small files
        self._index = index
        self._packs = packs

    def tidy(self) -> None:
        """Remove what is not known, forget what is not there.

        Raises:
            LocalFault: The directory can't be read, or changed.
        """
        files = {name: self.file(name) for name in self._index}
        known = set(files.values())
        with local_disk("tidying the cache"):
            present = {entry.name for entry in os.scandir(self._directory)}
            for file in present - known:
                (self._directory / file).unlink()
        for name, file in files.items():
            if file not in present:
                self._index.drop(name)
        numbers = [file.removesuffix(SUFFIX) for file in present if file.endswith(SUFFIX)]
        self._packs.found(
            self._index.addresses, last=max((int(n) for n in numbers if n.isdecimal()), default=-1)
        )

    def file(self, name: str) -> str:
        """The name of the file that *name*, which is kept, is in."""
        address = self._index.address(name)
        return name if address is None else pack_name(address)

    def take(self, name: str) -> Content | None:
        """The content called *name*, with a pin; None where it is not here, or is not whole."""
        size = self._index.size(name)
        if size is None:
            return None
        address = self._index.address(name)
        try:
            content = (
                self._from_file(name, size)
                if address is None
                else self._from_pack(name, address, size)
            )
        except OSError as exc:
            log.warning("cache file %s is lost: %s", self.file(name), exc)
            return None
        if content is None:
            log.warning("cache file %s has the wrong size or content, dropped", self.file(name))
        return content

    def _from_file(self, name: str, size: int) -> Content | None:
        fd = os.open(self._prefix + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(fd).st_size == size:
            return Content(name=name, fd=fd, size=size, complete=True)
        os.close(fd)
        return None

    def _from_pack(self, name: str, address: int, size: int) -> Content | None:
        if not self._packs.has(address, size) or not self._is_proved(name, address, size):
            return None
        self._packs.hold(address)
        return PackedContent(
            name=name, packs=self._packs, address=address, size=size, complete=True
        )

    def _is_proved(self, name: str, address: int, size: int) -> bool:
        crc = self._index.checksum(name)
        if crc is not None and zlib.crc32(self._packs.read(address, size)) != crc:
            return False
        self._index.proved(name)
        return True

    def put(self, content: Content, size: int) -> None:
        """*content* is what is kept under its name from now on.

        Raises:
            LocalFault: It can't be read.
        """
        address = crc = None
        if isinstance(content, PackedContent):
            address, crc = content.address, content.checksum
            self._packs.hold(address)
        self._index.add(content.name, size, address=address, crc=crc)

    def link(self, source: str, target: str) -> None:
        """Keep what is kept as *source* as *target* too, which is not here.

        Raises:
            LocalFault: It can't be.
        """
        size, address = self._index.size(source), self._index.address(source)
        if size is None:
            return
        crc = None
        with local_disk("keeping an upload"):
            if address is None:
                (self._directory / target).unlink(missing_ok=True)
                os.link(self._directory / source, self._directory / target)
            elif self._is_proved(source, address, size):
                crc = zlib.crc32(self._packs.read(address, size))
                self._packs.hold(address)
            else:
                return
        self._index.add(target, size, address=address, crc=crc)
