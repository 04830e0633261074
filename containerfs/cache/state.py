"""The state database: everything the service has no place for, kept per account on this machine.

One SQLite file in WAL mode, used by one thread of one process. Paths are stored as bytes, as the
kernel gives them, because a name need not be text. The journal and the content index keep their
own tables in the same file: they are handed the connection.
"""

import json
import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from containerfs.api.types import Container, RemoteFile
from containerfs.cache.ballast import Ballast
from containerfs.cache.database import connected
from containerfs.cache.transactions import Transactions

BALLAST = "ballast"  # beside the database
SCHEMA = """
CREATE TABLE IF NOT EXISTS containers(
    id TEXT PRIMARY KEY, name BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes(
    container TEXT NOT NULL, path BLOB NOT NULL, kind TEXT NOT NULL, ino INTEGER NOT NULL,
    file_id TEXT, mode INTEGER, uid INTEGER, gid INTEGER,
    atime_ns INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, target BLOB, xattrs TEXT,
    PRIMARY KEY(container, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones(
    container TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY(container, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS creations(
    container TEXT NOT NULL, id TEXT NOT NULL, created REAL NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY(container, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listings(
    container TEXT PRIMARY KEY, entries BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class LocalNode:
    """What is remembered of one name in a container.

    A field that is None was never set here: the mount's default, or what the server says, holds.
    """

    kind: str  # "file", "directory", "symlink", "fifo" or "socket"
    ino: int
    file_id: str | None = (
        None  # the server's object that this name means, for a file sent from here
    )
    mode: int | None = None  # permission bits
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    target: bytes | None = None  # of a symbolic link
    xattrs: dict[str, bytes] = field(default_factory=dict)


_COLUMNS = "kind, ino, file_id, mode, uid, gid, atime_ns, mtime_ns, ctime_ns, target, xattrs"
_FIELDS = tuple(_COLUMNS.replace(" ", "").split(",")[:-1])


class State(Transactions):
    """The database of one account; `connection` is lent to the journal and the content index."""

    # Containers: which name each one keeps.

    def container_names(self) -> dict[str, str]:
        """The visible name of each container, by id."""
        rows = self.connection.execute("SELECT id, name FROM containers")
        return {id: os.fsdecode(name) for id, name in rows}

    def keep_container_names(self, names: dict[str, str]) -> None:
        """Remember these and no others."""
        with self.transaction():
            self.connection.execute("DELETE FROM containers")
            self.connection.executemany(
                "INSERT INTO containers VALUES(?, ?)",
                [(id, os.fsencode(name)) for id, name in names.items()],
            )

    # Nodes: local attributes, links, directories, and which object a name means.

    def nodes(self, container_id: str) -> dict[str, LocalNode]:
        """All that is remembered of a container, by visible path."""
        rows = self.connection.execute(
            f"SELECT path, {_COLUMNS} FROM nodes WHERE container = ?",  # noqa: S608 - constant text
            (container_id,),
        )
        return {os.fsdecode(row[0]): _local_node(row[1:]) for row in rows}

    def node(self, container_id: str, path: str) -> LocalNode | None:
        """What is remembered under one visible path."""
        row = self.connection.execute(
            f"SELECT {_COLUMNS} FROM nodes WHERE container = ? AND path = ?",  # noqa: S608 - constant text
            (container_id, os.fsencode(path)),
        ).fetchone()
        return _local_node(row) if row is not None else None

    def remembers_any(
        self, container_id: str, *, paths: Collection[str], file_ids: Collection[str]
    ) -> bool:
        """Whether anything is remembered under one of a few *paths*, or of a few objects."""
        marks = ",".join("?" * len(paths)), ",".join("?" * len(file_ids))
        row = self.connection.execute(
            "SELECT 1 FROM nodes "  # noqa: S608 - question marks
            f"WHERE container = ? AND (path IN ({marks[0]}) OR file_id IN ({marks[1]})) LIMIT 1",
            (container_id, *map(os.fsencode, paths), *file_ids),
        ).fetchone()
        return row is not None

    def save_node(self, container_id: str, path: str, node: LocalNode) -> None:
        """Remember *node* under *path*, in place of what was there."""
        xattrs = {name: value.hex() for name, value in node.xattrs.items()}
        self.connection.execute(
            f"INSERT OR REPLACE INTO nodes(container, path, {_COLUMNS}) "
            "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                container_id,
                os.fsencode(path),
                node.kind,
                node.ino,
                node.file_id,
                node.mode,
                node.uid,
                node.gid,
                node.atime_ns,
                node.mtime_ns,
                node.ctime_ns,
                node.target,
                json.dumps(xattrs) if xattrs else None,
            ),
        )

    def forget_node(self, container_id: str, path: str) -> None:
        """Forget what was remembered under *path*; unknown paths are fine."""
        self.connection.execute(
            "DELETE FROM nodes WHERE container = ? AND path = ?", (container_id, os.fsencode(path))
        )

    def forget_container(self, container_id: str) -> None:
        """Forget all that is remembered of a container."""
        with self.transaction():
            for table in ("nodes", "tombstones", "creations", "listings"):
                self.connection.execute(
                    f"DELETE FROM {table} WHERE container = ?",  # noqa: S608 - constant names
                    (container_id,),
                )

    # Tombstones: what was deleted here and may still be listed. Containers are kept under "".

    def tombstones(self) -> list[tuple[str, str]]:
        """All of them, as (container id, object id)."""
        return list(self.connection.execute("SELECT container, id FROM tombstones"))

    def add_tombstone(self, container_id: str, object_id: str) -> None:
        self.connection.execute(
            "INSERT OR IGNORE INTO tombstones VALUES(?, ?)", (container_id, object_id)
        )

    def forget_tombstones(self, container_id: str, object_ids: list[str]) -> None:
        with self.transaction():
            self.connection.executemany(
                "DELETE FROM tombstones WHERE container = ? AND id = ?",
                [(container_id, object_id) for object_id in object_ids],
            )

    # Creations: what was made here and may not be listed yet. Containers are kept under "".

    def created_files(self) -> list[tuple[RemoteFile, float]]:
        """Those that are files, oldest first, and when they were made, in Unix seconds."""
        return [(RemoteFile(*entry), at) for entry, at in self._creations("!=")]

    def created_containers(self) -> list[tuple[Container, float]]:
        """Those that are containers; as `created_files`."""
        return [(Container(**entry), at) for entry, at in self._creations("=")]

    def _creations(self, than: str) -> list[tuple[Any, float]]:
        rows = self.connection.execute(
            f"SELECT entry, created FROM creations WHERE container {than} '' ORDER BY created"  # noqa: S608 - our own words
        )
        return [(json.loads(entry), at) for entry, at in rows]

    def add_creation(self, container_id: str, entry: Container | RemoteFile, *, at: float) -> None:
        # A file as it is, a tuple: to name its parts takes twice as long.
        facts = entry if isinstance(entry, RemoteFile) else asdict(entry)
        self.connection.execute(
            "INSERT OR REPLACE INTO creations VALUES(?, ?, ?, ?)",
            (container_id, entry.id, at, json.dumps(facts)),
        )

    def forget_creations(self, container_id: str, object_ids: Iterable[str]) -> None:
        with self.transaction():
            self.connection.executemany(
                "DELETE FROM creations WHERE container = ? AND id = ?",
                [(container_id, object_id) for object_id in object_ids],
            )

    def forget_creations_before(self, at: float) -> None:
        """Forget those of before *at*, in Unix seconds."""
        self.connection.execute("DELETE FROM creations WHERE created < ?", (at,))

    # Listings: what was last seen, for when the server can't be asked.

    def save_listing(
        self, container_id: str, entries: tuple[Container, ...] | tuple[RemoteFile, ...]
    ) -> None:
        text = json.dumps([_facts(entry) for entry in entries], separators=(",", ":"))
        self.connection.execute(
            "INSERT OR REPLACE INTO listings VALUES(?, ?)",
            (container_id, zlib.compress(text.encode(), 1)),
        )

    def containers_listing(self) -> tuple[Container, ...] | None:
        """The containers as last listed; None when they never were."""
        entries = self._listing("")
        return None if entries is None else tuple(Container(**entry) for entry in entries)

    def files_listing(self, container_id: str) -> tuple[RemoteFile, ...] | None:
        """A container's files as last listed; None when they never were."""
        entries = self._listing(container_id)
        return None if entries is None else tuple(RemoteFile(**entry) for entry in entries)

    def _listing(self, container_id: str) -> list[dict[str, Any]] | None:
        row = self.connection.execute(
            "SELECT entries FROM listings WHERE container = ?", (container_id,)
        ).fetchone()
        return None if row is None else json.loads(zlib.decompress(row[0]))


def _facts(entry: Container | RemoteFile) -> dict[str, Any]:
    return entry._asdict() if isinstance(entry, RemoteFile) else asdict(entry)


def _local_node(row: tuple[object, ...]) -> LocalNode:
    *values, xattrs = row
    node = LocalNode(**dict(zip(_FIELDS, values, strict=True)))  # type: ignore[arg-type]  # the columns are the fields
    if isinstance(xattrs, str):
        pairs = json.loads(xattrs).items()
        node = replace(node, xattrs={name: bytes.fromhex(value) for name, value in pairs})
    return node


@contextmanager
def open_state(path: Path) -> Iterator[State]:
    """The state in the database at *path*, open inside.

    Raises:
        LocalFault, NoSpace: It can't be opened.
    """
    ballast = Ballast(path.with_name(BALLAST))
    with closing(connected(path, schema=SCHEMA, ballast=ballast)) as connection:
        yield State(connection, ballast=ballast)
