"""Renaming, on a server that has no rename: what it costs, and what a failure half way leaves."""

import os
import shutil
import stat
import subprocess
import sys

import pytest

FAULTS = [
    pytest.param("create_file", id="upload"),
    pytest.param("delete_file", id="delete"),
    pytest.param("content", id="download"),
]


def tree(path):
    """Every name below *path*, with the content of files."""
    found = {}
    for directory, _, files in os.walk(path):
        relative = os.path.relpath(directory, path)
        found[relative] = None
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                found[f"{relative}/{name}"] = file.read()
    return found


MAKERS = [
    pytest.param(lambda path: os.symlink("target", path), id="link"),
    pytest.param(os.mkfifo, id="pipe"),
    pytest.param(lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), id="socket"),
]


@pytest.fixture
def other(shared_mount, box):
    """Another container."""
    other = shared_mount / f"{box.name}-other"
    other.mkdir()
    return other


def test_renaming_a_file_written_here_downloads_nothing(box, counted, sent):
    (box / "file").write_bytes(b"content" * 1000)
    counted(box)
    os.rename(box / "file", box / "renamed")
    requests = counted(box)
    assert (requests["create_file"], requests["delete_file"]) == (1, 1)
    assert "content" not in requests
    assert (box / "renamed").read_bytes() == b"content" * 1000
    assert "content" not in counted(box)
    assert sent(box) == {"renamed": b"content" * 1000}


@pytest.mark.parametrize("make", MAKERS)
def test_a_file_that_is_replaced_by_what_is_not_sent_leaves_the_server(mount, server, stored, make):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    for name in ("sent", "open", "unsent"):
        (box / name).write_bytes(name.encode())
        make(box / f"{name}.new")
    with (box / "open").open("rb") as opened, (box / "unsent").open("ab") as changed:
        changed.write(b"more")
        changed.flush()
        for name in ("sent", "open", "unsent"):
            os.rename(box / f"{name}.new", box / name)
        assert opened.read() == b"open"
    assert stored(os.getxattr(box, "user.containerfs.id").decode()) == {}
    mounted.remount()
    assert sorted(os.listdir(box)) == ["open", "sent", "unsent"]
    assert not any(stat.S_ISREG(path.lstat().st_mode) for path in box.iterdir())


def test_a_server_that_says_nothing_to_a_deletion_is_asked_once(mount, server, stored):
    server.set_behaviours(empty_deletes=True)
    box = mount() / "box"
    box.mkdir()
    for name in ("old", "rewritten", "removed"):
        (box / name).write_bytes(name.encode())
    os.rename(box / "old", box / "new")
    (box / "rewritten").write_bytes(b"again")
    os.remove(box / "removed")
    assert len(server.requests("delete_file")) == 3
    id = os.getxattr(box, "user.containerfs.id").decode()
    assert stored(id) == {"new": b"old", "rewritten": b"again"}
    shutil.rmtree(box)
    assert len(server.requests("delete_container")) == 1


def test_renaming_a_file_that_is_not_cached_downloads_it_once(mount, server, stored):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content" * 100_000)
    box = mount() / "box"
    os.rename(box / "file", box / "renamed")
    assert len(server.requests("content")) == 1
    assert len(server.requests("create_file")) == len(server.requests("delete_file")) == 1
    assert (box / "renamed").read_bytes() == b"content" * 100_000
    assert len(server.requests("content")) == 1
    assert stored(id) == {"renamed": b"content" * 100_000}


def test_a_file_is_renamed_between_containers(box, other, sent):
    (box / "file").write_bytes(b"content")
    (box / "dir" / "sub").mkdir(parents=True)
    (box / "dir" / "sub" / "below").write_bytes(b"below")
    os.setxattr(box / "file", "user.a", b"b")
    os.chmod(box / "file", 0o640)
    before = os.stat(box / "file")
    os.rename(box / "file", other / "moved")
    os.rename(box / "dir", other / "dir")
    after = os.stat(other / "moved")
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
        before.st_ino,
        before.st_mtime_ns,
        stat.S_IFREG | 0o640,
    )
    assert os.getxattr(other / "moved", "user.a") == b"b"
    assert tree(box) == {".": None}
    assert sent(box) == {}
    assert sent(other) == {"moved": b"content", "dir/sub/below": b"below"}


