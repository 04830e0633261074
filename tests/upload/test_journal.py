"""The journal, cut off at every durable step."""

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from containerfs.upload.fingerprint import Fingerprint
from containerfs.upload.journal import Entry, Journal


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest.fixture
def connection(path):
    connection = connect(path)
    yield connection
    connection.close()


class CutOffError(Exception):
    """The machine stopped here."""


class Cutting:
    """A connection whose n-th change does not happen any more."""

    def __init__(self, connection: sqlite3.Connection, *, at: int | None) -> None:
        self._connection = connection
        self._at = at
        self.changes = 0

    def executescript(self, script: str) -> Any:
        return self._connection.executescript(script)

    def execute(self, statement: str, *values: Any) -> Any:
        if not statement.startswith("SELECT"):
            self.changes += 1
            if self.changes == self._at:
                raise CutOffError
        return self._connection.execute(statement, *values)


def begin(journal: Journal, path: str, **members: Any) -> Entry:
    values = {"container_id": "c", "spool": "a spool", "replaces": (), "held": False}
    return journal.begin(path=path, **(values | members))


def reopened(path: Path, tmp_path: Path) -> Journal:
    """The journal as a mount after a crash right now finds it."""
    for leftover in tmp_path.glob("copy.sqlite*"):
        leftover.unlink()
    for file in path.parent.glob("state.sqlite*"):
        if not file.name.endswith("-shm"):  # the index of the log: made anew from it
            shutil.copy(file, tmp_path / file.name.replace("state", "copy"))
    connection = connect(tmp_path / "copy.sqlite")
    journal = Journal(connection)
    connection.close()
    return journal


