"""The SQLite connection of the state database, whose failures are failures of our own disk."""

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn, Self

import trio

from containerfs.cache.ballast import Ballast
from containerfs.errors import LocalFault, from_os_error

# What a full disk is to SQLite; the second where its shared memory can't grow.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
QUICK = 1e-3  # seconds: a disk that is through with a sync so soon is waited for without a thread


class Cursor(sqlite3.Cursor):
    """A cursor that raises NoSpace and LocalFault where SQLite fails."""

    connection: "Connection"

    def execute(self, statement: str, values: Any = ()) -> Self:
        self._run(sqlite3.Cursor.execute, statement, values)
        return self

    def executemany(self, statement: str, rows: Any) -> Self:
        self._run(sqlite3.Cursor.executemany, statement, list(rows))
        return self

    def executescript(self, script: str) -> Self:
        self._run(sqlite3.Cursor.executescript, script)
        return self

    def _run(self, run: Callable[..., object], *statement: Any) -> None:
        connection = self.connection
        try:
            run(self, *statement)
        except sqlite3.Error as exc:
            if not _is_full(exc) or not connection.may_use_ballast:
                _fail(exc)
            try:
                connection.begin_again()
                run(self, *statement)
            except sqlite3.Error as again:
                _fail(again)
        if connection.in_transaction:
            connection.begun.append((run, statement))
        elif connection.begun:
            connection.begun.clear()

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
    """A connection to the state database; every statement commits by itself, or in `BEGIN`.

    On a full disk, the ballast is let go of, and what failed is done again.

    Attributes:
        ballast: None where there is none.
        may_use_ballast: What is recorded now is not what fills the disk.
        begun: The statements of the transaction under way.
    """

    ballast: Ballast | None = None
    may_use_ballast = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def begin_again(self) -> None:
        """Make room, and take the transaction under way, which is lost, to where it was.

        Raises:
            sqlite3.Error: It can't be.
        """
        begun, self.begun = self.begun, []
        if self.in_transaction:  # else SQLite has ended it
            self.rollback()
        if self.ballast is not None:
            self.ballast.let_go()
        with closing(super().cursor()) as cursor:
            # What the log has is in the database then, and the next commit is written over it.
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        with closing(super().cursor()) as cursor:
            for run, statement in begun:
                run(cursor, *statement)
        self.begun = begun

    def cursor(self, factory: type[sqlite3.Cursor] = Cursor) -> Any:  # type: ignore[override]  # typeshed has overloads for the default
        return super().cursor(factory)

    # sqlite3's own shortcuts make a cursor of its own class.

    def execute(self, statement: str, values: Any = (), /) -> Any:
        return self.cursor().execute(statement, values)

    def executemany(self, statement: str, rows: Any, /) -> Any:
        return self.cursor().executemany(statement, rows)

    def executescript(self, script: str, /) -> Any:
        return self.cursor().executescript(script)


def connected(path: Path, *, schema: str = "", ballast: Ballast | None = None) -> Connection:
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
    connection.ballast = ballast
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(schema)
    except BaseException as exc:
        connection.close()
        if getattr(exc.__cause__, "sqlite_errorname", "") == "SQLITE_NOTADB":
            hint = "moved away, it is a lost one: unsent content loses its name"
            raise LocalFault(f"{path}: {exc}; {hint}") from exc
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


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) in _FULL


def _fail(error: sqlite3.Error) -> NoReturn:
    """Raise the failure of our own disk that *error* is."""
    what = "the state database"
    if _is_full(error):
        raise from_os_error(OSError(errno.ENOSPC, str(error)), what) from error
    name = getattr(error, "sqlite_errorname", "")
    raise LocalFault(f"{what}: {error} {name}".rstrip()) from error