@pytest.mark.parametrize("name", ["file", "file~", ".file.swp"])
@pytest.mark.parametrize("change", [b"", b"changed"])
@pytest.mark.parametrize("below", ["", "dir"])
def test_an_open_file_is_renamed_between_containers(
    box, other, sent, eventually, name, change, below
):
    """To a real name or a scratch one, alone or below a directory, and written to afterwards."""
    (box / "dir").mkdir()
    source = box / below / "file"
    source.write_bytes(b"content")
    target = other / "moved" / name if below else other / name
    with source.open("r+b", buffering=0) as file:
        if below:
            os.rename(source, source.with_name(name))
            os.rename(box / "dir", other / "moved")
        else:
            os.rename(source, target)
        file.write(change)
        assert os.pread(file.fileno(), 100, 0) == (change or b"content")
    assert target.read_bytes() == (change or b"content")
    eventually(lambda: sent(box) == {})
    if name == "file":
        eventually(lambda: list(sent(other).values()) == [change or b"content"])
    os.unlink(target)
    eventually(lambda: sent(box) == sent(other) == {})


def test_a_file_with_unsent_changes_moves_to_another_container_by_a_copy(
    box, other, sent, errno_of, run
):
    """Its old object must stay where it is until the new content is sent."""
    with (box / "file").open("wb", buffering=0) as file:
        file.write(b"content")
        os.fsync(file.fileno())
        file.write(b" changed")
        assert errno_of(os.rename, box / "file", other / "file") == "EXDEV"
        assert (box / "file").read_bytes() == b"content changed"
        run("mv", box / "file", other / "file")
    assert sent(box) == {}
    assert sent(other) == {"file": b"content changed"}


@pytest.mark.parametrize("count", [25])
def test_a_directory_rename_sends_at_most_each_file_once(box, counted, sent, count):
    (box / "dir" / "sub").mkdir(parents=True)
    for number in range(count):
        (box / "dir" / ("sub" if number % 2 else ".") / f"{number}").write_bytes(b"%d" % number)
    before = tree(box / "dir")
    counted(box)
    os.rename(box / "dir", box / "renamed")
    requests = counted(box)
    assert requests["create_file"] == requests["delete_file"] == count
    assert "content" not in requests
    assert tree(box / "renamed") == before
    assert not (box / "dir").exists()
    assert set(sent(box)) == {
        f"renamed/{'sub/' if number % 2 else ''}{number}" for number in range(count)
    }


def test_the_files_of_a_directory_are_sent_side_by_side(mount, server):
    mounted = mount()
    box = mounted / "box"
    (box / "dir").mkdir(parents=True)
    for number in range(12):
        (box / "dir" / f"{number}").write_bytes(b"x")
    # One after the other, twelve of them would take longer than an operation may.
    server.set_faults({"kind": "latency", "seconds": 1, "operation": "create_file"})
    mounted.remount(op_timeout=10)
    os.rename(box / "dir", box / "renamed")
    assert len(os.listdir(box / "renamed")) == 12


def test_a_directory_over_the_limit_is_copied_by_mv(mount, run, errno_of, stored):
    mounted = mount(rename_limit=3)
    box = mounted / "box"
    (box / "dir").mkdir(parents=True)
    for number in range(4):
        (box / "dir" / f"{number}").write_bytes(b"%d" % number)
    assert errno_of(os.rename, box / "dir", box / "renamed") == "EXDEV"
    run("mv", box / "dir", box / "renamed")
    id = os.getxattr(box, "user.containerfs.id").decode()
    assert stored(id) == {f"renamed/{number}": b"%d" % number for number in range(4)}


