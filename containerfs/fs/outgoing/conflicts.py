"""Several uploads of one file, by this machine and others: the last one wins.

Nobody asks the server for rivals of each upload. They show when what an upload replaces is gone
already, or in the listings that are read next: who uploads last sees the other one there.
"""

import logging
from dataclasses import dataclass

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.metadata import Metadata
from containerfs.errors import FileSystemError
from containerfs.fs.names.names import components, stripped
from containerfs.fs.outgoing.uncertain import without_uncertain
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.fs.tree.reconciling import Reconciliation
from containerfs.fs.tree.tree import Tree
from containerfs.upload.deletions import Deletion
from containerfs.upload.intents import Intents
from containerfs.upload.journal import Journal
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

LOOKS = 2  # listings that tell: the first may have been asked for before the upload was over
DOUBT_LIFE = 300.0  # seconds in which a lost upload may still come to be listed
AT_ONCE = 120  # seconds between uploads that did not know of one another


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class _Sent:
    """An upload that others may have made too."""

    file: File
    looks: int = LOOKS
    until: float  # trio's clock


class Conflicts:
    """Finds the rivals of what was sent, and deletes all but one."""

    def __init__(
        self,
        *,
        tree: Tree,
        reconciliation: Reconciliation,
        metadata: Metadata,
        journal: Journal,
        intents: Intents,
        uploader: Uploader,
        nursery: trio.Nursery,
    ) -> None:
        self._tree = tree
        self._reconciliation = reconciliation
        self._metadata = metadata
        self._journal = journal
        self._intents = intents
        self._uploader = uploader
        self._nursery = nursery
        self._sent: dict[str, dict[str, _Sent]] = {}  # by container, by object

    def sent(self, container: ContainerDirectory, file: File) -> None:
        """*file* was just uploaded: the next listings tell whether somebody else did that too."""
        if file.remote is not None:
            life = DOUBT_LIFE if self._uploader.may_be_twice(file.remote.id) else 0.0
            sent = _Sent(file=file, until=trio.current_time() + life)
            self._sent.setdefault(container.remote.id, {})[file.remote.id] = sent

    def listed(self, container: ContainerDirectory, entries: tuple[RemoteFile, ...]) -> None:
        """A listing came: settle, in the background, what others uploaded at the same time."""
        recent = self._sent.get(container.remote.id)
        if not recent:
            return
        for file in self._contested(container, recent, entries):
            self._nursery.start_soon(self._settle, container, file)
        now = trio.current_time()
        for id, sent in list(recent.items()):
            sent.looks -= self._metadata.is_listed(container.remote.id, id)
            if (sent.looks <= 0 and now >= sent.until) or not _shows(sent.file, id):
                del recent[id]

    def _contested(
        self,
        container: ContainerDirectory,
        recent: dict[str, _Sent],
        entries: tuple[RemoteFile, ...],
    ) -> set[File]:
        """Those of the *recent* uploads that the listing has rivals of."""
        files = {
            tuple(sent.file.path.split("/")): sent.file
            for id, sent in recent.items()
            if sent.file.parent is not None and _shows(sent.file, id)
        }
        since = min(map(_created, files.values()), default=0) - AT_ONCE
        found = set()
        for other in entries:
            if other.created >= since and other.id not in recent:
                file = files.get(stripped(other.path, id=other.id) or ())
                if file is not None and _is_rival(container, file, other):
                    found.add(file)
        return found

    async def _settle(self, container: ContainerDirectory, file: File) -> None:
        async with file.changing:
            if not file.is_dirty:  # else it is sent again: that settles it
                await self._resolve(container, file)

    async def missing(self, deletion: Deletion) -> None:
        """Somebody else deleted what was to be deleted here: perhaps they changed the file, too.

        What is shown there is touched only where it was sent from here.
        """
        container = self._tree.containers.get(deletion.container_id)
        if container is None or not deletion.path:
            return
        file = self._tree.find(container, deletion.path)
        if isinstance(file, File) and file.local is not None:
            async with file.changing:
                if not file.is_dirty and _shows(file, file.local.file_id):
                    await self.resolve(container, file)

    async def resolve(self, container: ContainerDirectory, file: File) -> None:
        """Somebody replaced the object that *file* was opened from: the last upload wins.

        Whoever finds this out deletes all but the newest, by the server's own order: so several
        who do it at once agree, and never delete each other's. `file.changing` is held.
        """
        try:
            await self._metadata.files(container.remote.id, fresh=True)
        except FileSystemError as exc:
            log.warning("container %s: %s", container.remote.id, exc)
            return
        await self._resolve(container, file)

    async def _resolve(self, container: ContainerDirectory, file: File) -> None:
        """Decide by the newest listing: what was sent or removed since an older one is forgotten to
        be laid over that.
        """
        listed = self._seen(container, self._metadata.newest_files(container.remote.id))
        remote = file.remote
        if remote is None or file.parent is None:
            return
        winner, *losers = self._rivals(container, file, remote, listed)
        is_certain = self._metadata.is_listed(container.remote.id, remote.id)
        if not losers or not is_certain or not await self._is_there(container, winner, own=remote):
            return
        for loser in losers:
            log.warning("%r: %s wins over %s", file.path, winner.id, loser.id)
            self._metadata.forget(container.remote.id, loser.id)
            await self._uploader.delete(container.remote.id, loser.id, path=file.path)
        newest = self._metadata.newest_files(container.remote.id)
        entries = self._metadata.corrected(container.remote.id, newest)
        self._reconciliation.reconcile(container, self._seen(container, entries))

    def _seen(
        self, container: ContainerDirectory, entries: tuple[RemoteFile, ...]
    ) -> tuple[RemoteFile, ...]:
        return without_uncertain(container, entries, self._intents.doubtful.values())

    async def _is_there(
        self, container: ContainerDirectory, winner: RemoteFile, *, own: RemoteFile
    ) -> bool:
        """Whether *winner* is still there: a listing is some seconds old, and may be stale."""
        if winner.id == own.id:
            return True
        try:
            return await self._uploader.find(container.remote.id, winner.id) is not None
        except FileSystemError as exc:
            log.info("whether %s is there is not known: %s", winner.id, exc)
            return False

    def _rivals(
        self,
        container: ContainerDirectory,
        file: File,
        remote: RemoteFile,
        listed: tuple[RemoteFile, ...],
    ) -> list[RemoteFile]:
        """The objects that were uploaded as *file*, the newest first; *remote* is one of them."""
        path = tuple(file.path.split("/"))
        condemned = set(self._journal.deletions)
        found = [
            other
            for other in listed
            if other.id == remote.id
            or (
                stripped(other.path, id=other.id) == path
                and _is_rival(container, file, other)
                and (container.remote.id, other.id) not in condemned
            )
        ]
        # A sort is stable: among what came in one second the order of the listing holds.
        return sorted(found, key=lambda other: other.created, reverse=True) or [remote]


def _is_rival(container: ContainerDirectory, file: File, other: RemoteFile) -> bool:
    """Whether *other*, which has the name of *file* on the server, was meant to be that file.

    One that was renamed here is another file. So is one that is shown beside it by the server's
    own name, unless it came at the time when neither of the two could know of the other.
    """
    shown = container.files.get(other.id, file)
    if shown is file:
        return True
    is_raw = shown.path == "/".join(components(other.path, id=other.id))
    is_untouched = not shown.opens and shown.spool is None
    return is_raw and is_untouched and abs(other.created - _created(file)) <= AT_ONCE


def _shows(file: File, id: str | None) -> bool:
    return file.remote is not None and file.remote.id == id


def _created(file: File) -> int:
    return file.remote.created if file.remote is not None else 0
