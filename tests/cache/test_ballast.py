"""The disk that is kept for the state database."""

import subprocess
import sys
from pathlib import Path

import pytest

from containerfs.cache.ballast import MOST, Ballast
from containerfs.cache.state import open_state

# On a file system of one MiB, what the child does must fail, and say why.
PREPARED = """
import os, subprocess, sys
from contextlib import suppress
from pathlib import Path
from containerfs.cache.ballast import Ballast
from containerfs.cache.state import LocalNode, open_state
from containerfs.errors import NoSpace

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)


def fill():
    with open(disk / "other", "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def refused(act):
    try:
        act()
    except NoSpace:
        return True
    return False


with open_state(disk / "state.sqlite") as state:
    node = LocalNode(kind="file", ino=1, mode=0o600, xattrs={"user.x": bytes(8192)})
    state.ballast.hold()
"""


@pytest.fixture
def on_small_disk(tmp_path):
    def on_small_disk(script: str) -> None:
        directory = tmp_path / "disk"
        directory.mkdir()
        indented = "\n".join(f"    {line}" for line in script.splitlines())
        subprocess.run(
            ["unshare", "-rm", sys.executable, "-c", PREPARED + indented, directory], check=True
        )

    return on_small_disk


def test_ballast_takes_disk_that_is_given_back(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast")
    ballast.hold()
    ballast.hold()
    assert 0 < (tmp_path / "ballast").stat().st_size <= MOST
    ballast.let_go()
    assert list(tmp_path.iterdir()) == []


def test_ballast_that_is_there_is_held_by_the_next(tmp_path: Path) -> None:
    Ballast(tmp_path / "ballast").hold()
    before = (tmp_path / "ballast").stat()
    Ballast(tmp_path / "ballast").hold()
    assert (tmp_path / "ballast").stat().st_ctime_ns == before.st_ctime_ns


def test_a_full_disk_has_no_ballast_to_be_held(on_small_disk) -> None:
    on_small_disk("""
state.ballast.let_go()
fill()
assert refused(state.ballast.hold)
assert not (disk / "ballast").exists()
(disk / "other").unlink()
state.ballast.hold()
assert (disk / "ballast").exists()
""")


def test_on_a_full_disk_one_statement_is_committed_with_the_ballast(on_small_disk) -> None:
    on_small_disk("""
fill()
state.save_node("box", "path", node)
assert not (disk / "ballast").exists()
assert state.node("box", "path").xattrs == node.xattrs
""")


def test_on_a_full_disk_a_transaction_is_committed_with_the_ballast_as_a_whole(
    on_small_disk,
) -> None:
    on_small_disk("""
undone, committed = [], []
state.save_node("box", "old", node)
fill()
with state.transaction():
    state.on_rollback(lambda: undone.append(1))
    state.after_commit(lambda: committed.append(1))
    for name in "abc":
        state.save_node("box", name, node)
    state.forget_node("box", "old")
    assert state.nodes("box").keys() == set("abc")
assert not (disk / "ballast").exists()
assert (undone, committed) == ([], [1])
assert state.nodes("box").keys() == set("abc")
""")


def test_on_a_full_disk_a_transaction_that_may_not_use_the_ballast_fails(on_small_disk) -> None:
    on_small_disk("""
fill()


def save():
    with state.transaction(may_use_ballast=False):
        for name in "abc":
            state.save_node("box", name, node)


assert refused(save)
assert (disk / "ballast").exists()
assert state.nodes("box") == {}
(disk / "other").unlink()
save()
assert state.nodes("box").keys() == set("abc")
""")


def test_without_ballast_a_transaction_on_a_full_disk_comes_to_nothing(on_small_disk) -> None:
    on_small_disk("""
state.ballast.let_go()
fill()
undone = []


def save():
    with state.transaction():
        state.on_rollback(lambda: undone.append(1))
        for index in range(100):
            state.save_node("box", str(index), node)


assert refused(save)
assert undone == [1]
assert state.nodes("box") == {}
""")


def test_the_log_of_a_full_disk_is_written_over(on_small_disk) -> None:
    on_small_disk("""
state.save_node("box", "path", node)
fill()
for index in range(1000):
    node.mode = index
    state.save_node("box", "path", node)
assert state.node("box", "path").mode == 999
""")


def test_a_database_of_a_full_disk_is_opened_with_the_ballast(tmp_path: Path) -> None:
    script = """
disk = Path(sys.argv[1])
with open_state(disk / "state.sqlite") as state:
    state.save_node("box", "path", node)
fill()
with open_state(disk / "state.sqlite") as state:
    state.forget_node("box", "path")
    assert state.nodes("box") == {}
"""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", PREPARED + script, directory], check=True
    )


def test_a_state_that_is_only_read_takes_no_ballast(tmp_path: Path) -> None:
    with open_state(tmp_path / "state.sqlite") as state:
        state.nodes("box")
    assert not (tmp_path / "ballast").exists()
