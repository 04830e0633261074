"""Everything a server keeps: one data directory, opened by one server at a time."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from containerfs.server.containers import Containers
from containerfs.server.contents import REGISTRY, Contents
from containerfs.server.database import close_database, open_database, was_closed
from containerfs.server.files import Files
from containerfs.server.registry import Registry
from containerfs.server.settings import ServeError

_DATABASE = "containers.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The parts of an open store."""

    contents: Contents
    containers: Containers
    files: Files
    registry: Registry


@contextmanager
def open_store(data: Path) -> Iterator[Store]:
    """The store in the directory *data*, made if missing, mode 0700, locked while it is open.

    What a killed server left half done is cleaned up first.

    Raises:
        ServeError: The directory is not ours to use, or another server uses it.
    """
    _prepare(data)
    with _lock(data):
        try:
            database = open_database(data / _DATABASE)
        except sqlite3.Error as exc:
            raise ServeError(f"can't open the database in {data}: {exc}") from exc
        with closing(database):
            contents = Contents(data / "content")
            known = _known_contents(database)
            if not was_closed(database):
                contents.sweep(known)
            contents.extend(known)
            containers = Containers(database, contents)
            try:
                yield Store(
                    contents=contents,
                    containers=containers,
                    files=Files(database, contents),
                    registry=Registry(database, contents),
                )
            finally:
                contents.close()
                containers.close()
                close_database(database)


def _prepare(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = data.stat().st_uid
        is_ours = (data / _DATABASE).exists() or not any(
            entry.name != "lock" for entry in data.iterdir()
        )
    except FileExistsError as exc:
        raise ServeError(f"{data} is not a directory") from exc
    except OSError as exc:
        raise ServeError(f"can't use {data}: {exc.strerror}") from exc
    if owner != os.geteuid():
        raise ServeError(f"{data} belongs to somebody else")
    if not is_ours:
        raise ServeError(f"{data} is neither empty nor a server's data")
    data.chmod(0o700)


@contextmanager
def _lock(data: Path) -> Iterator[None]:
    fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise ServeError(f"another server uses {data}: a mount of it, or serve") from exc
    try:
        yield
    finally:
        os.close(fd)


def _known_contents(database: sqlite3.Connection) -> set[tuple[int, str]]:
    known = {
        (row["container"], row["content"])
        for row in database.execute(
            "SELECT container, content FROM files WHERE deleted = 0 AND content IS NOT NULL"
        )
    }
    return known | {
        (REGISTRY, row["content"]) for row in database.execute("SELECT * FROM registry")
    }
