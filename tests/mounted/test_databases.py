"""Databases and mailboxes: programs that lock, map, sync and rewrite the middle of files."""

import dbm
import mailbox
import shutil
import sqlite3
from contextlib import closing
from email.message import EmailMessage

import pytest

MODES = ["delete", "truncate", "persist", "memory", "wal", "off"]


@pytest.fixture
def mounted(mount):
    mounted = mount()
    (mounted / "box").mkdir()
    return mounted


@pytest.fixture
def box(mounted):
    return mounted / "box"


def connect(path):
    return closing(sqlite3.connect(path, isolation_level=None, timeout=30))


@pytest.mark.parametrize("mode", MODES)
def test_sqlite_keeps_every_row_in_every_journal_mode(mounted, box, run, mode):
    path = box / "data.db"
    with connect(path) as database:
        assert database.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
        database.execute("CREATE TABLE t(x INTEGER PRIMARY KEY, y TEXT)")
        for start in range(0, 500, 50):
            database.execute("BEGIN")
            rows = [(number, f"row {number}" * 20) for number in range(start, start + 50)]
            database.executemany("INSERT INTO t VALUES(?, ?)", rows)
            database.execute("COMMIT")
        if mode != "off":  # without a journal nothing is undone
            database.execute("BEGIN")
            database.execute("DELETE FROM t")
            database.execute("ROLLBACK")
        said = run("sqlite3", path, "SELECT count(*), sum(x) FROM t")  # another process meanwhile
        assert said == "500|124750\n"
    mounted.remount()
    said = run("sqlite3", path, "PRAGMA integrity_check; SELECT count(*), sum(x) FROM t")
    assert said == "ok\n500|124750\n"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_takes_10000_inserts(mounted, box, tmp_path, run, mode):
    script = tmp_path / "script.sql"
    inserts = "".join(f"INSERT INTO t VALUES({number});\n" for number in range(9_950))
    alone = "".join(f"INSERT INTO t VALUES({number});\n" for number in range(9_950, 10_000))
    script.write_text(
        f"PRAGMA journal_mode={mode};\nCREATE TABLE t(x);\nBEGIN;\n{inserts}COMMIT;\n{alone}"
    )
    run("sqlite3", box / "data.db", f".read {script}")
    check = "PRAGMA integrity_check; SELECT count(*), sum(x) FROM t"
    assert run("sqlite3", box / "data.db", check) == "ok\n10000|49995000\n"
    mounted.remount()
    assert run("sqlite3", box / "data.db", check) == "ok\n10000|49995000\n"


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_takes_10000_transactions(box, mode):
    with connect(box / "data.db") as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("PRAGMA synchronous = OFF")  # else each one is an upload
        database.execute("CREATE TABLE t(x)")
        for number in range(10_000):
            database.execute("INSERT INTO t VALUES(?)", (number,))
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sqlite_processes_wait_for_each_other(box, run):
    with connect(box / "data.db") as database:
        database.execute("CREATE TABLE t(x)")
        database.execute("BEGIN IMMEDIATE")
        done = run("sqlite3", box / "data.db", "INSERT INTO t VALUES(1)", check=False)
        assert "locked" in done.stderr
        database.execute("COMMIT")
    run("sqlite3", box / "data.db", "INSERT INTO t VALUES(1)")


def test_a_killed_mount_leaves_a_sound_database(mounted, box, run):
    path = box / "data.db"
    with connect(path) as database:
        database.execute("CREATE TABLE t(x)")
        database.execute("BEGIN")
        database.execute("INSERT INTO t VALUES(1)")
        database.execute("COMMIT")
        database.execute("BEGIN")
        database.execute("PRAGMA cache_size = 1")
        database.executemany("INSERT INTO t VALUES(?)", [("x" * 500,)] * 200)
        mounted.kill()
    mounted.remount()
    assert run("sqlite3", path, "PRAGMA integrity_check; SELECT x FROM t") == "ok\n1\n"


@pytest.mark.parametrize("kind", ["dbm.dumb", "dbm.gnu", "dbm.ndbm"])
def test_dbm_keeps_what_is_stored(mounted, box, kind):
    module = pytest.importorskip(kind, exc_type=ImportError)
    path = str(box / "data")
    with module.open(path, "c") as database:
        for number in range(200):
            database[f"key {number}"] = f"value {number}" * 10
        del database["key 7"]
    mounted.remount()
    assert dbm.whichdb(path) == kind
    with module.open(path, "w") as database:
        assert len(database.keys()) == 199
        assert database["key 8"] == b"value 8" * 10
        database["key 7"] = b"again"
    with module.open(path, "r") as database:
        assert database["key 7"] == b"again"


@pytest.mark.parametrize("kind", ["mbox", "MMDF", "Babyl", "MH", "Maildir"])
def test_mailboxes_keep_their_messages(mounted, box, kind):
    def opened():
        return closing(getattr(mailbox, kind)(box / "mail"))

    with opened() as mails:
        for number in range(10):
            message = EmailMessage()
            message["Subject"] = f"mail {number}"
            message.set_content("hello\n" * number)
            mails.lock()
            mails.add(message)
            mails.flush()
            mails.unlock()
    with opened() as mails:
        found = {message["Subject"]: key for key, message in mails.items()}
        mails.lock()
        mails.remove(found["mail 3"])
        mails.flush()
        mails.unlock()
    mounted.remount()
    with opened() as mails:
        subjects = sorted(message["Subject"] for message in mails)
        assert subjects == [f"mail {number}" for number in range(10) if number != 3]
    if (box / "mail").is_dir():
        shutil.rmtree(box / "mail")
