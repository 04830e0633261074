"""What the README promises of writing."""

import fcntl
import json
import mmap
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest


def xattr(path, name):
    return os.getxattr(path, f"user.containerfs.{name}").decode()


def operations(server):
    return [entry["operation"] for entry in server.requests()]


@pytest.fixture
def box(mount):
    """A container of a mount with the default options."""
    mounted = mount()
    (mounted / "box").mkdir()
    return mounted / "box"


@pytest.fixture
def contents(stored):
    """What the server has of a container of the mount, by path."""
    return lambda box: stored(xattr(box, "id"))


def test_close_returns_when_the_server_has_the_file(server, mount, contents, errno_of, run, sync):
    mounted = mount()
    mounted.expect("'refused' is not on the server")
    box = mounted / "box"
    box.mkdir()
    (box / "closed").write_bytes(b"closed")
    assert contents(box) == {"closed": b"closed"}
    with (box / "synced").open("wb", buffering=0) as writer:
        writer.write(b"first")
        os.fsync(writer.fileno())
        assert contents(box)["synced"] == b"first"
        writer.write(b" second")
        os.fdatasync(writer.fileno())
        assert contents(box)["synced"] == b"first second"

    (box / "below" / "it").mkdir(parents=True)
    with (
        (box / "here").open("wb", buffering=0) as here,
        (box / "below" / "it" / "there").open("wb", buffering=0) as there,
        (box / "below" / "empty").open("wb", buffering=0),
    ):
        here.write(b"here")
        there.write(b"there")
        sync(box / "below")
        assert contents(box)["below/it/there"] == b"there"
        assert contents(box)["below/empty"] == b""
        assert "here" not in contents(box)
        sync(box)
        assert contents(box)["here"] == b"here"

    server.set_faults({"operation": "create_file", "kind": "status", "status": 403})
    refused = (box / "refused").open("wb", buffering=0)
    refused.write(b"refused")
    assert errno_of(os.fsync, refused.fileno()) == "EACCES"
    refused.write(b" again")
    assert errno_of(refused.close) == "EACCES"
    assert errno_of(sync, box) == "EACCES"
    assert "refused" not in contents(box)
    server.set_faults()
    sync(box)
    assert contents(box)["refused"] == b"refused again"


def test_what_is_synced_at_the_top_level_is_everything(mount, contents, sync):
    mounted = mount()
    for name in ("one", "two"):
        (mounted / name).mkdir()
    with (
        (mounted / "one" / "file").open("wb", buffering=0) as first,
        (mounted / "two" / "file").open("wb", buffering=0) as second,
    ):
        first.write(b"1")
        second.write(b"2")
        sync(mounted.path)
        assert contents(mounted / "one") == {"file": b"1"}
        assert contents(mounted / "two") == {"file": b"2"}


def test_closing_without_having_written_sends_nothing(server, box, run, contents, sync):
    file = box / "file"
    file.write_bytes(b"content")
    server.forget_requests()
    for mode in ("rb", "ab", "r+b"):
        with file.open(mode):
            pass
    run("sh", "-c", "exec 3>>file 4>&3; exec 3>&-; exec 4>&-", cwd=box)
    run("touch", file)
    run("chmod", "600", file)
    sync(file)
    sync(box)
    assert set(operations(server)) <= {"list_containers", "list_files"}
    with file.open("ab", buffering=0) as writer:
        os.close(os.dup(writer.fileno()))  # as shells and dd do before they write
        assert "create_file" not in operations(server)
        writer.write(b", more")
    run("dd", "if=/dev/zero", f"of={box / 'zeros'}", "bs=10", "count=1")
    assert operations(server).count("create_file") == 2
    assert contents(box) == {"file": b"content, more", "zeros": bytes(10)}


