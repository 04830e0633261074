"""The files of containers: added, found, listed, replaced, deleted."""

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from containerfs.server import paths, refusals
from containerfs.server.behaviours import Behaviours
from containerfs.server.containers import Container
from containerfs.server.contents import Contents, Incoming, Opened
from containerfs.server.ids import new_file_id
from containerfs.server.listing import Collection, Query


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a container."""

    seq: int
    id: str
    container_id: str
    place: int
    created: int
    path: str
    source: str
    size: int  # bytes it really has
    told_bytes: str | None  # JSON that answers show instead of the size
    content: str | None  # None for a phantom

    def as_json(self, *, behaviours: Behaviours) -> dict[str, Any]:
        """The file as answers show it."""
        hides = behaviours.null_bytes
        size: Any = self.size if self.told_bytes is None else json.loads(self.told_bytes)
        if hides == "always" or (hides == "assistant" and self.source == "assistant"):
            size = None
        return {
            "id": self.id,
            "object": "container.file",
            "created_at": self.created,
            "bytes": size,
            "container_id": self.container_id,
            "path": paths.told_path(self.path, behaviours=behaviours),
            "source": self.source,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to add; what is None is chosen by the server.

    Args:
        name: What uploads of the same name have in common.
        content: Key of its content, already in the container's place; None for a phantom.
        told_bytes: JSON to show instead of the size.
    """

    name: str
    path: str
    source: str
    size: int
    content: str | None
    id: str | None = None
    created: int | None = None
    told_bytes: str | None = None


class Files:
    """The files of every live container. Callers see to it that the container is one."""

    def __init__(self, database: sqlite3.Connection, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        self._collection = Collection(database, table="files", scope="container")

    def page(
        self, container: Container, query: Query, *, behaviours: Behaviours
    ) -> tuple[list[File], bool]:
        """One page of the container's files, and whether more follow."""
        if behaviours.phantom and query.after is None:
            self._add_phantom(container, behaviours=behaviours)
        now = time.time()
        page = self._collection.page(query, now=now, scope=container.seq)
        self._collection.count_list(now=now, scope=container.seq)
        return [_file(row, container) for row in page.rows], page.has_more

    def find(self, container: Container, file_id: str) -> File:
        """The file; raises Refusal."""
        row = self._database.execute(
            "SELECT * FROM files WHERE container = ? AND id = ? AND deleted = 0",
            (container.seq, file_id),
        ).fetchone()
        if row is None:
            raise refusals.file_not_found(file_id)
        return _file(row, container)

    def upload(
        self, container: Container, incoming: Incoming, *, name: str, behaviours: Behaviours
    ) -> File:
        """Add what a user sent under this clean name; it may take an older file's place."""
        content = self._contents.keep(incoming, place=container.seq)
        path = paths.upload_path(name, behaviours=behaviours)
        older = []
        if behaviours.same_name != "add":
            older = self._same_name(container, name)
        kept = older[-1] if older and behaviours.same_name == "overwrite_keep_id" else None
        new = NewFile(
            name=name,
            path=kept.path if kept else path,
            source="user",
            size=incoming.size,
            content=content,
            id=kept.id if kept else None,
        )
        return self.add(container, [new], behaviours=behaviours, instead_of=older)[0]

    def add(
        self,
        container: Container,
        new: list[NewFile],
        *,
        behaviours: Behaviours,
        instead_of: list[File] | None = None,
    ) -> list[File]:
        """Add files, and remove others, in one transaction."""
        now = time.time()
        ids = [item.id or new_file_id(now=now, is_long=behaviours.long_ids) for item in new]
        hidden_until = now + behaviours.list_lag if behaviours.list_lag else 0.0
        added = []
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for old in instead_of or ():
                self._database.execute("DELETE FROM files WHERE seq = ?", (old.seq,))
            for file_id, item in zip(ids, new, strict=True):
                created = int(now) if item.created is None else item.created
                cursor = self._database.execute(
                    "INSERT INTO files (id, container, created, name, path, source, size, "
                    "told_bytes, content, hidden_until, hidden_lists) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        file_id,
                        container.seq,
                        created,
                        item.name,
                        item.path,
                        item.source,
                        item.size,
                        item.told_bytes,
                        item.content,
                        hidden_until,
                        behaviours.list_lag_lists,
                    ),
                )
                added.append(_added(cursor.lastrowid or 0, file_id, item, container, created))
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
        for old in instead_of or ():
            self._remove_content(old)
        return added

    def delete(self, file: File, *, behaviours: Behaviours) -> None:
        """Delete the file."""
        self._collection.delete(file.seq, behaviours=behaviours, now=time.time())
        self._remove_content(file)

    def open(self, file: File) -> Opened:
        """The content, to read from; raises Refusal for a phantom."""
        if file.content is None:
            raise refusals.file_not_found(file.id)
        return self._contents.open(file.place, file.content)

    def _remove_content(self, file: File) -> None:
        if file.content is not None:
            self._contents.remove(file.place, file.content)

    def _same_name(self, container: Container, name: str) -> list[File]:
        rows = self._database.execute(
            "SELECT * FROM files WHERE container = ? AND name = ? AND deleted = 0 ORDER BY seq",
            (container.seq, name),
        ).fetchall()
        return [_file(row, container) for row in rows]

    def _add_phantom(self, container: Container, *, behaviours: Behaviours) -> None:
        rows = self._database.execute(
            "SELECT path, content FROM files WHERE container = ? AND deleted = 0 ORDER BY seq",
            (container.seq,),
        ).fetchmany(3)
        phantoms = self._database.execute(
            "SELECT 1 FROM files WHERE container = ? AND content IS NULL", (container.seq,)
        ).fetchone()
        if rows and not phantoms:
            path = "".join(row["path"] for row in rows)
            new = NewFile(
                name=path, path=path, source="assistant", size=0, content=None, told_bytes="null"
            )
            self.add(container, [new], behaviours=behaviours)


def _added(seq: int, id: str, new: NewFile, container: Container, created: int) -> File:
    return File(
        seq=seq,
        id=id,
        container_id=container.id,
        place=container.seq,
        created=created,
        path=new.path,
        source=new.source,
        size=new.size,
        told_bytes=new.told_bytes,
        content=new.content,
    )


def _file(row: sqlite3.Row, container: Container) -> File:
    return File(
        seq=row["seq"],
        id=row["id"],
        container_id=container.id,
        place=container.seq,
        created=row["created"],
        path=row["path"],
        source=row["source"],
        size=row["size"],
        told_bytes=row["told_bytes"],
        content=row["content"],
    )
