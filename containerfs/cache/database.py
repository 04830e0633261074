"""The SQLite connection of the state database, whose failures are failures of our own disk."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import trio

from containerfs.errors import LocalFault, from_os_error


class Cursor(sqlite3.Cursor):
    """A cursor that raises NoSpace and LocalFault where SQLite fails."""

    def execute(self, statement: str, values: Any = ()) -> Self:
        with _told():
            super().execute(statement, values)
        return self

    def executemany(self, statement: str, rows: Any) -> Self:
        with _told():
            super().executemany(statement, rows)
        return self

    def executescript(self, script: str) -> Self:
        with _told():
            super().executescript(script)
        return self

    def fetchone(self) -> Any:
        with _told():
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        with _told():
            return super().fetchall()

    def __next__(self) -> Any:
        with _told():
            return super().__next__()


class Connection(sqlite3.Connection):
    """A connection to the state database; every statement commits by itself, or in `BEGIN`."""

    def cursor(self, factory: type[sqlite3.Cursor] = Cursor) -> Any:  # type: ignore[override]  # typeshed has overloads for the default
        return super().cursor(factory)

    # sqlite3's own shortcuts make a cursor of its own class.

    def execute(self, statement: str, values: Any = (), /) -> Any:
        return self.cursor().execute(statement, values)

    def executemany(self, statement: str, rows: Any, /) -> Any:
        return self.cursor().executemany(statement, rows)

    def executescript(self, script: str, /) -> Any:
        return self.cursor().executescript(script)


def connected(path: Path, *, schema: str = "") -> Connection:
    """Open, or make, the database at *path*; the caller closes it.

    A commit survives the end of the process at once (it is in the kernel), and a power cut from
    the next `State.sync`, or checkpoint, on; commits are lost in the reverse order of their coming.

    Raises:
        LocalFault, NoSpace: It can't be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))  # SQLite gives its other files the mode of this one
    except OSError as exc:
        raise from_os_error(exc, f"state database {path}") from exc
    with _told():
        connection = sqlite3.connect(path, isolation_level=None, factory=Connection)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


async def sync(connection: sqlite3.Connection) -> None:
    """Have all that was committed so far survive a power cut.

    Raises:
        NoSpace, LocalFault: It may not.

    Source: SQLite, "Write-Ahead Logging": a commit is what was appended to the log.
    """
    ((_, _, path),) = connection.execute("PRAGMA database_list")
    try:
        await trio.to_thread.run_sync(_sync, f"{path}-wal")
    except FileNotFoundError:  # a disk that can't have a log: there each commit syncs
        return
    except OSError as exc:
        raise from_os_error(exc, "syncing the state database") from exc


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", None)
        what = "the state database"
        if code == sqlite3.SQLITE_FULL:
            raise from_os_error(OSError(errno.ENOSPC, str(exc)), what) from exc
        name = getattr(exc, "sqlite_errorname", "")
        raise LocalFault(f"{what}: {exc} {name}".rstrip()) from exc
