"""Brings the server up to date: sends spools, checks the answers, deletes what they replace.

At no moment does the server have neither the old nor the new object: the new one is there, and
its length is right, before the old one goes. A POST whose answer was lost is not repeated before
the container's listing has told whether it arrived.
"""

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import trio

from containerfs.api.client import Client
from containerfs.api.listing import all_files
from containerfs.api.types import RemoteFile
from containerfs.errors import (
    AccessDenied,
    Expired,
    FileSystemError,
    Invalid,
    NotFound,
    ServerFault,
    Uncertain,
)
from containerfs.upload.contents import Contents
from containerfs.upload.fingerprint import Fingerprint
from containerfs.upload.journal import Entry, Journal

log = logging.getLogger(__name__)

RESEND_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before an upload is repeated whose answer was lost
FIRST_RETRY = 5.0  # seconds before a failed upload is tried again in the background; doubles
LAST_RETRY = 300.0
PUT_OFF_AFTER = 1.0  # seconds between attempts to delete, where somebody waits who has all else
MOST_DOUBTED = 1_000  # uploads that are remembered to have been repeated without being found


class Uploader:
    """Sends journal entries; failed ones again in the background, with back-off."""

    def __init__(self, *, client: Client, journal: Journal, nursery: trio.Nursery) -> None:
        self.contents = Contents(client=client)
        self._client = client
        self._journal = journal
        self._nursery = nursery
        self._waiting: set[int] = set()
        self._doubted: deque[str] = deque(maxlen=MOST_DOUBTED)
        self._deleting: dict[tuple[str, str], tuple[trio.Event, float]] = {}
        self._watches: dict[object, set[tuple[str, str]]] = {}  # what goes while something is sent
        self._put_off = trio.Event()

    async def send(
        self,
        *,
        container_id: str,
        name: str,
        fd: int,
        size: int,
        known: Callable[[], Collection[str]],
        is_named: Callable[[RemoteFile], bool],
        may_be_there: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> RemoteFile:
        """Upload *size* bytes of *fd* as *name*, and check what the server made of it.

        Args:
            known: Tells the ids of files that are something else, where it comes to that.
            is_named: Whether a file has the path that this upload would get.
            may_be_there: An earlier attempt may have arrived: look before sending.
            progress: Told the bytes sent, or compared, so far; they begin anew when it is
                sent again, or looked for.

        Returns:
            The file as the server answered.

        Raises:
            FileSystemError: The server has nothing of it, or what it has was removed again.
        """
        find = partial(
            self._look,
            container_id,
            name=name,
            fd=fd,
            size=size,
            known=known,
            is_named=is_named,
            progress=progress,
        )
        file = await find() if may_be_there else None
        is_doubtful = may_be_there and file is None
        with self._watching_deletions() as deleted:
            for wait in (*RESEND_WAITS, None):
                if file is not None:
                    break
                try:
                    file = await self._client.upload_file(
                        container_id, name=name, fd=fd, size=size, progress=progress
                    )
                except Uncertain:
                    file = await find()
                    is_doubtful = file is None
                    if file is None and wait is None:
                        raise
                    if file is None and wait is not None:
                        await trio.sleep(wait)
        assert file is not None  # noqa: S101 - the last attempt returned or raised
        if file.size is not None and file.size != size:
            if file.id not in known():
                await self.delete(container_id, file.id)
            raise ServerFault(f"the server kept {file.size} of {size} bytes of {name!r}")
        if is_doubtful:
            self._doubted.append(file.id)
        await self._spare(container_id, file.id, deleted)
        return file

    @contextmanager
    def _watching_deletions(self) -> Iterator[set[tuple[str, str]]]:
        """Yields: what has been deleted since, as (container id, file id); it grows."""
        watch, deleted = object(), set[tuple[str, str]]()
        self._watches[watch] = deleted
        try:
            yield deleted
        finally:
            del self._watches[watch]

    async def _spare(
        self, container_id: str, file_id: str, deleted: Collection[tuple[str, str]]
    ) -> None:
        """Let no deletion take what was just sent: a server may keep the id of what it overwrites.

        Args:
            deleted: What has been deleted while it was sent.

        Raises:
            ServerFault: One that was under way has taken it.
        """
        key = container_id, file_id
        self._journal.deleted(*key)
        another = self._deleting.get(key)
        if another is not None:
            await another[0].wait()
        if (another is not None or key in deleted) and await self.find(*key) is None:
            raise ServerFault(f"file {file_id} was deleted as it was sent")

    def may_be_twice(self, file_id: str) -> bool:
        """Whether what was sent as *file_id* may have arrived before, and not be listed yet."""
        return file_id in self._doubted

    async def _look(
        self,
        container_id: str,
        *,
        name: str,
        fd: int,
        size: int,
        known: Callable[[], Collection[str]],
        is_named: Callable[[RemoteFile], bool],
        progress: Callable[[int], None] | None,
    ) -> RemoteFile | None:
        """The object that a POST with a lost answer made: by its name, length and content.

        Raises:
            Uncertain: The server could not be asked: it still may be there.
        """
        try:
            for file in await self._unknown(container_id, (size,), known=known, is_named=is_named):
                is_it = await self.contents.match(file, fd, size, progress=progress)
                if is_it and file.id not in known():
                    log.info("the upload of %r had arrived, as %s", name, file.id)
                    return file
        except (Expired, NotFound):
            raise
        except FileSystemError as exc:
            raise Uncertain(f"whether {name!r} has arrived is not known: {exc}") from exc
        return None

    async def find(self, container_id: str, file_id: str) -> RemoteFile | None:
        """What the server says of an object itself; None where it is gone.

        Raises:
            FileSystemError: The server does not say.
        """
        try:
            return await self._client.retrieve_file(container_id, file_id)
        except NotFound:
            return None

    async def find_any(self, container_id: str, file_ids: Iterable[str]) -> RemoteFile | None:
        """The first of these objects that is there; raises as `find`."""
        for id in file_ids:
            file = await self.find(container_id, id)
            if file is not None:
                return file
        return None

    async def are_gone(self, container_id: str, file_ids: Collection[str]) -> bool:
        """Whether there were such objects, and none is left; raises as `find`."""
        return bool(file_ids) and await self.find_any(container_id, file_ids) is None

    async def copies(
        self,
        container_id: str,
        *,
        contents: Collection[Fingerprint],
        known: Callable[[], Collection[str]],
        is_named: Callable[[RemoteFile], bool],
    ) -> list[RemoteFile]:
        """The objects that have one of *contents*, and a name that `is_named` takes.

        Args:
            known: As for `send`.

        Raises:
            FileSystemError: The server does not say.
        """
        sizes = [content.size for content in contents]
        found = []
        for file in await self._unknown(container_id, sizes, known=known, is_named=is_named):
            with suppress(NotFound, AccessDenied, Invalid):  # nobody can tell, ever: it stays
                if await self.contents.fingerprint(file) in contents:
                    found.append(file)
        return found

    async def _unknown(
        self,
        container_id: str,
        sizes: Collection[int],
        *,
        known: Callable[[], Collection[str]],
        is_named: Callable[[RemoteFile], bool],
    ) -> list[RemoteFile]:
        """The objects that are nothing else that is known here, and may have one of *sizes*."""
        listed = await all_files(self._client, container_id)
        others = {*known(), *(id for _, id in self._journal.deletions)}
        return [
            file
            for file in listed
            if file.id not in others
            and (file.size is None or file.size in sizes)
            and is_named(file)
        ]

    async def remove(self, container_id: str, file_id: str) -> bool:
        """Delete an object now.

        Returns:
            Whether it was there: False when the server did not know it any more.

        Raises:
            FileSystemError: It is still there.
        """
        try:
            await self._client.delete_file(container_id, file_id)
        except NotFound:
            return False
        return True

    async def delete(
        self, container_id: str, file_id: str, *, path: str = "", patience: float = math.inf
    ) -> bool:
        """Delete an object; if that fails, later, in the background.

        Args:
            path: Visible path below the container of the file that it was, where that is known.
            patience: Seconds for which a failing server is asked again before that.

        Returns:
            Whether it was there, as far as is known.
        """
        try:
            self._journal.delete_later(container_id, file_id, path=path)
        except FileSystemError as exc:
            log.warning("that file %s is to be deleted is not recorded: %s", file_id, exc)
        try:
            return await self._delete_recorded(container_id, file_id, patience=patience)
        except FileSystemError as exc:
            self._not_deleted(container_id, file_id, exc, is_soon=patience < math.inf)
            return True

    async def _delete_recorded(self, container_id: str, file_id: str, *, patience: float) -> bool:
        """Delete it, unless another task does; whether it was there is told to that one only.

        What another task has tried for as long is tried only briefly after that.
        """
        key = container_id, file_id
        while (another := self._deleting.get(key)) is not None:
            is_over, tried = another
            await is_over.wait()
            if self._journal.doomed.find(*key) is None:
                return True
            if tried >= patience:
                patience = min(patience, PUT_OFF_AFTER)
        over = trio.Event()
        self._deleting[key] = over, patience
        try:
            await self._client.delete_file(container_id, file_id, patience=patience)
        except (NotFound, Expired):
            was_there = False
        else:
            was_there = True
        finally:
            del self._deleting[key]
            for deleted in self._watches.values():
                deleted.add(key)
            over.set()
        self._journal.deleted(container_id, file_id)
        return was_there

    def _not_deleted(
        self, container_id: str, file_id: str, error: FileSystemError, *, is_soon: bool
    ) -> None:
        is_soon = is_soon and error.retriable
        log.log(
            logging.INFO if is_soon else logging.WARNING,
            "file %s is deleted later: %s",
            file_id,
            error,
        )
        if is_soon:
            self._put_off.set()
        try:
            self._journal.doomed.failed(container_id, file_id, str(error))
        except FileSystemError as exc:
            log.warning("why file %s was not deleted is not recorded: %s", file_id, exc)

    async def wait_until_put_off(self) -> None:
        """Return once a deletion was put off, for somebody who waited, that may soon succeed."""
        await self._put_off.wait()
        self._put_off = trio.Event()

    def retry_later(self, entry: Entry, send: Callable[[], Awaitable[None]]) -> None:
        """Call *send* again after a while that grows with the entry's failures in a row."""
        if entry.id in self._waiting:
            return
        delay = min(FIRST_RETRY * 2.0 ** min(entry.failures, 10), LAST_RETRY)
        entry.failures += 1
        self._waiting.add(entry.id)
        self._nursery.start_soon(self._retry, entry, delay, send)

    async def _retry(self, entry: Entry, delay: float, send: Callable[[], Awaitable[None]]) -> None:
        await trio.sleep(delay)
        self._waiting.discard(entry.id)
        try:
            await send()
        except FileSystemError as exc:
            log.warning("%r is still not on the server: %s", entry.path, exc)
        except Exception:  # a bug: the journal keeps the file, and the mount lives on
            log.exception("sending %r failed", entry.path)
