"""The journal: a durable record of what the server has not got yet, and of what it must lose.

An entry goes dirty → sending → forgotten. It is written with the first change of a file, so a
killed process loses no accepted byte. Once the server has the file, one transaction forgets the
entry and records the objects it replaces as deletions, which stay until they are done. An entry
that is held is never sent: editors' and tools' temporary files.

An entry is safe once its spool and itself were synced, which costs time, so that few are: it
survives a power cut. A small spool is copied into the entry instead, so that one sync does for
both. After a power cut, the others are doubtful: they are there, but what they name may be
gone, and what became of them may be forgotten.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from containerfs.upload.deletions import Deletion, Deletions
from containerfs.upload.fingerprint import Fingerprint

SCHEMA = """
CREATE TABLE IF NOT EXISTS journal(
    id INTEGER PRIMARY KEY, container TEXT NOT NULL, path BLOB NOT NULL, spool TEXT NOT NULL,
    state TEXT NOT NULL, replaces TEXT NOT NULL, held INTEGER NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS safe(id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS kept(id INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS doubtful(id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS lost(
    id INTEGER NOT NULL, container TEXT NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
    digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS journal_last(one INTEGER PRIMARY KEY CHECK(one = 1), id INTEGER);
CREATE TRIGGER IF NOT EXISTS journal_forgotten AFTER DELETE ON journal BEGIN
    INSERT INTO journal_last VALUES(1, old.id) ON CONFLICT DO UPDATE SET id = max(id, old.id);
END;
CREATE TRIGGER IF NOT EXISTS journal_settled AFTER DELETE ON journal BEGIN
    DELETE FROM safe WHERE id = old.id;
    DELETE FROM kept WHERE id = old.id;
    DELETE FROM doubtful WHERE id = old.id;
END;
"""
_SYNCED = {"container_id", "path", "replaces"}  # changes of a safe entry that matter when lost

Lost = tuple[str, str, Fingerprint]  # container id, visible path as which it was sent, content
LOST_SPOOLS = "spool-lost-*"  # beside the spools: folders of those whose journal was lost


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
        lost: What may have arrived: its answer was lost, or has not come and what is sent was
            written to since.
        others: Ids of objects that have such names, and were listed before the first of these was
            sent: they are something else.
        is_safe: Its spool and this record survive a power cut; what is written to the spool
            later does once that was synced too.
        hangs: Attempts to send it that were given up because nothing moved.
    """

    id: int
    container_id: str
    path: str
    spool: str
    state: str = "dirty"
    replaces: tuple[str, ...] = ()
    held: bool = False
    error: str | None = None
    is_safe: bool = False
    failures: int = field(default=0, compare=False)  # in a row, since the mount began
    hangs: int = field(default=0, compare=False)
    lost: set[Lost] = field(default_factory=set, compare=False)
    others: set[str] = field(default_factory=set, compare=False)


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
        self.changes = 0  # of safe entries: until these are synced, what was before may come back
        self._entries: dict[int, Entry] = {}
        self._doubtful: dict[int, Entry] = {}
        self._read()
        # A number is given once: a rename that was cut off may still name a forgotten entry.
        ((forgotten,),) = connection.execute("SELECT coalesce(max(id), 0) FROM journal_last")
        self._next_id = max((forgotten, *self._entries, *self._doubtful)) + 1
        self.doomed = Deletions(connection, on_rollback=on_rollback)

    @property
    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return list(self._entries.values())

    @property
    def doubtful(self) -> list[Entry]:
        """Entries that are not to be believed, oldest first; they are in no other list."""
        return list(self._doubtful.values())

    @property
    def deletions(self) -> list[tuple[str, str]]:
        """Objects still to be deleted, as (container id, file id)."""
        return [(each.container_id, each.file_id) for each in self.doomed.all]

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
        self.changes += entry.is_safe and not _SYNCED.isdisjoint(changes)
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

    def keep(self, entry: Entry, *, content: bytes | None = None) -> None:
        """Let it be safe, once the database is synced.

        Args:
            content: That of its spool; None where the spool was synced.
        """
        if content is not None:
            self._connection.execute(
                "INSERT OR REPLACE INTO kept VALUES(?, ?)", (entry.id, content)
            )
        elif entry.is_safe:
            self._connection.execute("DELETE FROM kept WHERE id = ?", (entry.id,))
        if not entry.is_safe:
            self._connection.execute("INSERT OR IGNORE INTO safe VALUES(?)", (entry.id,))
            entry.is_safe = True
            self._on_rollback(partial(_assign, entry, {"is_safe": False}))

    @property
    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Names of spools, and what they held when they were last kept as part of an entry."""
        return iter(
            self._connection.execute(
                "SELECT spool, content FROM kept JOIN journal ON kept.id = journal.id"
            )
        )

    def doubt(self, *, is_there: Callable[[str], bool]) -> None:
        """There was a power cut: doubt what is not safe, but for what is never sent.

        Whether a safe one was being sent, or had been, was not synced: it may be. What is never
        sent, was not synced by anybody, and is gone, is forgotten: as on any disk.

        Args:
            is_there: Whether there is a spool of this name.
        """
        unsafe = "NOT held AND id NOT IN (SELECT id FROM safe)"
        self._connection.execute(
            f"INSERT OR IGNORE INTO doubtful SELECT id FROM journal WHERE {unsafe}"  # noqa: S608 - constant text
        )
        self._connection.execute("UPDATE journal SET state = 'sending' WHERE NOT held")
        self._connection.executemany(
            "INSERT OR IGNORE INTO doubtful VALUES(?)",
            [(each.id,) for each in self.entries if not each.held and not is_there(each.spool)],
        )
        self._read()
        for entry in self.entries:
            if entry.held and not entry.is_safe and not is_there(entry.spool):
                self.forget(entry)

    def keep_aside(self, entry: Entry, path: str) -> None:
        """Let a doubtful entry be a file that stays here, under *path*."""
        self.update(entry, path=path, held=True, replaces=(), state="dirty")
        self._connection.execute("DELETE FROM doubtful WHERE id = ?", (entry.id,))
        del self._doubtful[entry.id]
        self._entries[entry.id] = entry

    def lose(self, entry: Entry, lost: Lost) -> None:
        """Record what may have arrived, or may do so still."""
        if lost not in entry.lost:
            self._connection.execute(
                "INSERT INTO lost VALUES(?, ?, ?, ?, ?)", (entry.id, *_lost_row(lost))
            )
            entry.lost.add(lost)
            self._on_rollback(partial(entry.lost.discard, lost))

    def found(self, entry: Entry, lost: Iterable[Lost]) -> None:
        """Whether these have arrived is known, or recorded elsewhere."""
        for each in list(lost):
            self._connection.execute(
                "DELETE FROM lost WHERE (id, container, path, size, digest) = (?, ?, ?, ?, ?)",
                (entry.id, *_lost_row(each)),
            )
            entry.lost.discard(each)
            self._on_rollback(partial(entry.lost.add, each))

    def forget(self, entry: Entry) -> None:
        """The server has it, or nobody wants it any more."""
        self.found(entry, entry.lost)
        self._connection.execute("DELETE FROM journal WHERE id = ?", (entry.id,))
        self.changes += entry.is_safe
        self._doubtful.pop(entry.id, None)
        if self._entries.pop(entry.id, None) is not None:
            self._on_rollback(partial(self._restore, entry))

    def _read(self) -> None:
        safe = {id for (id,) in self._connection.execute("SELECT id FROM safe")}
        doubtful = {id for (id,) in self._connection.execute("SELECT id FROM doubtful")}
        entries = [_entry(row) for row in self._connection.execute("SELECT * FROM journal")]
        for entry in entries:
            entry.is_safe = entry.id in safe
        by_id = {entry.id: entry for entry in entries}
        for id, container_id, path, *content in self._connection.execute("SELECT * FROM lost"):
            if id in by_id:
                by_id[id].lost.add((container_id, os.fsdecode(path), Fingerprint(*content)))
        self._entries = {entry.id: entry for entry in entries if entry.id not in doubtful}
        self._doubtful = {entry.id: entry for entry in entries if entry.id in doubtful}

    def _restore(self, entry: Entry) -> None:
        self._entries[entry.id] = entry

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]

    def delete_later(self, container_id: str, file_id: str, *, path: str = "") -> None:
        """Record an object that must still be deleted.

        Args:
            path: Visible path below the container of the file that it was, where that is known.
        """
        self.doomed.add(Deletion(container_id=container_id, file_id=file_id, path=path))

    def deleted(self, container_id: str, file_id: str) -> None:
        """The object is gone."""
        self.doomed.remove(container_id, file_id)


def _lost_row(lost: Lost) -> tuple[str, bytes, int, bytes]:
    container_id, path, content = lost
    return container_id, os.fsencode(path), content.size, content.digest


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
