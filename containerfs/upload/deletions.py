"""Objects that the server must lose: a durable record, which stays until they are gone.

What was replaced or removed here is recorded before the server is asked to delete it, so that
neither a failure nor the end of the process leaves it there for good.
"""

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

SCHEMA = """
CREATE TABLE IF NOT EXISTS deletions(
    container TEXT NOT NULL, id TEXT NOT NULL, path BLOB NOT NULL DEFAULT x'', error TEXT,
    PRIMARY KEY(container, id)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """An object that is still to be deleted.

    Attributes:
        path: Visible path, below the container, of the file that it was; "" where not known.
        error: Why the last attempt failed, in words.
    """

    container_id: str
    file_id: str
    path: str = ""
    error: str | None = None

    def is_below(self, path: str) -> bool:
        """Whether it was the file at *path*, or one below it; any may have been where not known."""
        return not path or self.path in ("", path) or self.path.startswith(f"{path}/")


class Deletions:
    """The objects still to be deleted, in memory and in the state database at once."""

    def __init__(
        self, connection: sqlite3.Connection, *, on_rollback: Callable[[Callable[[], None]], None]
    ) -> None:
        """Args:
        on_rollback: Has its argument called when the transaction under way is rolled back.
        """
        self._connection = connection
        self._on_rollback = on_rollback
        connection.executescript(SCHEMA)
        columns = connection.execute("SELECT name FROM pragma_table_info('deletions')")
        if "path" not in [name for (name,) in columns]:
            # It was made before they were shown to anybody.
            connection.execute("ALTER TABLE deletions ADD COLUMN path BLOB NOT NULL DEFAULT x''")
            connection.execute("ALTER TABLE deletions ADD COLUMN error TEXT")
        rows = connection.execute("SELECT container, id, path, error FROM deletions")
        self._all = {
            (container_id, file_id): Deletion(
                container_id=container_id, file_id=file_id, path=os.fsdecode(path), error=error
            )
            for container_id, file_id, path, error in rows
        }

    @property
    def all(self) -> list[Deletion]:
        """Every object that is still to be deleted."""
        return list(self._all.values())

    def find(self, container_id: str, file_id: str) -> Deletion | None:
        """What is recorded of an object; None where it is not to be deleted, or gone."""
        return self._all.get((container_id, file_id))

    def add(self, deletion: Deletion) -> None:
        """Record an object that must be deleted; nothing happens where it is recorded already."""
        key = deletion.container_id, deletion.file_id
        if key not in self._all:
            self._connection.execute(
                "INSERT OR IGNORE INTO deletions(container, id, path) VALUES(?, ?, ?)",
                (*key, os.fsencode(deletion.path)),
            )
            self._all[key] = deletion
            self._on_rollback(partial(self._undo, key))

    def _undo(self, key: tuple[str, str]) -> None:
        self._all.pop(key, None)

    def failed(self, container_id: str, file_id: str, error: str) -> None:
        """Record why an attempt failed."""
        deletion = self._all.get((container_id, file_id))
        if deletion is not None and deletion.error != error:
            self._connection.execute(
                "UPDATE deletions SET error = ? WHERE container = ? AND id = ?",
                (error, container_id, file_id),
            )
            self._all[container_id, file_id] = replace(deletion, error=error)

    def remove(self, container_id: str, file_id: str) -> None:
        """The object is gone, or is not to be deleted any more."""
        if (container_id, file_id) in self._all:
            self._connection.execute(
                "DELETE FROM deletions WHERE container = ? AND id = ?", (container_id, file_id)
            )
            del self._all[container_id, file_id]
