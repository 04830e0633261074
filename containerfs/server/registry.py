"""Files outside any container, known by an id, that can be attached to containers."""

import sqlite3
from dataclasses import dataclass

from containerfs.server import refusals
from containerfs.server.contents import REGISTRY, Contents, Incoming
from containerfs.server.ids import new_registry_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFile:
    """A file to attach."""

    id: str
    name: str
    size: int
    content: str


class Registry:
    """The registered files of a server."""

    def __init__(self, database: sqlite3.Connection, contents: Contents) -> None:
        self._database = database
        self._contents = contents

    def register(self, incoming: Incoming, *, name: str) -> RegisteredFile:
        """Keep a file for attaching."""
        content = self._contents.keep(incoming, place=REGISTRY)
        file = RegisteredFile(id=new_registry_id(), name=name, size=incoming.size, content=content)
        self._database.execute(
            "INSERT INTO registry (id, name, size, content) VALUES (?, ?, ?, ?)",
            (file.id, file.name, file.size, file.content),
        )
        return file

    def find(self, file_id: str, *, param: str) -> RegisteredFile:
        """The file with this id; raises Refusal, which names *param*."""
        row = self._database.execute("SELECT * FROM registry WHERE id = ?", (file_id,)).fetchone()
        if row is None:
            raise refusals.registry_file_not_found(file_id, param=param)
        return RegisteredFile(**dict(row))

    def copy(self, file: RegisteredFile, *, place: int) -> str:
        """Give a container the content; returns its key there."""
        return self._contents.copy(source=REGISTRY, key=file.content, place=place)