def test_a_file_that_is_written_and_closed_through_one_open_file_is_all_there(
    server, box, run, contents, eventually
):
    run("sh", "-c", "(echo one; echo two; sh -c 'echo three') > file; cat file", cwd=box)
    run("sh", "-c", "exec 3> each; echo one >&3; sh -c 'echo two >&3'; exec 3>&-", cwd=box)
    assert run("cat", box / "file", box / "each") == "one\ntwo\nthree\none\ntwo\n"
    eventually(lambda: contents(box) == {"file": b"one\ntwo\nthree\n", "each": b"one\ntwo\n"})


def test_overwriting_never_leaves_the_server_with_neither(
    server, mount, contents, errno_of, eventually
):
    mounted = mount()
    mounted.expect("'file' is not on the server")
    box, file = mounted / "box", mounted / "box" / "file"
    box.mkdir()
    file.write_bytes(b"old")
    old = xattr(file, "id")
    server.forget_requests()
    file.write_bytes(b"new content")
    log = [
        (entry["operation"], entry["status"])
        for entry in server.requests()
        if "list" not in entry["operation"]
    ]
    assert log == [("create_file", 200), ("delete_file", 200)]
    assert contents(box) == {"file": b"new content"}
    kept = xattr(file, "id")
    assert kept != old

    short = {"object": "container.file", "id": "cfile_x", "path": "/mnt/data/file", "bytes": 1}
    short |= {"container_id": xattr(box, "id"), "created_at": 0, "source": "user"}
    server.set_faults(
        {"operation": "create_file", "kind": "answer", "status": 200, "body": json.dumps(short)}
    )
    writer = file.open("wb", buffering=0)
    writer.write(b"newest")
    assert errno_of(writer.close) == "EIO"
    assert contents(box) == {"file": b"new content"}
    assert [each["id"] for each in server.files(xattr(box, "id"))] == [kept]
    assert file.read_bytes() == b"newest"
    server.set_faults({"operation": "create_file", "kind": "status", "status": 403})
    writer = file.open("wb", buffering=0)
    writer.write(b"the newest of all")
    assert errno_of(writer.close) == "EACCES"
    assert contents(box) == {"file": b"new content"}
    server.set_faults()
    file.write_bytes(b"at last")
    assert contents(box) == {"file": b"at last"}

    server.set_faults({"operation": "delete_file", "kind": "status", "status": 500})
    server.forget_requests()
    file.write_bytes(b"and once more")
    assert operations(server).count("delete_file") == 2  # not for as long as a request may take
    assert len(server.files(xattr(box, "id"))) == 2
    server.set_faults()
    eventually(lambda: contents(box) == {"file": b"and once more"})


def test_a_new_empty_file_is_sent_after_a_moment(server, box, contents, eventually):
    (box / "filled").touch()
    (box / "empty").touch()
    assert sorted(os.listdir(box)) == ["empty", "filled"]
    (box / "filled").write_bytes(b"content")
    assert contents(box) == {"filled": b"content"}
    eventually(lambda: contents(box) == {"filled": b"content", "empty": b""})
    (box / "truncated").write_bytes(b"content")
    os.truncate(box / "truncated", 0)
    (box / "later").touch()
    eventually(
        lambda: (
            contents(box) == {"filled": b"content", "empty": b"", "truncated": b"", "later": b""}
        )
    )
    assert operations(server).count("create_file") == 5  # no empty one for what was filled


def test_where_empty_files_are_refused_they_stay_here(server, mount, contents, eventually):
    server.set_behaviours(refuse_empty=True)
    mounted = mount()
    mounted.expect("'empty' is not on the server", "'empty' is kept here", "not everything")
    box = mounted / "box"
    box.mkdir()
    (box / "empty").touch()
    eventually(lambda: "user.containerfs.error" in os.listxattr(box / "empty"))
    assert contents(box) == {}
    mounted.remount()
    assert os.listdir(box) == ["empty"]
    assert (box / "empty").read_bytes() == b""
    (box / "empty").write_bytes(b"filled")
    assert contents(box) == {"empty": b"filled"}
    assert "user.containerfs.error" not in os.listxattr(box / "empty")


