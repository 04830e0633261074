"""Renames that failed, of which something may have arrived nevertheless.

Its caller was told that nothing changed, so what arrived must not be seen, and goes: by its name
and its content, once the server answers again. Nothing else is sent under that name before that,
or it could be taken for what arrived. And nothing is done here to the file that was to be renamed:
where it is gone by then, somebody else has renamed it, perhaps to that very name, and what is there
may be all that is left of it.

One that was cut off with an earlier mount has told its caller nothing. It is ended as at the start
of a mount (`Settling`), where the server did not answer then; its names wait for that in the same
way, and what may have arrived is shown meanwhile: it may be all that is left.
"""

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.metadata import Metadata
from containerfs.errors import Expired, FileSystemError, NotFound
from containerfs.fs.outgoing.delivery import Delivery
from containerfs.fs.outgoing.flattening import is_sent_as
from containerfs.fs.outgoing.settling import Settling
from containerfs.fs.outgoing.underway import UnderWay, name_of
from containerfs.fs.tree.nodes import ContainerDirectory
from containerfs.upload.fingerprint import Fingerprint
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import Journal
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

FIRST_LOOK = 1.0  # seconds after which the server is asked in the background; doubles
LAST_LOOK = 60.0
PARALLEL = 16  # looked for at one time


class UncertainRenames:
    """Finds out what arrived of them, and removes it."""

    def __init__(
        self,
        *,
        settling: Settling,
        under_way: UnderWay,
        intents: Intents,
        journal: Journal,
        metadata: Metadata,
        delivery: Delivery,
        uploader: Uploader,
        nursery: trio.Nursery,
    ) -> None:
        self._cut_off = settling
        self._under_way = under_way
        self._intents = intents
        self._journal = journal
        self._metadata = metadata
        self._delivery = delivery
        self._uploader = uploader
        self._nursery = nursery
        self._settling: defaultdict[int, trio.Lock] = defaultdict(trio.Lock)
        self._is_looking = False

    def add(self, id: int, sent: Collection[Fingerprint]) -> None:
        """The recorded rename *id* has failed, and one of these contents may have arrived."""
        try:
            self._intents.doubt(id, tuple(sent))
        except FileSystemError as exc:
            log.warning("that a rename may have arrived is not recorded: %s", exc)
        self.look()

    def look(self) -> None:
        """Ask the server in the background, until it has told of all."""
        if self._intents.doubtful and not self._is_looking:
            self._is_looking = True
            self._nursery.start_soon(self._look)

    async def _look(self) -> None:
        delay = FIRST_LOOK
        while self._intents.doubtful:
            await trio.sleep(delay)
            delay = min(2 * delay, LAST_LOOK)
            await self.try_to_settle()
        self._is_looking = False

    async def try_to_settle(self, container_id: str | None = None) -> None:
        """Settle those of which the server tells now, side by side: it may be silent.

        Args:
            container_id: Only those that have to do with this container; None for all.
        """
        slots = trio.CapacityLimiter(PARALLEL)

        async def try_to_settle(id: int, rename: Rename) -> None:
            try:
                async with slots:
                    await self._settle(id)
            except FileSystemError as exc:
                log.info("whether %r has arrived is still not known: %s", rename.path, exc)
            except Exception:  # a bug: the record stays, and the mount lives on
                log.exception("looking for %r failed", rename.path)

        async with trio.open_nursery() as nursery:
            for id, rename in self._intents.doubtful.items():
                if container_id in (None, rename.container_id, rename.source_id):
                    nursery.start_soon(try_to_settle, id, rename)

    async def settle(self, container_id: str, path: str) -> None:
        """Return when no failed rename is doubtful that was of *path*, or has put something there,
        or where a server may have put it.

        Raises:
            FileSystemError: The server does not tell.
        """
        while (id := self._doubt_about(container_id, path)) is not None:
            await self._settle_in_the_end(id)

    def _doubt_about(self, container_id: str, path: str) -> int | None:
        name = name_of(container_id, path)
        for id, rename in self._intents.doubtful.items():
            is_source = (rename.source_id, rename.source_path) == (container_id, path)
            if is_source or name_of(rename.container_id, rename.path) == name:
                return id
        return None

    async def settle_container(self, container_id: str) -> None:
        """Return when all that is in a container may be seen.

        Raises:
            FileSystemError: The server does not tell.
        """
        for id, rename in self._intents.doubtful.items():
            if rename.container_id == container_id:
                await self._settle_in_the_end(id)

    async def _settle_in_the_end(self, id: int) -> None:
        while not await self._settle(id):
            await self._under_way.less()

    @asynccontextmanager
    async def sending(self, container_id: str, path: str) -> AsyncIterator[None]:
        """Around an upload as *path*: nothing of that name is doubtful, or looked for.

        Raises:
            FileSystemError: As `settle`.
        """
        name = name_of(container_id, path)
        await self.settle(container_id, path)
        while self._under_way.is_sought(name):
            await self._under_way.less()
            await self.settle(container_id, path)
        with self._under_way.sending(name):
            yield

    async def _settle(self, id: int) -> bool:
        """Returns:
        False where something is being sent under that name: it is not to be taken for it.
        """
        async with self._settling[id]:
            rename = self._intents.doubtful.get(id)
            if rename is None:
                self._settling.pop(id, None)
                return True
            if self._under_way.is_sent(name_of(rename.container_id, rename.path)):
                return False
            if rename.is_left:
                await self._cut_off.end(id, rename)
            else:
                await self._end(id, rename)
            self._settling.pop(id, None)
            return True

    async def _end(self, id: int, rename: Rename) -> None:
        try:
            await self._remove_arrived(rename)
        except (NotFound, Expired) as exc:  # with all that was in it
            log.info("container %s: %s", rename.container_id, exc)
        self._intents.end(id)

    async def _remove_arrived(self, rename: Rename) -> None:
        id, path = rename.container_id, rename.path
        arrived = await self._delivery.find(
            id, path=path, contents=rename.sent, others=rename.known
        )
        if arrived and not await self._is_source_there(rename):
            log.warning(
                "%r stays: what was to be renamed to it, %r, is gone", path, rename.source_path
            )
            return
        # Nothing here has removed what had the name.
        if arrived and await self._uploader.are_gone(id, rename.replaces):
            log.warning("%r was replaced, though its rename failed", path)
            return
        for file in arrived:
            log.warning("the rename of %r to %r is taken back", rename.source_path, path)
            self._metadata.forget(id, file.id)
            await self._uploader.delete(id, file.id, path=path)

    async def _is_source_there(self, rename: Rename) -> bool:
        """Whether the file still has its old name: nothing here takes it before this is settled."""
        if any(
            each.id == rename.entry_id for each in (*self._journal.entries, *self._journal.doubtful)
        ):
            return True
        return await self._uploader.find_any(rename.source_id, rename.source_objects) is not None


def without_uncertain(
    container: ContainerDirectory, listed: tuple[RemoteFile, ...], renames: Iterable[Rename]
) -> tuple[RemoteFile, ...]:
    """What is *listed* but for what may have arrived by a rename that failed."""
    id = container.remote.id
    for rename in renames:
        if rename.container_id == id:
            listed = tuple(
                file for file in listed if not _may_be(rename, file) or _is_own(container, file)
            )
    return listed


def _is_own(container: ContainerDirectory, file: RemoteFile) -> bool:
    """Whether it is what a file here was sent as: what was seen otherwise may have just arrived."""
    node = container.files.get(file.id)
    return node is not None and node.local is not None and node.local.file_id == file.id


def _may_be(rename: Rename, file: RemoteFile) -> bool:
    is_alike = any(file.size in (None, content.size) for content in rename.sent)
    return (
        is_alike and file.id not in rename.known and is_sent_as(file, rename.path, may_be_flat=True)
    )