@pytest.mark.parametrize("operation", FAULTS)
def test_a_rename_that_fails_leaves_source_and_target_as_they_were(
    mount, server, stored, errno_of, operation
):
    id = server.new_container("box")
    server.write(id, "/mnt/data/source", b"source content")
    server.write(id, "/mnt/data/taken", b"target content")
    before = {"source": b"source content", "taken": b"target content"}
    mounted = mount()
    box = mounted / "box"
    for target in ("free", "taken"):
        os.listdir(box)
        server.set_faults({"operation": operation, "kind": "status", "status": 403, "count": 1})
        assert errno_of(os.rename, box / "source", box / target) == "EACCES"
        assert stored(id) == before
        assert sorted(os.listdir(box)) == sorted(before)
    assert tree(box) == {".": None} | {f"./{name}": before[name] for name in before}
    mounted.remount()
    assert tree(box) == {".": None} | {f"./{name}": before[name] for name in before}
    os.rename(box / "source", box / "taken")
    assert stored(id) == {"taken": b"source content"}


def test_what_a_failed_rename_sent_is_taken_back_as_soon_as_that_is_possible(
    mount, server, stored, errno_of, eventually
):
    id = server.new_container("box")
    server.write(id, "/mnt/data/source", b"content")
    mounted = mount()
    box = mounted / "box"
    mounted.expect("deleted later")
    server.set_faults({"operation": "delete_file", "kind": "status", "status": 403})
    assert errno_of(os.rename, box / "source", box / "new") == "EACCES"
    assert tree(box) == {".": None, "./source": b"content"}
    server.set_faults()
    mounted.remount()
    eventually(lambda: stored(id) == {"source": b"content"})
    assert tree(box) == {".": None, "./source": b"content"}


@pytest.mark.parametrize("operation", ["create_file", "content"])
def test_a_directory_rename_that_fails_leaves_everything_as_it_was(
    mount, server, stored, errno_of, operation
):
    id = server.new_container("box")
    for number in range(6):
        server.write(id, f"/mnt/data/dir/{number}", b"%d" % number)
    mounted = mount()
    box = mounted / "box"
    before = stored(id)
    server.set_faults(
        {"operation": operation, "kind": "status", "status": 403, "after": 3, "count": 1}
    )
    assert errno_of(os.rename, box / "dir", box / "renamed") == "EACCES"
    assert stored(id) == before
    assert os.listdir(box) == ["dir"]
    assert sorted(os.listdir(box / "dir")) == [str(number) for number in range(6)]
    assert tree(box / "dir") == {
        ".": None,
        **{f"./{number}": b"%d" % number for number in range(6)},
    }
    os.rename(box / "dir", box / "renamed")
    assert stored(id) == {f"renamed/{number}": b"%d" % number for number in range(6)}


def test_a_rename_is_atomic_for_who_looks(box):
    """A reader finds the old or the new content at any moment, never none."""
    (box / "file").write_bytes(b"0" * 1000)
    script = (
        "import sys\n"
        "seen = set()\n"
        "print(flush=True)\n"
        "while True:\n"
        "    data = open(sys.argv[1], 'rb').read()\n"
        "    assert len(data) == 1000 and len(set(data)) == 1, data\n"
        "    seen.add(data[:1])\n"
        "    if data[:1] == b'9':\n"
        "        break\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, box / "file"], stdout=subprocess.PIPE, text=True
    ) as reader:
        reader.stdout.readline()
        for number in range(1, 10):
            (box / "new").write_bytes(b"%d" % number * 1000)
            os.rename(box / "new", box / "file")
        assert reader.wait(60) == 0


@pytest.mark.parametrize("name", [".by-id", "con", "..."])
def test_names_that_mean_something_elsewhere_are_plain_in_a_container(box, sent, name):
    (box / name).write_bytes(b"x")
    os.rename(box / name, box / "renamed")
    os.rename(box / "renamed", box / name)
    assert sent(box) == {name: b"x"}


def test_a_chain_of_renames_ends_where_it_should(box, sent):
    (box / "a").write_bytes(b"a")
    (box / "b").write_bytes(b"b")
    for old, new in (("a", "t"), ("b", "a"), ("t", "b"), ("a", "c"), ("c", "a"), ("b", "dir/b")):
        (box / "dir").mkdir(exist_ok=True)
        os.rename(box / old, box / new)
    assert tree(box) == {".": None, "./a": b"b", "dir": None, "dir/b": b"a"}
    assert sent(box) == {"a": b"b", "dir/b": b"a"}
