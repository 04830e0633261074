"""Uploads whose answers were lost, of files that get another name, or none.

What arrived of them nevertheless would come back as a file that somebody has removed, or stay on
the server beside the one that took its name. A file that keeps its name needs none of this: it is
looked for when it is sent again.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable

from containerfs.cache.metadata import Metadata
from containerfs.errors import Expired, NotFound
from containerfs.fs.outgoing.conflicts import Conflicts
from containerfs.fs.outgoing.delivery import Delivery
from containerfs.fs.outgoing.flattening import is_sent_as
from containerfs.fs.outgoing.moves import may_be_named
from containerfs.fs.outgoing.uncertain import UncertainRenames
from containerfs.fs.outgoing.underway import UnderWay, name_of
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.upload.fingerprint import Fingerprint, fingerprint
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)


class LostAnswers:
    """Finds out what arrived, and removes it."""

    def __init__(
        self,
        *,
        delivery: Delivery,
        conflicts: Conflicts,
        metadata: Metadata,
        journal: Journal,
        uploader: Uploader,
        uncertain: UncertainRenames,
        under_way: UnderWay,
    ) -> None:
        self._delivery = delivery
        self._conflicts = conflicts
        self._metadata = metadata
        self._journal = journal
        self._uploader = uploader
        self._uncertain = uncertain
        self._under_way = under_way

    def recall(self) -> None:
        """Know what was listed before the mount began from what an earlier one may have sent.

        What has the very path is the same file in any case; what has its base name only, as from a
        server that drops directories, may be another one with the same content: what it was copied
        from.
        """
        entries = [each for each in self._journal.entries if each.state == "sending"]
        below = defaultdict(list)
        for entry in (*entries, *self._journal.doubtful):
            if "/" in entry.path:
                below[entry.container_id].append(entry)
        for container_id, entries in below.items():
            listed = self._metadata.last_files(container_id)
            for entry in entries:
                entry.others.update(
                    each.id
                    for each in may_be_named(listed, entry.path)
                    if not is_sent_as(each, entry.path, may_be_flat=False)
                )

    async def settle(self, files: Iterable[File]) -> None:
        """Return when the server has nothing of these but what is known here.

        `changing` of each is held.

        Raises:
            FileSystemError: The server could not be asked: nothing may be forgotten yet.
        """
        for file in files:
            if file.container is not None:
                await self._uncertain.settle(file.container.remote.id, file.path)
            if file.entry is not None and file.entry.state == "sending":
                await self._remove_arrived(file)
            elif file.remote is not None and self._uploader.may_be_twice(file.remote.id):
                container = file.container
                if container is not None:
                    await self._conflicts.resolve(container, file)

    async def settle_container(self, container: ContainerDirectory) -> None:
        """Return when nothing of *container* is hidden for the sake of a rename that failed.

        Raises:
            FileSystemError: The server could not be asked.
        """
        await self._uncertain.settle_container(container.remote.id)

    async def _remove_arrived(self, file: File) -> None:
        container, entry, spool = file.container, file.entry, file.spool
        if container is None or container.is_snapshot or entry is None or spool is None:
            return
        self._delivery.learn(container)
        contents = defaultdict(set, {entry.path: set[Fingerprint]()})
        for container_id, path, content in entry.lost:  # it may have been written to since
            if container_id == container.remote.id:
                contents[path].add(content)
        spool.freeze()
        try:  # after a restart that is all there is to know it by
            contents[entry.path].add(await fingerprint(spool.fd, spool.size))
        finally:
            spool.thaw()
        try:
            for path in contents:
                async with self._under_way.looking(name_of(container.remote.id, path)):
                    await self._remove(container, entry, path, contents[path])
        except (NotFound, Expired) as exc:  # with all that was in it
            log.info("container %s: %s", container.remote.id, exc)
            return
        self._journal.update(entry, state="dirty")
        self._journal.found(entry, entry.lost)
        entry.others.clear()

    async def _remove(
        self,
        container: ContainerDirectory,
        entry: Entry,
        path: str,
        contents: Collection[Fingerprint],
    ) -> None:
        id = container.remote.id
        arrived = await self._delivery.find(id, path=path, contents=contents, others=entry.others)
        for each in arrived:
            self._metadata.forget(id, each.id)
            await self._uploader.delete(id, each.id, path=entry.path)
