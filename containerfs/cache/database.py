"""The SQLite connection of the state database, whose failures are failures of our own disk."""

import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, NoReturn, Self

import trio

from containerfs.errors import LocalFault, from_os_error

QUICK = 1e-3  # seconds: a disk that is through with a sync so soon is waited for without a thread


class Cursor(sqlite3.Cursor):
    """A cursor that raises NoSpace and LocalFault where SQLite fails."""

    def execute(self, statement: str, values: Any = ()) -> Self:
        try:
            super().execute(statement, values)
        except sqlite3.Error as exc:
            _fail(exc)
        return self

    def executemany(self, statement: str, rows: Any) -> Self:
        try:
            super().executemany(statement, rows)
        except sqlite3.Error as exc:
            _fail(exc)
        return self

    def executescript(self, script: str) -> Self:
        try:
            super().executescript(script)
        except sqlite3.Error as exc:
            _fail(exc)
        return self

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.Error as exc:
            _fail(exc)

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as exc:
            _fail(exc)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.Error as exc:
            _fail(exc)


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
    try:
        connection = sqlite3.connect(path, isolation_level=None, factory=Connection)
    except sqlite3.Error as exc:
        _fail(exc)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


class Log:
    """The write-ahead log of a database, which holds what was committed last."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        ((_, _, path),) = connection.execute("PRAGMA database_list")
        self._path = f"{path}-wal"
        self._took = float("inf")  # seconds, for the last sync

    @property
    def is_quick(self) -> bool:
        """Whether to wait for a sync takes less than to have a thread wait."""
        return self._took < QUICK

    async def sync(self) -> None:
        """Have all that was committed so far survive a power cut.

        Raises:
            NoSpace, LocalFault: It may not.

        Source: SQLite, "Write-Ahead Logging": a commit is what was appended to the log.
        """
        try:
            if self.is_quick:
                self._took = _sync(self._path)
            else:
                self._took = await trio.to_thread.run_sync(_sync, self._path)
        except FileNotFoundError:  # a disk that can't have a log: there each commit syncs
            return
        except OSError as exc:
            raise from_os_error(exc, "syncing the state database") from exc


def _sync(path: str) -> float:
    """Sync the file; returns the seconds that it took."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        begun = time.perf_counter()
        os.fdatasync(fd)
        return time.perf_counter() - begun
    finally:
        os.close(fd)


def _fail(error: sqlite3.Error) -> NoReturn:
    """Raise the failure of our own disk that *error* is."""
    code = getattr(error, "sqlite_errorcode", None)
    what = "the state database"
    if code == sqlite3.SQLITE_FULL:
        raise from_os_error(OSError(errno.ENOSPC, str(error)), what) from error
    name = getattr(error, "sqlite_errorname", "")
    raise LocalFault(f"{what}: {error} {name}".rstrip()) from error
