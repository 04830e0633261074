"""The containers of a server: made, found, kept alive, expired, deleted."""

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from containerfs.server import refusals
from containerfs.server.behaviours import Behaviours
from containerfs.server.contents import Contents
from containerfs.server.creation import Creation
from containerfs.server.ids import new_container_id
from containerfs.server.listing import Collection, Query

_WRITE_EVERY = 1.0  # seconds between two writes of one container's last activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as of now."""

    seq: int
    id: str
    name: str
    created: int
    last_active: float
    minutes: int | None  # that it may be idle; None for ever
    memory_limit: str
    network_policy: str | None  # JSON
    is_expired: bool

    def as_json(self) -> dict[str, Any]:
        """The container as answers show it."""
        shown: dict[str, Any] = {
            "id": self.id,
            "object": "container",
            "created_at": self.created,
            "status": "expired" if self.is_expired else "running",
            "last_active_at": int(self.last_active),
            "memory_limit": self.memory_limit,
            "name": self.name,
        }
        if self.minutes is not None:
            shown["expires_after"] = {"anchor": "last_active_at", "minutes": self.minutes}
        if self.network_policy is not None:
            shown["network_policy"] = json.loads(self.network_policy)
        return shown


@dataclass(slots=True)
class _Activity:
    last: float
    written: float


class Containers:
    """Every container ever made, but the deleted ones. Whoever looks at one runs its clock."""

    def __init__(self, database: sqlite3.Connection, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        self._collection = Collection(database, table="containers")
        self._activity: dict[int, _Activity] = {}

    def page(self, query: Query, *, behaviours: Behaviours) -> tuple[list[Container], bool]:
        """One page, and whether more follow; being listed keeps no container alive."""
        now = time.time()
        page = self._collection.page(query, now=now)
        self._collection.count_list(now=now)
        return [
            self._as_of(row, now=now, behaviours=behaviours) for row in page.rows
        ], page.has_more

    def create(self, creation: Creation, *, behaviours: Behaviours) -> Container:
        """Make a container."""
        now = time.time()
        container_id = new_container_id(now=now, is_long=behaviours.long_ids)
        policy = creation.network_policy
        self._database.execute(
            "INSERT INTO containers (id, name, created, last_active, minutes, memory_limit, "
            "network_policy, hidden_until, hidden_lists) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                container_id,
                creation.name,
                int(now),
                now,
                creation.minutes,
                creation.memory_limit,
                None if policy is None else json.dumps(policy),
                now + behaviours.list_lag if behaviours.list_lag else 0.0,
                behaviours.list_lag_lists,
            ),
        )
        return self.find(container_id, behaviours=behaviours)

    def find(self, container_id: str, *, behaviours: Behaviours) -> Container:
        """The container, expired or not; raises Refusal."""
        row = self._database.execute(
            "SELECT * FROM containers WHERE id = ? AND deleted = 0", (container_id,)
        ).fetchone()
        if row is None:
            raise refusals.container_not_found(container_id)
        return self._as_of(row, now=time.time(), behaviours=behaviours)

    def alive(self, container_id: str, *, behaviours: Behaviours) -> Container:
        """The container, which must not have expired; raises Refusal."""
        container = self.find(container_id, behaviours=behaviours)
        if container.is_expired:
            raise refusals.expired(container_id, status=int(behaviours.expired_as))
        return container

    def touch(self, container: Container) -> None:
        """Somebody did something with the container: it lives on from now."""
        now = time.time()
        activity = self._activity.setdefault(container.seq, _Activity(now, 0.0))
        activity.last = now
        if now - activity.written >= _WRITE_EVERY:
            self._write(container.seq, activity)

    def age(self, container: Container, *, seconds: float) -> None:
        """Let the container have been idle for so much longer."""
        last_active = container.last_active - seconds
        self._write(container.seq, _Activity(last_active, 0.0))
        self._activity.pop(container.seq, None)

    def expire(self, container: Container) -> None:
        """End the container: its files are gone, it stays in the list."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("DELETE FROM files WHERE container = ?", (container.seq,))
        self._database.execute(
            "UPDATE containers SET status = 'expired' WHERE seq = ?", (container.seq,)
        )
        self._database.execute("COMMIT")
        self._forget(container.seq)

    def delete(self, container: Container, *, behaviours: Behaviours) -> None:
        """Delete the container and its files."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("DELETE FROM files WHERE container = ?", (container.seq,))
        self._collection.delete(container.seq, behaviours=behaviours, now=time.time())
        self._database.execute("COMMIT")
        self._forget(container.seq)

    def close(self) -> None:
        """Write what is not written yet."""
        for seq, activity in self._activity.items():
            self._write(seq, activity)

    def _as_of(self, row: sqlite3.Row, *, now: float, behaviours: Behaviours) -> Container:
        activity = self._activity.get(row["seq"])
        last_active = row["last_active"] if activity is None else activity.last
        is_over = behaviours.expiry and now >= last_active + row["minutes"] * behaviours.minute
        container = Container(
            seq=row["seq"],
            id=row["id"],
            name=row["name"],
            created=row["created"],
            last_active=last_active,
            minutes=row["minutes"] if behaviours.expiry else None,
            memory_limit=row["memory_limit"],
            network_policy=row["network_policy"],
            is_expired=is_over or row["status"] == "expired",
        )
        if is_over and row["status"] != "expired":
            self.expire(container)
        return container

    def _write(self, seq: int, activity: _Activity) -> None:
        self._database.execute(
            "UPDATE containers SET last_active = ? WHERE seq = ?", (activity.last, seq)
        )
        activity.written = activity.last

    def _forget(self, seq: int) -> None:
        self._activity.pop(seq, None)
        self._contents.remove_place(seq)
