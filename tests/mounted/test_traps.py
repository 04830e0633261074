"""What mounts of remote storage are known to get wrong, each seen on a real one."""

import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
from contextlib import closing

import pytest

from containerfs.cache.content import ContentStore


def test_times_do_not_move_when_a_file_is_sent(box, shared_mount, eventually, sent):
    path = box / "file"
    with path.open("wb") as file:
        file.write(b"content")
        file.flush()
        before = os.fstat(file.fileno())
    after = os.stat(path)
    assert sent(box) == {"file": b"content"}
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    os.utime(path, ns=(1, 1_234_567_890_000_000_001))
    with path.open("ab") as file:
        file.write(b"!")
        file.flush()
        os.utime(path, ns=(1, 1_234_567_890_000_000_002))
    assert os.stat(path).st_mtime_ns == 1_234_567_890_000_000_002


def test_tar_does_not_see_a_file_change_as_it_reads_it(box, run, tmp_path):
    run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i > $i; done", cwd=box)
    run("tar", "-cf", tmp_path / "one.tar", "-C", box, ".")  # a warning would be exit code 1
    (box / "sub").mkdir()
    run("tar", "-cf", box / "sub" / "two.tar", "--exclude=./sub", "-C", box, ".")
    with tarfile.open(box / "sub" / "two.tar") as archive:
        assert len(archive.getnames()) == 9
    assert run("tar", "-df", tmp_path / "one.tar", "-C", box) == ""


@pytest.mark.parametrize("name", ["user.absent", "security.capability", "system.posix_acl_access"])
def test_an_attribute_that_is_not_there_is_enodata_not_eio(box, errno_of, name):
    (box / "file").write_bytes(b"x")
    for path in (box, box / "file", box.parent):
        assert errno_of(os.getxattr, path, name) in ("ENODATA", "ENOTSUP")


def test_cp_and_install_keep_what_they_are_told_to(box, run, tmp_path):
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\n")
    run("install", "-m", "755", tmp_path / "tool", box / "tool")
    run("cp", "-a", box / "tool", box / "copy")
    assert os.stat(box / "copy").st_mode & 0o777 == 0o755
    assert os.stat(box / "copy").st_mtime_ns == os.stat(box / "tool").st_mtime_ns


def test_a_renamed_directory_keeps_the_files_below_it_that_are_open(box, fd, sent):
    (box / "dir" / "sub").mkdir(parents=True)
    (box / "dir" / "sent").write_bytes(b"sent before")
    new = fd(box / "dir" / "sub" / "new", os.O_RDWR | os.O_CREAT)
    os.write(new, b"unsent")
    reader = fd(box / "dir" / "sent", os.O_RDONLY)
    writer = fd(box / "dir" / "sent", os.O_RDWR)
    os.pwrite(writer, b"SENT", 0)
    os.rename(box / "dir", box / "moved")
    assert os.pread(reader, 20, 0) == b"SENT before"
    assert os.pread(new, 20, 0) == b"unsent"
    assert (box / "moved" / "sub" / "new").read_bytes() == b"unsent"
    os.write(new, b" and more")
    os.pwrite(writer, b"!", 11)
    os.fsync(new)
    os.fsync(writer)
    assert (box / "moved" / "sent").read_bytes() == b"SENT before!"
    assert sent(box) == {"moved/sub/new": b"unsent and more", "moved/sent": b"SENT before!"}


def test_a_renamed_directory_keeps_unsent_files_while_the_server_is_down(
    mount, server, stored, sync
):
    mounted = mount()
    box = mounted / "box"
    (box / "dir").mkdir(parents=True)
    id = os.getxattr(box, "user.containerfs.id").decode()
    mounted.expect("not on the server", "could be sent", "kept here", "stale listing")
    server.set_faults({"operation": "create_file", "kind": "status", "status": 403})
    with pytest.raises(PermissionError):
        (box / "dir" / "unsent").write_bytes(b"unsent")
    os.rename(box / "dir", box / "moved")
    assert (box / "moved" / "unsent").read_bytes() == b"unsent"
    mounted.remount()
    assert os.listdir(box) == ["moved"]
    assert (box / "moved" / "unsent").read_bytes() == b"unsent"
    server.set_faults()
    sync(box)
    assert stored(id) == {"moved/unsent": b"unsent"}