@pytest.mark.parametrize("status", [403, 503])
def test_what_could_not_be_sent_is_kept(server, mount, contents, errno_of, eventually, status):
    mounted = mount(timeout=1)
    mounted.expect("not on the server", "is kept here", "not everything could be sent")
    box = mounted / "box"
    box.mkdir()
    (box / "old").write_bytes(b"old content")
    server.set_faults({"operation": "create_file", "kind": "status", "status": status})
    told = {403: "EACCES", 503: "EIO"}[status]

    def write(name, data):
        writer = (box / name).open("wb", buffering=0)
        writer.write(data)
        assert errno_of(writer.close) == told

    def check():
        assert sorted(os.listdir(box)) == ["new", "old"]
        assert (box / "new").read_bytes() == b"new"
        assert (box / "old").read_bytes() == b"overwritten"
        for name in ("new", "old"):
            request_id = xattr(box / name, "error").partition("req_")[2].partition(")")[0]
            assert f"req_{request_id}" in {
                entry["request_id"] for entry in server.requests("create_file")
            }
            assert str(status) in xattr(box / name, "error")

    write("new", b"new")
    write("old", b"overwritten")
    check()
    mounted.remount()
    check()
    assert contents(box) == {"old": b"old content"}
    server.set_faults()
    mounted.remount()
    eventually(lambda: contents(box) == {"old": b"overwritten", "new": b"new"})
    eventually(lambda: "user.containerfs.error" not in os.listxattr(box / "new"))


def test_what_could_not_be_sent_is_sent_again_in_the_background(
    server, mount, contents, errno_of, eventually
):
    mounted = mount()
    mounted.expect("not on the server")
    (mounted / "box").mkdir()
    server.set_faults({"operation": "create_file", "kind": "status", "status": 503})
    writer = (mounted / "box" / "file").open("wb", buffering=0)
    writer.write(b"content")
    assert errno_of(writer.close) == "EIO"
    server.set_faults()
    eventually(lambda: contents(mounted / "box") == {"file": b"content"})
    eventually(lambda: "user.containerfs.error" not in os.listxattr(mounted / "box" / "file"))


def test_a_refused_file_is_not_sent_over_and_over(server, mount, errno_of):
    server.set_behaviours(refuse_svg=True)
    mounted = mount()
    mounted.expect("'file' is kept here", "not everything could be sent")
    (mounted / "box").mkdir()
    writer = (mounted / "box" / "file").open("wb", buffering=0)
    writer.write(b"<svg/>")
    assert errno_of(writer.close) == "EINVAL"
    assert (mounted / "box" / "file").read_bytes() == b"<svg/>"
    mounted.stop()
    assert len(server.requests("create_file")) == 2  # at close, and when the mount ended


@pytest.mark.parametrize("kind", ["reset-after", "status"])
def test_an_upload_whose_answer_was_lost_is_not_there_twice(server, mount, contents, kind):
    mounted = mount(timeout=5)
    (mounted / "box").mkdir()
    server.set_faults(
        {"operation": "create_file", "kind": kind, "status": 502, "done": True, "count": 1}
    )
    (mounted / "box" / "file").write_bytes(b"content")
    assert contents(mounted / "box") == {"file": b"content"}
    assert len(server.requests("create_file")) == 1


SCRATCH = (".x.swp", ".x.swpx", "x~", "4913", ".#x", "#x#", ".goutputstream-X", "sedAb3dE6", "._x")


def test_temporary_files_of_editors_stay_here(server, mount, contents, eventually):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / "file").write_bytes(b"old")
    server.forget_requests()
    for name in SCRATCH:
        (box / name).write_bytes(name.encode())
        os.truncate(box / name, len(name))
    (box / "empty~").touch()
    (box / "x~").rename(box / "y~")
    os.remove(box / "4913")
    names = sorted({*SCRATCH, "y~", "empty~", "file"} - {"x~", "4913"})
    assert sorted(os.listdir(box)) == names
    mounted.remount()
    assert sorted(os.listdir(box)) == names
    assert (box / ".x.swp").read_bytes() == b".x.swp"
    assert set(operations(server)) == {"list_containers", "list_files"}
    (box / ".x.swp").rename(box / "recovered")
    (box / "sedAb3dE6").rename(box / "file")
    (box / "empty~").rename(box / "empty")
    sent = {"recovered": b".x.swp", "file": b"sedAb3dE6"}
    assert contents(box).items() >= sent.items()
    eventually(lambda: contents(box) == sent | {"empty": b""})
    assert (box / "file").read_bytes() == b"sedAb3dE6"


