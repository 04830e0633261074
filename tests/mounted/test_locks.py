"""Locks between processes of one mount, and what statfs tells."""

import fcntl
import os
import re
import struct
import subprocess
import sys

import pytest

F_OFD_SETLK = 37  # linux/fcntl.h
WRITE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 10, 0)

TRY = {
    "flock": "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "flock-shared": "fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)",
    "fcntl": "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)",
    "fcntl-elsewhere": "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)",
    "ofd": f"fcntl.fcntl(fd, {F_OFD_SETLK}, {WRITE!r})",
}


@pytest.fixture
def another(box):
    """Whether another process gets a lock: `another("flock")`."""

    def another(kind):
        script = f"""
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    {TRY[kind]}
except (BlockingIOError, PermissionError):
    sys.exit(7)
"""
        code = subprocess.run([sys.executable, "-c", script, box / "file"]).returncode
        assert code in (0, 7)
        return code == 0

    return another


@pytest.fixture
def fd(box):
    (box / "file").write_bytes(b"x" * 200)
    fd = os.open(box / "file", os.O_RDWR)
    yield fd
    os.close(fd)


def test_flock_excludes_other_processes(fd, another):
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert not another("flock")
    assert not another("flock-shared")
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert not another("flock")
    assert another("flock-shared")
    fcntl.flock(fd, fcntl.LOCK_UN)
    assert another("flock")


def test_fcntl_locks_exclude_other_processes_from_a_range(fd, another, box):
    fcntl.lockf(fd, fcntl.LOCK_EX, 10)
    assert not another("fcntl")
    assert not another("ofd")
    assert another("fcntl-elsewhere")
    os.close(os.open(box / "file", os.O_RDONLY))  # POSIX: closing any descriptor drops them
    assert another("fcntl")


def test_ofd_locks_belong_to_the_open_file(fd, another, box):
    fcntl.fcntl(fd, F_OFD_SETLK, WRITE)
    assert not another("ofd")
    assert not another("fcntl")
    os.close(os.open(box / "file", os.O_RDONLY))
    assert not another("ofd")


def test_a_lock_ends_with_the_process_that_holds_it(fd, another, box):
    script = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); "
        "fcntl.flock(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, box / "file"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        assert not another("flock")
        assert not another("fcntl")
        holder.kill()
    assert another("flock")
    assert another("fcntl")


def test_a_locked_file_can_be_rewritten_and_stays_locked(fd, another, box, sent):
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, b"changed")
    os.fsync(fd)
    assert not another("flock")
    assert sent(box)["file"].startswith(b"changedxxx")


def test_waiting_for_a_lock_hands_it_over_in_turn(box, sent):
    script = """
import fcntl, os, sys
for _ in range(20):
    with open(sys.argv[1], "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        value = int(file.read() or 0)
        file.seek(0)
        file.write(f"{value + 1:010}")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
"""
    (box / ".counter.swp").write_bytes(b"")  # stays here: this is about locks
    writers = [
        subprocess.Popen([sys.executable, "-c", script, box / ".counter.swp"]) for _ in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert (box / ".counter.swp").read_bytes() == b"0000000060"


def test_statfs_is_plausible(box, run):
    (box / "file").write_bytes(bytes(1_000_000))
    status = os.statvfs(box)
    assert status.f_namemax == 255
    assert os.pathconf(box, "PC_NAME_MAX") == 255
    assert status.f_blocks >= status.f_bfree >= status.f_bavail > 0
    assert status.f_files >= status.f_ffree > 0
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    assert 1_000_000 - status.f_frsize < used < 1 << 40


def test_df_and_stat_are_readable(box, run):
    lines = run("df", "-h", box).splitlines()
    assert len(lines) == 2
    assert re.match(r"openai: +[\d.]+[KMGTP] +[\d.]+[KMGTP]? +[\d.]+[KMGTP] +\d+%", lines[1])
    assert "containerfs" in run("df", "-hT", box)
    assert "Type: fuse" in run("stat", "-f", box)
    assert "Namelen: 255" in run("stat", "-f", box)
    assert run("df", "-i", box)
