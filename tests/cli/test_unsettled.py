"""A rename of which the server has not told what arrived: named, and asked about again."""

import json
import os

import pytest

LOST = {"kind": "reset-after", "operation": "create_file", "count": 1}
BLIND = {"kind": "status", "status": 403, "operation": "list_files"}
NAMED = "what arrived of a rename is not known yet: box/new\n"


@pytest.fixture
def renamed(mount, server, errno_of):
    """A mount whose box/old could not be renamed to box/new, while nobody tells what arrived."""
    mounted = mount(ttl=3600)
    mounted.expect("has arrived is not known", "taken back", "is not over", "not recorded")
    (mounted / "box").mkdir()
    (mounted / "box" / "old").write_bytes(b"content")
    os.listdir(mounted / "box")
    server.set_faults(LOST, BLIND)
    assert errno_of(os.rename, mounted / "box" / "old", mounted / "box" / "new") == "EIO"
    return mounted


@pytest.fixture
def queued(run, command):
    def queued(*words):
        return [json.loads(line) for line in run(command, "queue", *words).splitlines()]

    return queued


def test_queue_names_it(renamed, queued):
    (entry,) = queued(renamed.path)
    assert (entry["state"], entry["path"]) == ("renaming", "box/new")
    assert entry["error"] == "what arrived of its rename from box/old is not known yet"


def test_sync_asks_for_it_at_once_and_names_it_while_nobody_tells(
    renamed, server, run, command, queued
):
    for path in (renamed.path, renamed / "box"):
        done = run(command, "sync", path, check=False)
        assert (done.returncode, done.stderr) == (7, f"containerfs: {NAMED}")
    server.set_faults()
    run(command, "sync", renamed / "box")
    assert queued(renamed.path) == []


def test_umount_names_it_and_the_next_mount_ends_it(
    renamed, server, run, command, queued, eventually
):
    done = run(command, "umount", renamed.path, check=False)
    assert (done.returncode, done.stderr) == (7, f"containerfs: {NAMED}")
    server.set_faults()
    renamed.remount()
    eventually(lambda: queued(renamed.path) == [])
    assert os.listdir(renamed / "box") == ["old"]


def test_recover_lets_stay_what_arrived_when_told_to(renamed, server, run, command, queued):
    renamed.kill()
    words = [renamed.path, "--cache-dir", renamed.cache]
    done = run(command, "recover", *words, "--discard", check=False)
    assert "box/new (what arrived of its rename stays on the server)" in done.stderr
    done = run(command, "recover", *words, "--discard", "--yes", check=False)
    assert (done.returncode, done.stderr) == (0, "given up: 1 file\n")
    assert queued(*words) == []
    server.set_faults()
    renamed.remount()
    assert sorted(os.listdir(renamed / "box")) == ["new", "old"]