def test_renaming_works_for_files_and_directories(server, mount, contents, errno_of, run):
    mounted = mount(query="who=mount")
    one, two = mounted / "one", mounted / "two"
    (one / "dir" / "deep").mkdir(parents=True)
    two.mkdir()
    for name in ("file", "over", "dir/a", "dir/deep/b", "dir/deep/c"):
        (one / name).write_bytes(name.encode())
    os.mkdir(one / "dir" / "empty")

    os.rename(one / "file", one / "renamed")
    assert contents(one).keys() == {"renamed", "over", "dir/a", "dir/deep/b", "dir/deep/c"}
    os.rename(one / "renamed", one / "over")
    assert contents(one)["over"] == b"file"
    os.rename(one / "over", one / "dir" / "a")
    assert contents(one)["dir/a"] == b"file"
    os.rename(one / "dir", one / "moved")
    assert contents(one).keys() == {"moved/a", "moved/deep/b", "moved/deep/c"}
    assert sorted(os.listdir(one / "moved")) == ["a", "deep", "empty"]
    os.rename(one / "moved" / "a", two / "a")
    os.rename(one / "moved", two / "dir")
    assert contents(one) == {}
    everything = {"a": b"file", "dir/deep/b": b"dir/deep/b", "dir/deep/c": b"dir/deep/c"}
    assert contents(two) == everything
    assert os.listdir(one) == []
    assert sorted(os.listdir(two / "dir")) == ["deep", "empty"]
    assert errno_of(os.rename, two / "dir", two / "dir" / "deep" / "in") == "EINVAL"
    assert errno_of(os.rename, two / "a", two / "dir") == "EISDIR"
    assert errno_of(os.rename, two / "dir", two / "a") == "ENOTDIR"
    run("mv", "--no-clobber", two / "a", two / "dir" / "deep" / "b", check=False)  # 1 in some
    run("mv", "--exchange", two / "a", two / "dir" / "deep" / "b", check=False)
    queries = [entry["query"] for entry in server.requests("content")]
    assert not any("who=mount" in query for query in queries)  # all from local copies

    elsewhere = mount()
    before = contents(two)
    second_fails = {"operation": "create_file", "kind": "status", "status": 403, "after": 1}
    for each in (mounted, elsewhere):
        for target in (each / "two" / "other", each / "one" / "other"):
            server.set_faults(second_fails)
            assert errno_of(os.rename, each / "two" / "dir", target) == "EACCES"
            assert sorted(os.listdir(each / "two")) == ["a", "dir"]
            assert sorted(os.listdir(each / "two" / "dir" / "deep")) == ["b", "c"]
            assert os.listdir(each / "one") == []
            assert {name: (each / "two" / name).read_bytes() for name in before} == before
            assert (contents(each / "one"), contents(each / "two")) == ({}, before)
    server.set_faults({"operation": "delete_file", "kind": "status", "status": 403, "count": 1})
    assert errno_of(os.rename, two / "a", two / "b") == "EACCES"
    server.set_faults()
    assert sorted(os.listdir(two)) == ["a", "dir"]
    assert contents(two) == before


def test_a_directory_too_large_to_be_renamed_is_copied_by_mv(mount, contents, errno_of, run):
    mounted = mount(rename_limit=2)
    box = mounted / "box"
    (box / "dir").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (box / "dir" / name).write_bytes(name.encode())
    assert errno_of(os.rename, box / "dir", box / "moved") == "EXDEV"
    run("mv", box / "dir", box / "moved")
    assert os.listdir(box) == ["moved"]
    assert contents(box) == {"moved/a": b"a", "moved/b": b"b", "moved/c": b"c"}