NAMES = ["a", "d/e", "é☃", "\udcff\udc80", "x" * 255, "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_found_again_as_it_was(path, connection, tmp_path, name):
    journal = Journal(connection)
    entry = begin(journal, name, replaces=("old", "older", "\u2603"), held=True)
    (found,) = reopened(path, tmp_path).entries
    assert found == entry
    entry.state, entry.error, entry.held = "sending", "why: ☃", False
    entry.path, entry.container_id, entry.spool = f"{name}2", "d", "other"
    journal.update(entry)
    assert reopened(path, tmp_path).entries == [entry]
    journal.forget(entry)
    assert reopened(path, tmp_path).entries == []
    assert journal.entries == []


def test_entries_are_kept_in_their_order(path, connection, tmp_path):
    journal = Journal(connection)
    entries = [begin(journal, name) for name in NAMES]
    journal.forget(entries.pop(2))
    assert journal.entries == entries
    assert reopened(path, tmp_path).entries == entries


def test_how_often_an_entry_failed_is_not_remembered(path, connection, tmp_path):
    journal = Journal(connection)
    entry = begin(journal, "a")
    entry.failures = 7
    journal.update(entry)
    (found,) = reopened(path, tmp_path).entries
    assert found.failures == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_may_have_arrived_is_known_until_that_is_told(path, connection, tmp_path, name):
    journal = Journal(connection)
    entry, other = begin(journal, name), begin(journal, "other")
    lost = [("c", f"{name}{number}", Fingerprint(number, b"\0\xff")) for number in range(3)]
    for each in (*lost, *lost):
        journal.lose(entry, each)
    journal.lose(other, lost[0])
    journal.found(entry, lost[1:2])
    first, second = reopened(path, tmp_path).entries
    assert first.lost == entry.lost == {lost[0], lost[2]}
    journal.found(entry, entry.lost)
    first, second = reopened(path, tmp_path).entries
    assert (first.lost, second.lost) == (set(), {lost[0]})
    journal.forget(other)
    assert connection.execute("SELECT * FROM lost").fetchall() == []


def test_deletions_stay_until_they_are_done(path, connection, tmp_path):
    journal = Journal(connection)
    for pair in (("c", "1"), ("c", "2"), ("d", "1"), ("c", "1")):
        journal.delete_later(*pair)
    assert journal.deletions == [("c", "1"), ("c", "2"), ("d", "1")]
    journal.deleted("c", "1")
    journal.deleted("c", "unknown")
    assert sorted(reopened(path, tmp_path).deletions) == [("c", "2"), ("d", "1")]


def test_what_is_to_be_deleted_has_the_path_and_the_reason_that_were_told(
    path, connection, tmp_path
):
    journal = Journal(connection)
    journal.delete_later("c", "1", path="dir/\udcff")
    journal.delete_later("c", "1")
    journal.doomed.failed("c", "1", "no")
    journal.doomed.failed("c", "2", "no")
    (found,) = reopened(path, tmp_path).doomed.all
    assert found == journal.doomed.find("c", "1")
    assert (found.path, found.error) == ("dir/\udcff", "no")


def test_deletions_that_were_recorded_without_a_path_are_kept(connection):
    connection.executescript(
        "CREATE TABLE deletions(container TEXT NOT NULL, id TEXT NOT NULL, "
        "PRIMARY KEY(container, id)) WITHOUT ROWID; INSERT INTO deletions VALUES('c', '1')"
    )
    journal = Journal(connection)
    assert [(each.path, each.error) for each in journal.doomed.all] == [("", None)]
    journal.delete_later("c", "2", path="a")
    assert journal.deletions == [("c", "1"), ("c", "2")]


def test_ids_are_not_used_again_while_they_mean_something(connection):
    journal = Journal(connection)
    first, second = begin(journal, "a"), begin(journal, "b")
    journal.forget(first)
    assert begin(journal, "c").id != second.id


def test_ids_are_not_used_again_by_a_later_mount_either(path, connection, tmp_path):
    """A rename that was cut off may still name an entry that was forgotten meanwhile."""
    journal = Journal(connection)
    kept, forgotten = begin(journal, "a"), begin(journal, "b")
    journal.forget(forgotten)
    later = Journal(connection)
    new = begin(later, "c")
    assert new.id not in (kept.id, forgotten.id)
    for entry in later.entries:
        later.forget(entry)
    assert begin(Journal(connection), "d").id > new.id


def life(journal: Journal, connection: Any, acknowledge: Any) -> None:
    """Two files written, sent and replaced: every kind of step; each is acknowledged when done."""
    one = begin(journal, "one", replaces=("old",))
    acknowledge(one)
    two = begin(journal, "two", spool="first")
    acknowledge(two)
    for state, spool in (("sending", "first"), ("dirty", "second")):
        changed = replace(two, state=state, spool=spool)
        journal.update(changed)
        acknowledge(changed)
    connection.execute("BEGIN IMMEDIATE")
    journal.forget(one)
    journal.delete_later("c", "old")
    connection.execute("COMMIT")
    acknowledge(None)
    journal.deleted("c", "old")


STEPS = 9  # changes in a life


def test_the_life_has_as_many_steps_as_are_cut(connection):
    counting = Cutting(connection, at=None)
    life(Journal(counting), counting, lambda _: None)
    assert counting.changes == STEPS


@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_cut_off_at_any_step_each_entry_is_whole_or_absent(path, connection, tmp_path, at):
    cutting = Cutting(connection, at=at)
    acknowledged: dict[str, Entry] = {}
    is_one_sent = False

    def acknowledge(entry: Entry | None) -> None:
        nonlocal is_one_sent
        if entry is None:
            is_one_sent = True
            acknowledged.pop("one")
        else:
            acknowledged[entry.path] = replace(entry)

    with pytest.raises(CutOffError):
        life(Journal(cutting), cutting, acknowledge)
    found = reopened(path, tmp_path)
    # What was acknowledged is there, as it was acknowledged, and nothing else is.
    assert {entry.path: entry for entry in found.entries} == acknowledged
    # The new object's entry goes and the old object's deletion comes in one step.
    assert bool(found.deletions) == is_one_sent


def test_an_entry_that_could_not_be_recorded_is_not_in_memory_either(connection):
    cutting = Cutting(connection, at=1)
    journal = Journal(cutting)
    with pytest.raises(CutOffError):
        begin(journal, "a")
    assert journal.entries == []


def test_an_entry_that_could_not_be_forgotten_is_still_there(path, connection, tmp_path):
    cutting = Cutting(connection, at=2)
    journal = Journal(cutting)
    entry = begin(journal, "a")
    with pytest.raises(CutOffError):
        journal.forget(entry)
    assert journal.entries == [entry]
    assert reopened(path, tmp_path).entries == [entry]
