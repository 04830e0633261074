"""Transactions of the state database: what is done together, and when it survives a power cut."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from containerfs.cache.ballast import Ballast
from containerfs.cache.database import Connection, Log

log = logging.getLogger(__name__)


class Transactions:
    """Those of one connection.

    Attributes:
        connection: Of one thread; lent to who keeps tables of their own in the same file.
        ballast: Disk that it has where there is no other; to be held while the disk is filled.
    """

    def __init__(self, connection: Connection, *, ballast: Ballast) -> None:
        self.connection = connection
        self.ballast = ballast
        self._undone: list[Callable[[], None]] = []
        self._committed: list[Callable[[], None]] = []
        self._log = Log(connection)
        self._syncing = trio.Lock()
        self._syncs_begun = 0
        self._syncs_done = 0

    @contextmanager
    def transaction(self, *, may_use_ballast: bool = True) -> Iterator[None]:
        """Commit what is done inside at once, or, after an error, none of it.

        Args:
            may_use_ballast: It is not about content that would take more of a full disk.

        Raises:
            LocalFault, NoSpace: It could not be committed; nothing of it was.
        """
        if self.connection.in_transaction:
            yield
            return
        self._undone.clear()
        self._committed.clear()
        self.connection.may_use_ballast = may_use_ballast
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self.connection.may_use_ballast = True
        committed, self._committed = self._committed, []
        for action in committed:
            try:
                action()
            except Exception:  # what was committed stays so, and the others have their turn
                log.exception("after a commit")

    def _roll_back(self) -> None:
        if self.connection.in_transaction:  # a full disk may have ended it already
            self.connection.execute("ROLLBACK")
        while self._undone:
            self._undone.pop()()

    async def sync(self) -> None:
        """Have all that was committed so far survive a power cut; raises as `transaction`.

        Those who ask while one sync is under way share the next.
        """
        if self._log.is_quick and not self._syncing.locked():
            await self._log.sync()
            return
        needed = self._syncs_begun + 1
        async with self._syncing:
            if self._syncs_done >= needed:
                return
            self._syncs_begun += 1
            number = self._syncs_begun
            await self._log.sync()
            self._syncs_done = number

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Have *undo* called if the transaction under way, if one is, comes to nothing."""
        if self.connection.in_transaction:
            self._undone.append(undo)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call *action* once what was done before can't come to nothing any more."""
        if self.connection.in_transaction:
            self._committed.append(action)
        else:
            action()