def test_a_container_keeps_its_name(mount, api, errno_of):
    mounted = mount()
    for name in ("one", "two"):
        (mounted / name).mkdir()
    assert errno_of(os.rename, mounted / "one", mounted / "three") == "EPERM"
    assert errno_of(os.rename, mounted / "one", mounted / "two") == "EPERM"
    assert errno_of(os.rename, mounted / "one", mounted / "two" / "one") == "EPERM"
    assert sorted(os.listdir(mounted.path)) == ["one", "two"]
    assert {container.name for container in api.containers.list()} == {"one", "two"}


def test_append_random_writes_and_truncation_work(box, contents, errno_of):
    file = box / "file"
    file.write_bytes(b"0123456789")
    with file.open("ab", buffering=0) as writer:
        writer.seek(0)
        writer.write(b"abc")
    assert contents(box)["file"] == b"0123456789abc"
    fds = [os.open(file, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    os.write(fds[0], b"d")
    os.write(fds[1], b"e")
    for fd in fds:
        os.close(fd)
    assert contents(box)["file"] == b"0123456789abcde"
    with file.open("r+b", buffering=0) as writer:
        os.pwrite(writer.fileno(), b"XY", 3)
        os.pwrite(writer.fileno(), b"Z", 20)
        assert os.pread(writer.fileno(), 100, 0) == b"012XY56789abcde" + bytes(5) + b"Z"
    assert contents(box)["file"] == b"012XY56789abcde" + bytes(5) + b"Z"
    os.truncate(file, 4)
    assert (file.read_bytes(), contents(box)["file"]) == (b"012X", b"012X")
    os.truncate(file, 6)
    assert (file.read_bytes(), contents(box)["file"]) == (b"012X\0\0", b"012X\0\0")
    with file.open("r+b", buffering=0) as writer:
        os.ftruncate(writer.fileno(), 2)
        assert os.stat(file).st_size == 2
    assert contents(box)["file"] == b"01"

    file.write_bytes(bytes(8192))
    with file.open("r+b") as writer, mmap.mmap(writer.fileno(), 8192) as memory:
        memory[4000:4200] = b"m" * 200
        memory.flush()
    assert file.read_bytes() == bytes(4000) + b"m" * 200 + bytes(3992)
    assert contents(box)["file"] == file.read_bytes()

    assert errno_of(os.open, file, os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    os.close(os.open(box / "exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert errno_of(os.open, box / "exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    winners = []
    gate = threading.Barrier(8)

    def make():
        gate.wait()
        if errno_of(os.open, box / "won", os.O_CREAT | os.O_EXCL | os.O_WRONLY) is None:
            winners.append(1)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    os.remove(box / "won")
    os.remove(box / "exclusive")

    (box / "removed").write_bytes(b"still here")
    with (box / "removed").open("r+b", buffering=0) as both:
        os.remove(box / "removed")
        assert not (box / "removed").exists()
        assert both.read() == b"still here"
        both.write(b", and more")
        assert os.pread(both.fileno(), 100, 0) == b"still here, and more"
        assert os.fstat(both.fileno()).st_size == 20
        assert os.fstat(both.fileno()).st_nlink == 0
    assert contents(box).keys() == {"file"}


def test_what_was_removed_while_open_can_be_read_though_it_was_never_cached(server, mount):
    data = os.urandom(500_000)
    server.write(server.new_container("box"), "/mnt/data/file", data)
    mounted = mount()
    with (mounted / "box" / "file").open("rb") as reader:
        os.remove(mounted / "box" / "file")
        assert os.listdir(mounted / "box") == []
        assert reader.read() == data


def test_locks_hold_between_the_processes_of_a_mount(box, run):
    (box / "file").write_bytes(b"content")
    with (box / "file").open("r+b") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        assert run("flock", "--nonblock", box / "file", "true", check=False).returncode == 1
        fcntl.flock(locked, fcntl.LOCK_UN)
        run("flock", "--nonblock", box / "file", "true")


def test_modes_owners_times_attributes_links_and_empty_directories_are_kept_here(
    server, mount, errno_of
):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / "script").write_bytes(b"#!/bin/sh\n")
    server.forget_requests()
    os.chmod(box / "script", 0o640)
    group = 4321 if os.geteuid() == 0 else os.getgid()
    os.chown(box / "script", -1, group)
    os.utime(box / "script", ns=(1_000_000_001, 2_000_000_002))
    os.setxattr(box / "script", "user.colour", b"green\0")
    os.symlink("script", box / "link")
    os.symlink("/nowhere", box / "dangling")
    (box / "empty" / "below").mkdir(parents=True, mode=0o750)
    os.setxattr(box / "empty", "user.colour", b"blue")
    os.chmod(box / "empty", 0o700)
    os.utime(box / "empty", (3, 4))

    def check():
        status = os.stat(box / "script")
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert (status.st_uid, status.st_gid) == (os.getuid(), group)
        assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
        assert os.getxattr(box / "script", "user.colour") == b"green\0"
        assert os.readlink(box / "link") == "script"
        assert (box / "link").read_bytes() == b"#!/bin/sh\n"
        assert os.readlink(box / "dangling") == "/nowhere"
        assert not (box / "dangling").exists()
        assert os.listdir(box / "empty") == ["below"]
        assert stat.S_IMODE(os.stat(box / "empty").st_mode) == 0o700
        assert os.stat(box / "empty").st_mtime == 4
        assert os.getxattr(box / "empty", "user.colour") == b"blue"
        assert sorted(os.listdir(box)) == ["dangling", "empty", "link", "script"]

    check()
    mounted.remount()
    check()
    os.rename(box / "empty", box / "kept")
    os.rename(box / "kept", box / "empty")
    os.utime(box / "empty", (3, 4))
    check()
    assert set(operations(server)) <= {"list_containers", "list_files"}

    os.removexattr(box / "script", "user.colour")
    assert errno_of(os.getxattr, box / "script", "user.colour") == "ENODATA"
    elsewhere = mount(umask="022")
    assert os.listdir(elsewhere / "box") == ["script"]
    assert stat.S_IMODE(os.stat(elsewhere / "box" / "script").st_mode) == 0o644


def test_hard_links_and_devices_are_not_permitted(box, errno_of):
    (box / "file").write_bytes(b"content")
    assert errno_of(os.link, box / "file", box / "hard") == "EPERM"
    assert errno_of(os.mknod, box / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)) == "EPERM"
    assert errno_of(os.mknod, box / "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0)) == "EPERM"
    assert os.listdir(box) == ["file"]


def test_a_large_file_is_written_and_read_whole(box, tmp_path, run, stored):
    data = os.urandom(1 << 20) * 40
    (tmp_path / "large").write_bytes(data)
    shutil.copyfile(tmp_path / "large", box / "large")
    run("cmp", tmp_path / "large", box / "large")
    assert stored(xattr(box, "id"))["large"] == data
    assert os.statvfs(box).f_bavail > 0
    assert Path(box / "large").stat().st_size == len(data)


def test_of_two_machines_that_change_one_file_the_last_close_wins(
    server, mount, stored, eventually
):
    id = server.new_container("box")
    here, there = (mount(ttl=0.1) for _ in range(2))
    there.expect("wins over")
    (here / "box" / "file").write_bytes(b"at first")
    eventually((there / "box" / "file").exists)
    first, second = (os.open(each / "box" / "file", os.O_WRONLY) for each in (here, there))
    os.write(first, b"from here, and longer")
    os.write(second, b"there")
    os.close(first)
    os.close(second)
    eventually(lambda: stored(id) == {"file": b"thererst"})
    assert len(server.files(id)) == 1
    eventually(lambda: (here / "box" / "file").read_bytes() == b"thererst")