def test_names_that_change_hands_never_show_another_files_content(box, fd):
    names = [box / name for name in "abc"]
    opened = {}
    for number, path in enumerate(names):
        path.write_bytes(b"%d" % number * 1000)
        opened[number] = fd(path, os.O_RDONLY)
    os.rename(names[0], names[1])
    os.unlink(names[2])
    names[2].write_bytes(b"9" * 500)
    os.rename(names[2], names[0])
    os.unlink(names[1])
    (box / "b").write_bytes(b"8" * 1000)
    for number, each in opened.items():
        assert os.pread(each, 2000, 0) == b"%d" % number * 1000
    assert names[0].read_bytes() == b"9" * 500
    assert names[1].read_bytes() == b"8" * 1000


def test_the_inode_number_stays_while_a_file_is_open_written_and_renamed(box, fd, sent):
    (box / "dir").mkdir()
    opened = fd(box / "file", os.O_RDWR | os.O_CREAT)
    inode = os.fstat(opened).st_ino
    os.write(opened, b"x")
    os.fsync(opened)
    assert os.fstat(opened).st_ino == inode == os.stat(box / "file").st_ino
    os.rename(box / "file", box / "dir" / "renamed")
    os.write(opened, b"y")
    os.fsync(opened)
    assert os.fstat(opened).st_ino == inode == os.stat(box / "dir" / "renamed").st_ino
    os.rename(box / "dir", box / "moved")
    assert os.fstat(opened).st_ino == inode == os.stat(box / "moved" / "renamed").st_ino
    os.unlink(box / "moved" / "renamed")
    assert os.fstat(opened).st_ino == inode
    assert os.fstat(opened).st_nlink == 0
    inodes = {entry.inode() for entry in os.scandir(box)}
    assert inodes == {os.stat(box / "moved").st_ino}


def test_the_inode_number_stays_while_others_change_the_listing(mount, server, fd):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"first")
    box = mount(ttl=0) / "box"
    opened = fd(box / "file", os.O_RDONLY)
    inode = os.fstat(opened).st_ino
    assert os.pread(opened, 10, 0) == b"first"
    for number in range(3):
        server.write(id, f"/mnt/data/{number}", b"x")
        os.listdir(box)
        assert os.fstat(opened).st_ino == os.stat(box / "file").st_ino == inode
    (file,) = [file for file in server.files(id) if file["path"] == "/mnt/data/file"]
    server.call("DELETE", f"/v1/containers/{id}/files/{file['id']}")
    os.listdir(box)
    assert os.fstat(opened).st_ino == inode
    assert os.pread(opened, 10, 0) == b"first"


def test_another_process_sees_the_size_before_the_file_is_closed(box, fd, run):
    opened = fd(box / "file", os.O_WRONLY | os.O_CREAT)
    for total in (100, 5000, 70_000):
        os.pwrite(opened, b"x", total - 1)
        assert run("stat", "-c", "%s", box / "file").strip() == str(total)
        assert run("sh", "-c", 'wc -c < "$1"', "-", box / "file").strip() == str(total)
    os.ftruncate(opened, 10)
    assert run("stat", "-c", "%s", box / "file").strip() == "10"


def test_a_failed_upload_is_an_error_of_the_tool(mount, server, run, tmp_path, sync):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    mounted.expect("not on the server", "could be sent", "kept here")
    (tmp_path / "source").write_bytes(b"content" * 1000)
    run("tar", "-cf", tmp_path / "source.tar", "-C", tmp_path, "source")
    server.set_faults({"operation": "create_file", "kind": "status", "status": 403})
    tools = (
        ("cp", tmp_path / "source", box / "cp"),
        ("dd", f"if={tmp_path}/source", f"of={box}/dd", "conv=fsync"),
        ("tar", "-xf", tmp_path / "source.tar", "-C", box),
        ("tar", "-cf", box / "new.tar", "-C", tmp_path, "source"),
        ("rsync", "-a", tmp_path / "source", box / "rsync"),
        ("mv", tmp_path / "source.tar", box / "mv"),
        ("sh", "-c", f"/bin/echo content > {box}/echo && sync -d {box}/echo"),
        ("sed", "-i", "s/x/y/", box / "cp"),
        (sys.executable, "-m", "zipfile", "-c", box / "zip", tmp_path / "source"),
    )
    if "uutils" not in run("install", "--version"):  # those do not look at what close says
        tools += (
            ("dd", f"if={tmp_path}/source", f"of={box}/dd2"),
            ("install", tmp_path / "source", box / "install"),
        )
    for words in tools:
        done = run(*words, check=False)
        assert done.returncode, words
    server.set_faults()
    sync(box)


