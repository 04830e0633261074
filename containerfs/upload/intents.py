"""Renames under way: what the server is getting under a new name, recorded before it gets it.

A rename is an upload under the new name and a deletion of the old object, with one change of the
state database between them. A process that ends in the middle leaves the record of what it was
about to do, and the next mount takes it back or brings it to its end. One that failed, and may
have arrived nevertheless, stays recorded with what was sent, until the server tells: by then the
file may be another one, or gone. So does one that the next mount could not ask the server about.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

from containerfs.upload.fingerprint import Fingerprint

SCHEMA = "CREATE TABLE IF NOT EXISTS intents(id INTEGER PRIMARY KEY, facts TEXT NOT NULL);"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Rename:
    """One file that the server gets under a new name.

    Attributes:
        path: Its new visible path below the container.
        size: Bytes.
        known: Objects that were listed before; none of them is the new one.
        replaces: Objects of the file that has the new name.
        source_id: The container that it comes from.
        source_path: Its old visible path there.
        source_objects: The objects that it has there.
        entry_id: The journal entry of its content, where that is not on the server.
        copy: Name of a spool with its content, where two names are exchanged: what is sent under
            one of them may overwrite what the other, or itself, is sent of. "" where there is none.
        sent: What may have arrived although it failed; nothing while it is under way.
        is_left: A later mount could not ask the server what became of it.
    """

    container_id: str
    path: str
    size: int
    known: tuple[str, ...]
    replaces: tuple[str, ...]
    source_id: str
    source_path: str
    source_objects: tuple[str, ...]
    entry_id: int | None
    copy: str = ""
    sent: tuple[Fingerprint, ...] = ()
    is_left: bool = False

    @property
    def is_doubtful(self) -> bool:
        """It is not under way, and nobody knows what arrived of it."""
        return self.is_left or bool(self.sent)


class Intents:
    """The renames under way, in memory and in the state database at once."""

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
        rows = connection.execute("SELECT id, facts FROM intents ORDER BY id")
        self._renames: dict[int, Rename] = {id: _rename(facts) for id, facts in rows}
        # By themselves: every upload looks at them, of which a directory's renaming has a thousand.
        self._doubtful = {id: rename for id, rename in self._renames.items() if rename.is_doubtful}

    @property
    def all(self) -> dict[int, Rename]:
        """Every rename that was begun and has not ended, by its number."""
        return dict(self._renames)

    @property
    def copies(self) -> set[str]:
        """The names of the spools that renames may need."""
        return {rename.copy for rename in self._renames.values() if rename.copy}

    @property
    def doubtful(self) -> dict[int, Rename]:
        """Those of which nobody knows what arrived of them, by their numbers."""
        return dict(self._doubtful)

    def begin(self, rename: Rename) -> int:
        """Record that the server is about to get it; returns its number, for `end`."""
        cursor = self._connection.execute("INSERT INTO intents(facts) VALUES(?)", (_facts(rename),))
        id = cursor.lastrowid
        assert id is not None  # noqa: S101 - an INSERT has one
        self._renames[id] = rename
        self._on_rollback(partial(self._forget, id))
        return id

    def doubt(self, id: int, sent: tuple[Fingerprint, ...]) -> None:
        """It failed, and may have arrived nevertheless.

        Args:
            sent: What may have; nothing where only its source tells that.

        Raises:
            NoSpace, LocalFault: That is not recorded. It is so nevertheless while this process
                lives.
        """
        rename = replace(self._renames[id], sent=sent, is_left=not sent, copy="")
        self._renames[id] = self._doubtful[id] = rename
        self._write(id, rename)

    def drop_copy(self, id: int, *, entry_id: int | None) -> None:
        """Its copy is not needed any more, or is the content of a journal entry from now on."""
        before = self._renames[id]
        rename = self._renames[id] = replace(before, copy="", entry_id=entry_id)
        self._on_rollback(partial(self._restore, id, before))
        self._write(id, rename)

    def _write(self, id: int, rename: Rename) -> None:
        self._connection.execute("UPDATE intents SET facts = ? WHERE id = ?", (_facts(rename), id))

    def end(self, id: int) -> None:
        """It is done, or undone."""
        self._connection.execute("DELETE FROM intents WHERE id = ?", (id,))
        rename = self._renames.pop(id, None)
        self._doubtful.pop(id, None)
        if rename is not None:
            self._on_rollback(partial(self._restore, id, rename))

    def _restore(self, id: int, rename: Rename) -> None:
        self._renames[id] = rename
        if rename.is_doubtful:
            self._doubtful[id] = rename

    def _forget(self, id: int) -> None:
        self._renames.pop(id, None)


def _facts(rename: Rename) -> str:
    return json.dumps(
        {
            **asdict(rename),
            "sent": [(content.size, content.digest.hex()) for content in rename.sent],
        }
    )


def _rename(facts: str) -> Rename:
    values = json.loads(facts)
    for name in ("known", "replaces", "source_objects"):
        values[name] = tuple(values[name])
    values["sent"] = tuple(
        Fingerprint(size, bytes.fromhex(digest)) for size, digest in values.get("sent", ())
    )
    return Rename(**values)
