"""The SQLite database of a server: its schema, and opening and closing it.

Content is in files beside it; a row is committed after its content is in place and removed before
its content is, so that a kill at any moment leaves at worst content that no row knows.
"""

import os
import sqlite3
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    last_active REAL NOT NULL,
    minutes INTEGER NOT NULL,
    memory_limit TEXT NOT NULL,
    network_policy TEXT,
    status TEXT NOT NULL DEFAULT 'running',
    hidden_until REAL NOT NULL DEFAULT 0,
    hidden_lists INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    gone_at REAL NOT NULL DEFAULT 0,
    gone_lists INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS containers_by_id ON containers (id);
CREATE INDEX IF NOT EXISTS containers_by_age ON containers (created);
CREATE INDEX IF NOT EXISTS containers_by_name ON containers (name, created);
CREATE INDEX IF NOT EXISTS containers_lagging ON containers (seq)
    WHERE deleted = 1 OR hidden_lists > 0;

CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    container INTEGER NOT NULL,
    created INTEGER NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    source TEXT NOT NULL,
    size INTEGER NOT NULL,
    told_bytes TEXT,
    content TEXT,
    hidden_until REAL NOT NULL DEFAULT 0,
    hidden_lists INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    gone_at REAL NOT NULL DEFAULT 0,
    gone_lists INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS files_by_id ON files (container, id);
CREATE INDEX IF NOT EXISTS files_by_age ON files (container, created);
CREATE INDEX IF NOT EXISTS files_by_name ON files (container, name);
CREATE INDEX IF NOT EXISTS files_lagging ON files (container)
    WHERE deleted = 1 OR hidden_lists > 0;

CREATE TABLE IF NOT EXISTS registry (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    content TEXT NOT NULL
);
"""


def open_database(path: Path) -> sqlite3.Connection:
    """The database at *path*, made if missing; every statement is its own transaction.

    A commit survives the end of this process; it need not survive a power cut.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    database = sqlite3.connect(path, isolation_level=None, cached_statements=512)
    try:
        database.row_factory = sqlite3.Row
        # The directory's lock keeps others out: locking each transaction too would only cost.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 4000")  # pages; each waits for the disk
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def was_closed(database: sqlite3.Connection) -> bool:
    """Whether the last process closed the database in order; from now on it counts as open."""
    (closed,) = database.execute("PRAGMA user_version").fetchone()
    database.execute("PRAGMA user_version = 0")
    return bool(closed)


def close_database(database: sqlite3.Connection) -> None:
    """Close it in order: the next start need not look for leftovers."""
    database.execute("PRAGMA user_version = 1")
    database.close()