def test_an_error_that_nobody_expected_is_eio_and_the_mount_lives_on(mount, server, errno_of):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / "file").write_bytes(b"content")
    mounted.expect(" failed", "brought to its end", "could not be taken back")
    (state,) = mounted.cache.rglob("state.sqlite")
    with closing(sqlite3.connect(state)) as database:
        database.execute("ALTER TABLE nodes RENAME TO hidden")
    for call, *args in (
        (os.chmod, box / "file", 0o600),
        (os.mkdir, box / "dir"),
        (os.symlink, "file", box / "link"),
        (os.setxattr, box / "file", "user.a", b"b"),
        (os.rename, box / "file", box / "renamed"),
        (os.open, box / "new", os.O_CREAT | os.O_WRONLY),
    ):
        assert errno_of(call, *args) == "EIO", call
    assert (box / "file").read_bytes() == b"content"
    with closing(sqlite3.connect(state)) as database:
        database.execute("ALTER TABLE hidden RENAME TO nodes")
    (box / "file").write_bytes(b"changed")
    os.rename(box / "file", box / "renamed")
    os.mkdir(box / "another")
    assert (box / "renamed").read_bytes() == b"changed"
    mounted.remount()
    assert (box / "renamed").read_bytes() == b"changed"
    assert set(os.listdir(box)) >= {"renamed", "another"}


def test_a_spool_that_vanished_is_eio_and_the_mount_lives_on(mount, server, errno_of):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / ".lost.swp").write_bytes(b"lost")
    (spool,) = mounted.cache.rglob("spool")
    for path in spool.iterdir():
        path.unlink()
    assert errno_of((box / ".lost.swp").read_bytes) in ("EIO", None)  # the kernel may have it
    assert errno_of(os.open, box / ".lost.swp", os.O_WRONLY | os.O_TRUNC) in ("EIO", None)
    (box / "file").write_bytes(b"content")
    assert (box / "file").read_bytes() == b"content"
    os.unlink(box / ".lost.swp")


def test_cached_content_that_vanished_is_fetched_again(mount, server):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content" * 1000)
    mounted = mount()
    file = mounted / "box" / "file"
    assert file.read_bytes() == b"content" * 1000
    (content,) = mounted.cache.rglob("content")
    mounted.stop()
    for path in content.iterdir():
        path.write_bytes(b"cut")
    mounted.remount()
    mounted.expect("wrong size", "is lost")
    assert file.read_bytes() == b"content" * 1000
    mounted.stop()
    for path in content.iterdir():
        path.unlink()
    mounted.remount()
    assert file.read_bytes() == b"content" * 1000


def test_a_cache_on_a_file_system_without_holes_has_a_file_for_each_content(box):
    # The mount itself is one: it has no fallocate.
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        store = ContentStore(directory=box / "cache", connection=connection, limit=1 << 20)
        for name in ("first", "second"):
            content = store.begin(name, size=7)
            store.write(content, b"content", 0)
            store.commit(content, size=7)
            assert content.read(0, 100) == b"content"
            store.unpin(content)
    assert sorted(os.listdir(box / "cache")) == ["first", "second"]


def test_many_threads_on_one_tree_end_in_what_they_did(box, sent):
    """Creation, writing, renaming and removal side by side, each thread on its own names."""

    def work(number):
        directory = box / f"{number}"
        directory.mkdir()
        for turn in range(6):
            path = directory / f"{turn}"
            path.write_bytes(b"%d" % turn)
            with path.open("ab") as file:
                file.write(b"%d" % number)
            if turn % 3 == 1:
                os.rename(path, directory / f"r{turn}")
            if turn % 3 == 2:
                os.unlink(path)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {}
    for number in range(5):
        for turn in range(6):
            if turn % 3 != 2:
                name = f"r{turn}" if turn % 3 == 1 else f"{turn}"
                expected[f"{number}/{name}"] = b"%d%d" % (turn, number)
    assert sent(box) == expected
    assert {
        os.path.relpath(os.path.join(directory, name), box)
        for directory, _, files in os.walk(box)
        for name in files
    } == set(expected)


def test_a_program_run_from_the_mount_runs(box, run):
    (box / "script").write_bytes(b"#!/bin/sh\necho ran $1\n")
    (box / "script").chmod(0o755)
    assert run(box / "script", "well") == "ran well\n"
    run("cp", "/bin/true", box / "binary")
    assert subprocess.run([box / "binary"]).returncode == 0
