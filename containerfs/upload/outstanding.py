"""Objects that could not be deleted from the server yet: deleted again, now and later."""

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from containerfs.upload.deletions import Deletion
from containerfs.upload.journal import Journal
from containerfs.upload.uploader import Uploader

DELETE_RETRY = 30.0  # seconds between attempts to delete what could not be deleted
DELETE_SOON = 1.0  # seconds before what was put off is tried again
PARALLEL = 16  # deleted at one time


class Outstanding:
    """Tries the journal's deletions again; what still can't be deleted stays recorded."""

    def __init__(
        self,
        *,
        journal: Journal,
        uploader: Uploader,
        on_missing: Callable[[Deletion], Awaitable[None]],
        limit: float,
    ) -> None:
        """Args:
        on_missing: Called for what turns out to be gone: somebody else deleted it.
        limit: Seconds for which a program that syncs may wait for all that is deleted for it.
        """
        self._journal = journal
        self._uploader = uploader
        self._on_missing = on_missing
        self._limit = limit

    async def sync(self, container_id: str | None = None, path: str = "") -> None:
        """`delete`, for a program that waits.

        Args:
            container_id: Only in this container; None for everything.
            path: Only what was the file at this visible path of it, or one below it.
        """
        with trio.move_on_after(self._limit):
            await self.delete(container_id, path)

    async def delete(self, container_id: str | None = None, path: str = "") -> None:
        """Delete what could not be deleted before; what still can't be stays recorded.

        Args: As for `sync`.
        """
        due = deque(
            each
            for each in self._journal.doomed.all
            if container_id is None or (each.container_id == container_id and each.is_below(path))
        )

        async def work() -> None:
            while due:
                deletion = due.popleft()
                id = deletion.container_id, deletion.file_id
                if self._journal.doomed.find(*id) is None:
                    continue  # it is gone, or not to go any more
                if not await self._uploader.delete(*id):
                    await self._on_missing(deletion)

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(due), PARALLEL)):
                nursery.start_soon(work)

    async def run(self) -> None:
        """Delete what could not be deleted before, now and again, until cancelled."""
        while True:
            await self.delete()
            with trio.move_on_after(DELETE_RETRY) as waiting:
                await self._uploader.wait_until_put_off()
            if not waiting.cancelled_caught:
                await trio.sleep(DELETE_SOON)
