"""The journal: a durable record of what the server has not got yet, and of what it must lose.

An entry goes dirty → sending → forgotten. It is written with the first change of a file, so a
killed process loses no accepted byte. Once the server has the file, one transaction forgets the
entry and records the objects it replaces as deletions, which stay until they are done. An entry
that is held is never sent: editors' and tools' temporary files.
"""

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS journal(
    id INTEGER PRIMARY KEY, container TEXT NOT NULL, path BLOB NOT NULL, spool TEXT NOT NULL,
    state TEXT NOT NULL, replaces TEXT NOT NULL, held INTEGER NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS deletions(
    container TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY(container, id)) WITHOUT ROWID;
"""


@dataclass(slots=True, kw_only=True)
class Entry:
    """A file whose content is newer here than on the server.

    Attributes:
        path: Visible path below the container.
        spool: Name of its spool file.
        state: "dirty", or "sending" from before a POST until its outcome is certain.
        replaces: Ids of the objects that it takes the place of, deleted once it is sent.
        held: Never sent while it has this name.
        error: Why the last attempt failed, in words.
    """

    id: int
    container_id: str
    path: str
    spool: str
    state: str = "dirty"
    replaces: tuple[str, ...] = ()
    held: bool = False
    error: str | None = None
    failures: int = field(default=0, compare=False)  # in a row, since the mount began


class Journal:
    """The entries, in memory and in the state database at once: one never without the other."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        on_rollback: Callable[[Callable[[], None]], None] = lambda undo: None,
    ) -> None:
        """Args:
        on_rollback: Has its argument called when the transaction under way is rolled back.
        """
        self._connection = connection
        self._on_rollback = on_rollback
        connection.executescript(SCHEMA)
        self._entries = {row[0]: _entry(row) for row in connection.execute("SELECT * FROM journal")}
        self._next_id = max(self._entries, default=0) + 1
        self._deletions: dict[tuple[str, str], None] = dict.fromkeys(
            connection.execute("SELECT container, id FROM deletions")
        )

    @property
    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return list(self._entries.values())

    @property
    def deletions(self) -> list[tuple[str, str]]:
        """Objects still to be deleted, as (container id, file id)."""
        return list(self._deletions)

    def begin(
        self, *, container_id: str, path: str, spool: str, replaces: tuple[str, ...], held: bool
    ) -> Entry:
        """Record that *path* has content in *spool* that the server has not got."""
        id = self._next_id  # not SQLite's choice: it would give a forgotten entry's id again
        self._connection.execute(
            "INSERT INTO journal(id, container, path, spool, state, replaces, held) "
            "VALUES(?, ?, ?, ?, 'dirty', ?, ?)",
            (id, container_id, os.fsencode(path), spool, json.dumps(replaces), held),
        )
        self._next_id += 1
        entry = Entry(
            id=id,
            container_id=container_id,
            path=path,
            spool=spool,
            replaces=replaces,
            held=held,
        )
        self._entries[entry.id] = entry
        self._on_rollback(partial(self._remove, entry))
        return entry

    def update(self, entry: Entry, **changes: Any) -> None:
        """Record the entry with *changes*, and let it be so; else it stays as it was."""
        changed = replace(entry, **changes)
        self._write(changed)
        before = {name: getattr(entry, name) for name in changes}
        _assign(entry, changes)
        self._on_rollback(partial(_assign, entry, before))

    def _write(self, entry: Entry) -> None:
        self._connection.execute(
            "UPDATE journal SET container = ?, path = ?, spool = ?, state = ?, replaces = ?, "
            "held = ?, error = ? WHERE id = ?",
            (
                entry.container_id,
                os.fsencode(entry.path),
                entry.spool,
                entry.state,
                json.dumps(entry.replaces),
                entry.held,
                entry.error,
                entry.id,
            ),
        )

    def forget(self, entry: Entry) -> None:
        """The server has it, or nobody wants it any more."""
        self._connection.execute("DELETE FROM journal WHERE id = ?", (entry.id,))
        if self._entries.pop(entry.id, None) is not None:
            self._on_rollback(partial(self._restore, entry))

    def _restore(self, entry: Entry) -> None:
        self._entries[entry.id] = entry

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]

    def delete_later(self, container_id: str, file_id: str) -> None:
        """Record an object that must still be deleted."""
        self._connection.execute(
            "INSERT OR IGNORE INTO deletions VALUES(?, ?)", (container_id, file_id)
        )
        if (container_id, file_id) not in self._deletions:
            self._deletions[container_id, file_id] = None
            self._on_rollback(partial(self._undo_deletion, container_id, file_id))

    def _undo_deletion(self, container_id: str, file_id: str) -> None:
        self._deletions.pop((container_id, file_id), None)

    def deleted(self, container_id: str, file_id: str) -> None:
        """The object is gone."""
        if (container_id, file_id) in self._deletions:
            self._connection.execute(
                "DELETE FROM deletions WHERE container = ? AND id = ?", (container_id, file_id)
            )
            del self._deletions[container_id, file_id]


def _assign(entry: Entry, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(entry, name, value)


def _entry(row: tuple[int, str, bytes, str, str, str, int, str | None]) -> Entry:
    id, container_id, path, spool, state, replaces, held, error = row
    return Entry(
        id=id,
        container_id=container_id,
        path=os.fsdecode(path),
        spool=spool,
        state=state,
        replaces=tuple(json.loads(replaces)),
        held=bool(held),
        error=error,
    )
