"""Fetches small files ahead of a program that reads through a directory.

`cat *`, `grep -r` and `cp -r` open one file after the other, each time waiting for a round trip.
Where their opens come in order, the files that follow are fetched side by side, those of the next
directories too once a program has gone on from one to the next. Nothing is fetched for programs
that index whole file systems, and nothing once the opens stop coming.
"""

import logging
from collections import OrderedDict, deque

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import Downloads
from containerfs.errors import FileSystemError
from containerfs.fs.files.scanning import LAST_WINDOW, Scan, Siblings, parent_of
from containerfs.fs.kernel.callers import program
from containerfs.fs.kernel.pages import give_content
from containerfs.fs.tree.nodes import Directory, File

log = logging.getLogger(__name__)

PARALLEL = 64  # files on their way at once
BUDGET = 64 << 20  # bytes of files on their way at once
PATIENCE = 5.0  # seconds between two opens of one scan
STOPPED = 1.0  # seconds after its last open in which more is begun to be fetched
SCANS = 32  # directories in which opens are remembered
INDEXERS = frozenset(
    name[:15]  # what the kernel keeps of a process's name
    for name in (
        "baloo_file",
        "baloo_file_extractor",
        "localsearch-3",
        "localsearch-extractor-3",
        "mlocate",
        "recollindex",
        "tracker-extract",
        "tracker-extract-3",
        "tracker-miner-fs",
        "tracker-miner-fs-3",
        "updatedb",
        "updatedb.mlocate",
        "updatedb.plocate",
    )
)


class Prefetch:
    """Watches opens, and fetches what is likely to be opened next."""

    def __init__(
        self,
        *,
        downloads: Downloads,
        store: ContentStore,
        nursery: trio.Nursery,
        largest: int,
        cache_size: int,
    ) -> None:
        """Args:
        largest: Bytes; larger files are not fetched ahead. 0 turns it off.
        cache_size: Bytes that the store may keep.
        """
        self._budget = cache_size // 2  # more would evict what was fetched before it is read
        self._downloads = downloads
        self._store = store
        self._nursery = nursery
        self._largest = largest
        self._scans: OrderedDict[int, Scan] = OrderedDict()
        self._latest: Scan | None = None
        self._known: Siblings | None = None  # of the latest that were asked for
        self._pending: deque[tuple[Scan, File]] = deque(maxlen=LAST_WINDOW)
        self._bytes = 0  # on their way
        self._lanes = 0  # tasks that fetch one file after the other
        self._idle = trio.lowlevel.ParkingLot()  # those with nothing to do

    def opened(self, file: File, pid: int, *, is_elsewhere: bool) -> None:
        """Process *pid* opened *file* for reading.

        Args:
            is_elsewhere: Its content is not here.
        """
        directory, remote = file.parent, file.remote
        if directory is None or remote is None or not self._is_small(file):
            return
        scan = self._scan(directory)
        if not scan.orders:
            if not is_elsewhere or self._downloads.is_running(remote):
                return
            if scan.is_first(file) or program(pid) in INDEXERS:
                return
            scan.begin(self._siblings(directory), self._is_small, budget=self._budget)
        found = scan.opened(file, is_elsewhere=is_elsewhere)
        ahead = [each for each in found if not self._is_here(each)]
        if ahead:
            self._pending.extend((scan, each) for each in ahead)
            self._start()

    def _scan(self, directory: Directory) -> Scan:
        now = trio.current_time()
        scan = self._scans.get(directory.ino)
        if scan is None or now - scan.last > PATIENCE:
            scan = self._scans[directory.ino] = self._crossing(directory, now) or Scan(directory)
            if len(self._scans) > SCANS:
                self._scans.popitem(last=False)
        self._scans.move_to_end(directory.ino)
        scan.last, self._latest = now, scan
        return scan

    def _crossing(self, directory: Directory, now: float) -> Scan | None:
        """The scan that goes on in *directory*, where it was not before."""
        scan = self._latest
        if scan is None or now - scan.last > PATIENCE:
            return None
        parent = parent_of(directory)
        if parent is None or scan.directory.parent is not parent:
            return None
        siblings = self._siblings(directory)
        if siblings is None or not siblings.follows(directory, scan.directory):
            return None
        scan.cross(directory)
        return scan

    def _siblings(self, directory: Directory) -> Siblings | None:
        parent = parent_of(directory)
        if parent is None:
            return None
        if self._known is None or not self._known.are_of(parent):
            self._known = Siblings(parent)
        return self._known

    def _is_small(self, file: File) -> bool:
        remote = file.remote
        return (
            remote is not None
            and file.spool is None
            and remote.size is not None
            and 0 < remote.size <= self._largest
        )

    def _is_here(self, file: File) -> bool:
        """Its content is here, or on its way."""
        remote = file.remote
        return remote is None or (
            self._store.size_of(remote) is not None or self._downloads.is_running(remote)
        )

    def _start(self) -> None:
        """Have a lane for each file that is to be fetched, as far as there may be."""
        self._idle.unpark(count=len(self._pending))
        for _ in range(min(len(self._pending) - len(self._idle), PARALLEL - self._lanes)):
            self._lanes += 1
            self._nursery.start_soon(self._lane)

    async def _lane(self) -> None:
        """Fetch one file after the other; a task for each would cost as much as its request."""
        while True:
            while not self._pending or self._bytes >= BUDGET:
                await self._idle.park()
            scan, file = self._pending.popleft()
            if trio.current_time() - scan.last > STOPPED:  # it may just be waiting, too
                scan.forget_ahead()
                continue
            remote = file.remote
            if remote is not None and self._is_small(file):
                await self._fetch(file, remote, remote.size or 0)

    async def _fetch(self, file: File, remote: RemoteFile, size: int) -> None:
        self._bytes += size
        try:
            data = await self._downloads.fetch(remote)
            if data is not None and file.remote is remote and file.spool is None:
                give_content(file, data)
        except FileSystemError as exc:
            log.debug("%s was not fetched ahead: %s", remote.id, exc)
        except Exception:  # a bug: whoever reads it is told, and the lane goes on
            log.exception("fetching %s ahead failed", remote.id)
        finally:
            is_held_up = self._bytes >= BUDGET
            self._bytes -= size
            if is_held_up:
                self._idle.unpark(count=len(self._pending))
