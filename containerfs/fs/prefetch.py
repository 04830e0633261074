"""Fetches small files ahead of a program that reads through a directory.

`cat *`, `grep -r` and `cp -r` open one file after the other, each time waiting for a round trip.
Their opens come in one of two orders, by name or (GNU cp and others, for the sake of disks) by
inode number; where they do, the files that follow are fetched side by side. Nothing is fetched
for programs that index whole file systems, and nothing once the opens stop coming.
"""

import logging
from collections import OrderedDict, deque
from pathlib import Path

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import Downloads
from containerfs.errors import FileSystemError
from containerfs.fs.nodes import Directory, File

log = logging.getLogger(__name__)

GAP = 32  # places that a program may skip and still be reading in order (`grep --include`)
RUN = 2  # opens in order before anything is fetched
FIRST_WINDOW = 8  # files ahead; doubles with each further open in order
LAST_WINDOW = 256
PARALLEL = 64  # files on their way at once
BUDGET = 64 << 20  # bytes of files on their way at once
PATIENCE = 5.0  # seconds between two opens of one scan
SCANS = 32  # directories that are watched at once
INDEXERS = frozenset(
    name[:15]  # what the kernel keeps of a process's name
    for name in (
        "baloo_file",
        "baloo_file_extractor",
        "localsearch-3",
        "localsearch-extractor-3",
        "mlocate",
        "tracker-extract",
        "tracker-extract-3",
        "tracker-miner-fs",
        "tracker-miner-fs-3",
        "updatedb",
        "updatedb.mlocate",
        "updatedb.plocate",
    )
)


class _Order:
    """The small files of a directory in one order, and how far a program got in it."""

    __slots__ = ("ahead", "files", "place", "places", "run")

    def __init__(self, files: list[File]) -> None:
        self.files = files
        self.places = {file.ino: place for place, file in enumerate(files)}
        self.place = -1
        self.run = 0
        self.ahead = 0  # files before this place were looked at

    def opened(self, file: File) -> None:
        place = self.places.get(file.ino)
        if place is None:
            return
        if self.place >= 0 and 0 < place - self.place <= GAP:
            self.run += 1
        elif place != self.place:
            self.run, self.ahead = 0, place + 1
        self.place = place

    def next_files(self) -> list[File]:
        """Those to be fetched now, each given once."""
        if self.run < RUN:
            return []
        window = min(FIRST_WINDOW << min(self.run - RUN, 8), LAST_WINDOW)
        start, end = max(self.ahead, self.place + 1), self.place + 1 + window
        self.ahead = max(end, self.ahead)
        return self.files[start:end]


class _Scan:
    """The opens of files of one directory."""

    __slots__ = ("count", "last", "orders")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0
        self.orders: tuple[_Order, ...] = ()


class Prefetch:
    """Watches opens, and fetches what is likely to be opened next."""

    def __init__(
        self, *, downloads: Downloads, store: ContentStore, nursery: trio.Nursery, largest: int
    ) -> None:
        """Args:
        largest: Bytes; larger files are not fetched ahead. 0 turns it off.
        """
        self._downloads = downloads
        self._store = store
        self._nursery = nursery
        self._largest = largest
        self._scans: OrderedDict[int, _Scan] = OrderedDict()
        self._pending: deque[File] = deque(maxlen=LAST_WINDOW)
        self._under_way = 0
        self._bytes = 0

    def opened(self, file: File, pid: int) -> None:
        """Process *pid* opened *file* for reading."""
        directory = file.parent
        if directory is None or not self._is_small(file):
            return
        scan = self._scan(directory)
        if not scan.orders:
            if self._is_here(file):
                return
            scan.count += 1
            if scan.count < RUN or is_indexer(pid):
                return
            scan.orders = self._orders(directory)
        for order in scan.orders:
            order.opened(file)
        leading = max(scan.orders, key=lambda order: order.run)
        self._pending.extend(leading.next_files())
        self._start()

    def _scan(self, directory: Directory) -> _Scan:
        now = trio.current_time()
        scan = self._scans.get(directory.ino)
        if scan is None or now - scan.last > PATIENCE:
            scan = self._scans[directory.ino] = _Scan()
            if len(self._scans) > SCANS:
                self._scans.popitem(last=False)
        self._scans.move_to_end(directory.ino)
        scan.last = now
        return scan

    def _orders(self, directory: Directory) -> tuple[_Order, ...]:
        files = [
            node
            for node in directory.children.values()
            if isinstance(node, File) and self._is_small(node)
        ]
        return (
            _Order(sorted(files, key=lambda file: file.name)),
            _Order(sorted(files, key=lambda file: file.ino)),
        )

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
        while self._pending and self._under_way < PARALLEL and self._bytes < BUDGET:
            file = self._pending.popleft()
            remote = file.remote
            if remote is not None and self._is_small(file) and not self._is_here(file):
                size = remote.size or 0
                self._under_way += 1
                self._bytes += size
                self._nursery.start_soon(self._run, remote, size)

    async def _run(self, remote: RemoteFile, size: int) -> None:
        try:
            download = self._downloads.join(remote)
            try:
                await download.wait_for(size)
            finally:
                self._downloads.leave(download)
        except FileSystemError as exc:
            log.debug("%s was not fetched ahead: %s", remote.id, exc)
        finally:
            self._under_way -= 1
            self._bytes -= size
            self._start()


def is_indexer(pid: int) -> bool:
    """Whether the process is one that reads every file there is, for nobody in particular."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in INDEXERS
    except OSError:
        return False
