"""Renames under way: what the server is getting under a new name, recorded before it gets it.

A rename is an upload under the new name and a deletion of the old object, with one change of the
state database between them. A process that ends in the middle leaves the record of what it was
about to do, and the next mount takes it back or brings it to its end.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

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

    @property
    def all(self) -> dict[int, Rename]:
        """Every rename that was begun and has not ended, by its number."""
        return dict(self._renames)

    def begin(self, rename: Rename) -> int:
        """Record that the server is about to get it; returns its number, for `end`."""
        cursor = self._connection.execute(
            "INSERT INTO intents(facts) VALUES(?)", (json.dumps(asdict(rename)),)
        )
        id = cursor.lastrowid
        assert id is not None  # noqa: S101 - an INSERT has one
        self._renames[id] = rename
        self._on_rollback(partial(self._forget, id))
        return id

    def end(self, id: int) -> None:
        """It is done, or undone."""
        self._connection.execute("DELETE FROM intents WHERE id = ?", (id,))
        rename = self._renames.pop(id, None)
        if rename is not None:
            self._on_rollback(partial(self._renames.__setitem__, id, rename))

    def _forget(self, id: int) -> None:
        self._renames.pop(id, None)


def _rename(facts: str) -> Rename:
    values = json.loads(facts)
    for name in ("known", "replaces", "source_objects"):
        values[name] = tuple(values[name])
    return Rename(**values)
