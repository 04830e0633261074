"""What was replaced here and could not be deleted from the server: named, and tried again."""

import json
import os

import pytest

REFUSED = {"kind": "status", "status": 403, "operation": "delete_file"}
NAMED = "1 replaced or removed object is still to be deleted from the server: box/dir/g\n"


@pytest.fixture
def replaced(mount, server):
    """A mount whose box/dir/g was overwritten, on a server that refuses to delete anything."""
    mounted = mount()
    mounted.expect("is deleted later")
    (mounted / "box" / "dir").mkdir(parents=True)
    (mounted / "box" / "other").mkdir()
    (mounted / "box" / "dir" / "g").write_bytes(b"old")
    server.set_faults(REFUSED)
    (mounted / "box" / "dir" / "g").write_bytes(b"new")
    return mounted


@pytest.fixture
def on_server(stored, api):
    """The contents of all the server's files."""

    def on_server():
        (box,) = api.containers.list()
        return sorted(stored(box.id).values())

    return on_server


@pytest.fixture
def queued(run, command):
    def queued(*words):
        return [json.loads(line) for line in run(command, "queue", *words).splitlines()]

    return queued


def test_queue_names_it_with_the_reason(replaced, queued, run, command, api):
    (entry,) = queued(replaced.path)
    assert (entry["state"], entry["path"], entry["size"]) == ("obsolete", "box/dir/g", None)
    assert "is still to be deleted from the server: " in entry["error"]
    assert "403" in entry["error"]
    (box,) = api.containers.list()
    kept = os.getxattr(replaced / "box" / "dir" / "g", "user.containerfs.id").decode()
    (old,) = {file.id for file in api.containers.files.list(box.id)} - {kept}
    assert old in entry["error"]
    shown = run(command, "queue", replaced.path, "--format", "table").splitlines()
    assert shown[-1].split()[0] == "obsolete"


@pytest.mark.parametrize("below", ["", "box", "box/dir", "box/dir/g"])
def test_sync_deletes_it_at_once(replaced, server, run, command, queued, on_server, below):
    server.set_faults()
    assert on_server() == [b"new", b"old"]
    run(command, "sync", replaced / below)
    assert on_server() == [b"new"]
    assert queued(replaced.path) == []


@pytest.mark.parametrize("below", ["", "box/dir", "box/dir/g"])
def test_sync_names_what_it_could_not_delete(replaced, run, command, below):
    done = run(command, "sync", replaced / below, check=False)
    assert (done.returncode, done.stderr) == (7, f"containerfs: {NAMED}")


def test_sync_of_another_directory_does_not_ask_for_it(replaced, server, run, command):
    before = len(server.requests("delete_file"))
    run(command, "sync", replaced / "box" / "other")
    assert len(server.requests("delete_file")) == before


def test_umount_tries_once_more_and_names_it(replaced, server, run, command, queued, on_server):
    before = len(server.requests("delete_file"))
    done = run(command, "umount", replaced.path, check=False)
    assert (done.returncode, done.stderr) == (7, f"containerfs: {NAMED}")
    assert len(server.requests("delete_file")) > before
    (entry,) = queued(replaced.path, "--cache-dir", replaced.cache)
    assert entry["path"] == "box/dir/g"
    assert on_server() == [b"new", b"old"]


def test_umount_deletes_it_where_that_is_possible(replaced, server, run, command, on_server):
    server.set_faults()
    run(command, "umount", replaced.path)
    assert on_server() == [b"new"]


def test_after_a_kill_sync_deletes_it_or_names_it(
    replaced, server, run, command, queued, on_server
):
    replaced.kill()
    words = [replaced.path, "--cache-dir", replaced.cache]
    (entry,) = queued(*words)
    assert entry["path"] == "box/dir/g"
    done = run(command, "sync", *words, "--uds", server.uds, check=False)
    assert done.returncode == 7
    assert done.stderr.endswith(NAMED)
    server.set_faults()
    run(command, "sync", *words, "--uds", server.uds)
    assert on_server() == [b"new"]
    assert queued(*words) == []


def test_after_a_kill_the_next_mount_deletes_it(replaced, server, eventually, on_server):
    replaced.kill()
    server.set_faults()
    replaced.remount()
    eventually(lambda: on_server() == [b"new"])
    assert (replaced / "box" / "dir" / "g").read_bytes() == b"new"


def test_recover_lets_the_server_keep_it_when_told_to(
    replaced, server, run, command, queued, on_server
):
    replaced.kill()
    words = [replaced.path, "--cache-dir", replaced.cache]
    done = run(command, "recover", *words, "--discard", check=False)
    assert "box/dir/g (its old object stays on the server)" in done.stderr
    assert len(queued(*words)) == 1
    done = run(command, "recover", *words, "--discard", "--yes", check=False)
    assert (done.returncode, done.stderr) == (0, "given up: 1 file\n")
    assert queued(*words) == []
    server.set_faults()
    replaced.remount()
    directory = replaced / "box" / "dir"
    assert (directory / "g").read_bytes() == b"new"
    (old,) = set(os.listdir(directory)) - {"g"}  # by the server's name, as other machines show it
    assert (directory / old).read_bytes() == b"old"
    assert on_server() == [b"new", b"old"]


def test_what_a_failed_rename_leaves_is_named_by_the_new_path(mount, server, queued, errno_of):
    mounted = mount()
    mounted.expect("is deleted later")
    (mounted / "box").mkdir()
    (mounted / "box" / "old").write_bytes(b"content")
    server.set_faults(REFUSED)
    assert errno_of(os.rename, mounted / "box" / "old", mounted / "box" / "new") == "EACCES"
    assert [entry["path"] for entry in queued(mounted.path)] == ["box/new"]


def test_a_file_that_was_renamed_is_named_by_its_old_path(mount, server, run, command, queued):
    mounted = mount()
    mounted.expect("is deleted later")
    (mounted / "box").mkdir()
    for name in ("a", "b"):
        (mounted / "box" / name).write_bytes(name.encode())
    server.set_faults(
        REFUSED | {"after": 1}
    )  # the old name's object goes before the rename is done
    os.rename(mounted / "box" / "a", mounted / "box" / "b")
    assert [entry["path"] for entry in queued(mounted.path)] == ["box/b"]
    server.set_faults()
    run(command, "sync", mounted.path)
    (mounted / "box" / "dir").mkdir()
    for name in ("a", "b"):
        (mounted / "box" / "dir" / name).write_bytes(name.encode())
    server.set_faults(REFUSED)
    os.rename(mounted / "box" / "dir", mounted / "box" / "new")
    assert {entry["path"] for entry in queued(mounted.path)} == {"box/dir/a", "box/dir/b"}
