"""Modes, owners, times, extended attributes and links: kept here, because the service has none."""

import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import suppress

import pytest

SECOND = 1_000_000_000
LONG_AGO = 10**9 * SECOND + 123_456_789
IS_ROOT = os.getuid() == 0
OWNER = (11, 22) if IS_ROOT else (os.getuid(), os.getgid())
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")


def times(path):
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


@pytest.fixture
def file(box):
    (box / "file").write_bytes(b"content")
    return box / "file"


@pytest.mark.parametrize("mode", [0o600, 0o000, 0o755, 0o4755, 0o2711, 0o1777, 0o7777])
def test_chmod_sets_the_mode(box, file, mode, tick):
    (box / "dir").mkdir()
    for path in (file, box / "dir"):
        before = times(path)
        tick()
        os.chmod(path, mode)
        assert os.stat(path).st_mode & 0o7777 == mode
        assert times(path)[1] == before[1]
        assert times(path)[2] > before[2]


@needs_root
def test_chown_sets_the_owner(box, file):
    os.symlink("file", box / "link")
    os.chown(file, 1234, 5678)
    assert (os.stat(file).st_uid, os.stat(file).st_gid) == (1234, 5678)
    os.chown(file, -1, 42)
    assert (os.stat(file).st_uid, os.stat(file).st_gid) == (1234, 42)
    os.lchown(box / "link", 7, 8)
    assert (os.lstat(box / "link").st_uid, os.lstat(box / "link").st_gid) == (7, 8)
    assert os.stat(file).st_uid == 1234


def test_the_umask_of_who_makes_a_file_counts(box, run):
    script = "umask 027; : > file; mkdir dir; umask 0; : > open; mkdir opendir"
    run("sh", "-c", script, cwd=box)
    modes = {name: os.stat(box / name).st_mode & 0o7777 for name in os.listdir(box)}
    assert modes == {"file": 0o640, "dir": 0o750, "open": 0o666, "opendir": 0o777}


def test_a_container_has_the_mode_that_it_was_made_with(mount, server):
    mounted = mount(umask="022")
    os.mkdir(mounted / "private", 0o700)
    assert os.stat(mounted / "private").st_mode & 0o7777 == 0o700
    mounted.remount(umask="022")
    assert os.stat(mounted / "private").st_mode & 0o7777 == 0o700


@needs_root
def test_a_container_belongs_to_who_made_it(mount, server):
    mounted = mount(allow_other=True, umask="0", uid=321, gid=654)
    (mounted / "box").mkdir()
    status = os.stat(mounted / "box")
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_a_set_group_id_directory_hands_its_group_down(box):
    group = 4321 if IS_ROOT else max(os.getgroups(), default=os.getgid())
    (box / "team").mkdir()
    os.chown(box / "team", -1, group)
    (box / "team").chmod(stat.S_ISGID | 0o770)
    (box / "team" / "file").touch()
    (box / "team" / "below" / "deeper").mkdir(parents=True)
    os.mkfifo(box / "team" / "pipe")
    found = {path.name: path.stat() for path in (box / "team").rglob("*")}
    assert {name: status.st_gid for name, status in found.items()} == dict.fromkeys(
        ["file", "below", "deeper", "pipe"], group
    )
    inherits = {name for name, status in found.items() if status.st_mode & stat.S_ISGID}
    assert inherits == {"below", "deeper"}


@needs_root
def test_no_file_is_set_group_id_for_a_group_that_was_handed_down(box):
    os.chown(box, -1, 4321)
    box.chmod(stat.S_ISGID | 0o770)
    os.close(os.open(box / "file", os.O_CREAT | os.O_WRONLY, 0o2755))
    assert os.stat(box / "file").st_mode & 0o7777 == 0o755


def test_the_mounts_umask_and_owner_hold_for_what_the_server_has(mount, server):
    server.write(server.new_container("box"), "/mnt/data/dir/file", b"x")
    uid, gid = OWNER
    mounted = mount(umask="027", uid=uid, gid=gid)
    for path, mode in (("box", 0o750), ("box/dir", 0o750), ("box/dir/file", 0o640)):
        status = os.stat(mounted / path)
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (mode, uid, gid)


@pytest.mark.parametrize(
    ("atime", "mtime"),
    [
        (1, 2),
        (0, 0),
        (1_234_567_890_123_456_789, 987_654_321_987_654_321),
        (-SECOND, -1),
        (4_000_000_000 * SECOND + 1, 2**62),
    ],
)
def test_times_are_kept_to_the_nanosecond(box, file, atime, mtime):
    (box / "dir").mkdir()
    os.symlink("file", box / "link")
    for path in (file, box / "dir", box / "link"):
        os.utime(path, ns=(atime, mtime), follow_symlinks=False)
        assert times(path)[:2] == (atime, mtime)


@pytest.mark.parametrize("seconds", [-(10**11), 10**11, 2**62])
def test_a_time_too_far_away_is_the_nearest_that_can_be_kept(file, seconds):
    os.utime(file, (seconds, seconds))
    assert (os.stat(file).st_mtime > 0) == (seconds > 0)
    file.rename(file.with_name("renamed"))
    file.with_name("renamed").write_bytes(b"written on")
    assert file.with_name("renamed").read_bytes() == b"written on"


def test_times_can_be_set_to_now_or_left_alone(file, run):
    os.utime(file, ns=(5 * SECOND, 6 * SECOND))
    before = time.time_ns()
    run("touch", "-a", file)
    assert before - 10 * SECOND < times(file)[0] < time.time_ns() + SECOND
    assert times(file)[1] == 6 * SECOND
    os.utime(file, ns=(5 * SECOND, 6 * SECOND))
    run("touch", "-m", file)
    assert times(file)[0] == 5 * SECOND
    assert before - 10 * SECOND < times(file)[1] < time.time_ns() + SECOND
    fd = os.open(file, os.O_WRONLY)
    os.utime(fd, ns=(1, 2))
    os.close(fd)
    assert times(file)[:2] == (1, 2)


def test_each_change_moves_the_times_that_posix_says(box, file, tick):
    def moved(change):
        """Which of mtime and ctime *change* moves."""
        before = times(file)
        tick()
        change()
        after = times(file)
        return "".join(
            letter for letter, old, new in zip("amc", before, after, strict=True) if old != new
        )

    os.utime(file, ns=(SECOND, SECOND))
    with file.open("r+b", buffering=0) as opened:
        fd = opened.fileno()
        assert moved(lambda: os.write(fd, b"x")) == "mc"
        assert moved(lambda: os.ftruncate(fd, 100)) == "mc"
        assert moved(lambda: os.fsync(fd)) == ""
        assert moved(lambda: os.pread(fd, 10, 0)) == ""
        assert moved(lambda: os.write(fd, b"")) == ""
    assert moved(lambda: os.truncate(file, 50)) == "mc"
    assert moved(lambda: os.chmod(file, 0o600)) == "c"
    assert moved(lambda: os.chown(file, *OWNER)) == "c"
    assert moved(lambda: os.setxattr(file, "user.x", b"1")) == "c"
    assert moved(lambda: os.removexattr(file, "user.x")) == "c"
    assert moved(lambda: os.utime(file, ns=(3, 3))) == "amc"
    assert moved(lambda: os.truncate(file, 50)) == "mc"
    assert moved(lambda: file.open("r+b").close()) == ""
    assert moved(lambda: file.open("wb").close()) == "mc"
    assert moved(lambda: file.open("wb").close()) == "mc"
    assert moved(lambda: file.read_bytes()) == ""
    os.rename(file, box / "renamed")
    file = box / "renamed"
    before = times(file)
    os.rename(file, box / ".r.swp")
    os.rename(box / ".r.swp", file)
    assert times(file)[:2] == before[:2]


def test_reading_and_looking_cost_no_request(box, file, counted):
    os.listdir(box)
    counted(box)
    for _ in range(5):
        assert file.read_bytes() == b"content"
        os.stat(file)
        os.listxattr(file)
        os.listdir(box)
    os.chmod(file, 0o600)
    os.utime(file, ns=(1, 2))
    os.setxattr(file, "user.a", b"b")
    assert counted(box) == {}


def test_user_attributes_can_be_set_listed_and_removed(box, file, errno_of):
    (box / "dir").mkdir()
    for path in (file, box / "dir", box):
        assert errno_of(os.getxattr, path, "user.a") == "ENODATA"
        os.setxattr(path, "user.a", b"value")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
        assert os.getxattr(path, "user.a") == b"value"
        assert os.getxattr(path, "user.empty") == b""
        assert os.getxattr(path, "user.bytes") == bytes(range(256))
        ours = {name for name in os.listxattr(path) if not name.startswith("user.containerfs.")}
        assert ours == {"user.a", "user.empty", "user.bytes"}
        os.setxattr(path, "user.a", b"longer than before")
        assert os.getxattr(path, "user.a") == b"longer than before"
        os.removexattr(path, "user.a")
        assert errno_of(os.getxattr, path, "user.a") == "ENODATA"
        assert errno_of(os.removexattr, path, "user.a") == "ENODATA"


def test_creating_and_replacing_an_attribute_are_told_apart(file, errno_of):
    assert errno_of(os.setxattr, file, "user.a", b"1", os.XATTR_REPLACE) == "ENODATA"
    os.setxattr(file, "user.a", b"1", os.XATTR_CREATE)
    assert errno_of(os.setxattr, file, "user.a", b"2", os.XATTR_CREATE) == "EEXIST"
    os.setxattr(file, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(file, "user.a") == b"3"


def test_attributes_have_the_limits_of_a_disk(file, errno_of):
    os.setxattr(file, "user.max", b"x" * 65536)
    assert len(os.getxattr(file, "user.max")) == 65536
    assert errno_of(os.setxattr, file, "user.more", b"x" * 65537) == "E2BIG"  # the kernel's
    long = "user." + "n" * 250
    os.setxattr(file, long, b"x")
    assert os.getxattr(file, long) == b"x"
    assert errno_of(os.setxattr, file, long + "n", b"x") == "ERANGE"  # the kernel's
    for number in range(14):
        os.setxattr(file, f"user.{number}", b"x" * 65536)
    assert errno_of(os.setxattr, file, "user.last", b"x" * 65536) == "ENOSPC"
    assert errno_of(os.setxattr, file, "user.", b"x") == "EINVAL"
    assert errno_of(os.getxattr, file, "user.") == "EINVAL"
    assert errno_of(os.removexattr, file, "user.") == "EINVAL"
    for name in ("security.x", "trusted.x"):
        assert errno_of(os.getxattr, file, name) in ("ENODATA", "ENOTSUP")
        assert errno_of(os.setxattr, file, name, b"x") in ("ENOTSUP", "EPERM")


def test_ls_is_told_of_no_attributes(file, run, tmp_path):
    assert "user.containerfs.id=" in run("getfattr", "-d", file)
    shutil.copy(shutil.which("getfattr"), tmp_path / "ls")
    assert "not supported" in run(tmp_path / "ls", "-d", file, check=False).stderr
    assert run(tmp_path / "ls", "-n", "user.containerfs.container", file)
    assert run("ls", "-l", file).startswith("-rw-r--r-- ")


def test_ls_asks_for_attributes_once_and_not_for_each_file(box, run, tmp_path):
    if "GNU" not in run("ls", "--version"):
        pytest.skip("another ls may ask for each file")
    for number in range(50):
        (box / str(number)).touch()
    calls = "trace=getxattr,lgetxattr,listxattr,llistxattr,?getxattrat,?listxattrat"
    said = run("strace", "-qq", "-o", tmp_path / "calls", "-e", calls, "ls", "-l", box)
    assert len(said.splitlines()) == 51
    assert 0 < (tmp_path / "calls").read_text().count("xattr") < 5


def test_symbolic_links_hold_any_target(box, errno_of, run):
    (box / "file").write_bytes(b"x")
    targets = [
        b"file",
        b"nowhere/at/all",
        b"/etc/hostname",
        b"../..",
        b"x" * 4095,
        b"odd \xff\xfe\n\t name",
        "füß".encode(),
    ]
    for number, target in enumerate(targets):
        link = os.fsencode(box / f"link{number}")
        os.symlink(target, link)
        assert os.readlink(link) == target
        assert os.lstat(link).st_size == len(target)
    assert (box / "link0").read_bytes() == b"x"
    assert errno_of(os.stat, box / "link1") == "ENOENT"
    os.symlink("loop", box / "loop")
    assert errno_of(os.stat, box / "loop") == "ELOOP"
    assert errno_of(os.symlink, "y" * 4096, box / "long") == "ENAMETOOLONG"
    assert run("readlink", "-f", box / "link0").strip() == str(box / "file")
    with (box / "link1").parent.joinpath("link0").open("ab") as file:
        file.write(b"y")
    assert (box / "file").read_bytes() == b"xy"
    os.unlink(box / "link0")
    assert (box / "file").read_bytes() == b"xy"


@needs_root
def test_permissions_are_enforced_for_other_users(mount, errno_of):
    mounted = mount(allow_other=True)
    mounted.path.parent.chmod(0o711)  # the other user gets into it by inheriting it
    box = mounted / "box"
    box.mkdir()
    box.chmod(0o755)
    (box / "private").write_bytes(b"secret")
    os.chmod(box / "private", 0o600)
    (box / "public").write_bytes(b"public")
    os.chmod(box / "public", 0o644)
    (box / "theirs").write_bytes(b"theirs")
    os.chown(box / "theirs", 12345, 12345)
    (box / "sticky").mkdir()
    (box / "sticky").chmod(0o1777)
    (box / "sticky" / "mine").write_bytes(b"x")
    script = """
import errno, os, sys
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
os.chdir(sys.argv[1])
def attempt(call, *args):
    try:
        call(*args)
        print("done")
    except OSError as exc:
        print(errno.errorcode[exc.errno])
attempt(os.open, "private", os.O_RDONLY)
attempt(os.open, "public", os.O_RDONLY)
attempt(os.open, "public", os.O_WRONLY)
attempt(os.open, "theirs", os.O_RDWR)
attempt(os.chmod, "public", 0o777)
attempt(os.chmod, "theirs", 0o600)
attempt(os.chown, "theirs", 0, 0)
attempt(os.open, "new", os.O_CREAT | os.O_WRONLY)
attempt(os.mkdir, "dir")
attempt(os.unlink, "public")
attempt(os.rename, "theirs", "other")
attempt(os.utime, "public")
attempt(os.setxattr, "public", "user.a", b"b")
attempt(os.unlink, "sticky/mine")
attempt(os.mkdir, "sticky/own")
attempt(os.listdir, "sticky/own")
print(os.stat("sticky/own").st_uid)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, "mnt/box"],
        cwd=mounted.path.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == [
        *("EACCES", "done", "EACCES", "done", "EPERM", "done", "EPERM"),
        *("EACCES", "EACCES", "EACCES", "EACCES", "EACCES", "EACCES"),
        *("EPERM", "done", "done", "12345"),
    ]


@needs_root
@pytest.mark.parametrize(("before", "after"), [(0o6777, 0o777), (0o6767, 0o2767), (0o1666, 0o1666)])
def test_what_others_empty_runs_as_its_owner_no_more(mount, before, after):
    mounted = mount(allow_other=True)
    mounted.path.parent.chmod(0o711)
    (mounted / "box").mkdir(mode=0o755)
    tool = mounted / "box" / "tool"
    for content in (b"content", b""):
        tool.write_bytes(content)
        tool.chmod(before)
        tool.write_bytes(content)  # root may do so
        assert os.stat(tool).st_mode & 0o7777 == before
        empty = ["sh", "-c", ": > mnt/box/tool"]
        subprocess.run(empty, cwd=mounted.path.parent, user=12345, group=12345, check=True)
        assert os.stat(tool).st_mode & 0o7777 == after
    mounted.remount()
    assert os.stat(tool).st_mode & 0o7777 == after


def facts(path):
    status = os.lstat(path)
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_ino,
        {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith("user.containerfs.")
        },
    )


@pytest.fixture
def adorned(mount):
    """A mount with a file, a directory and a link whose attributes were all set."""
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / "file").write_bytes(b"content")
    (box / "dir").mkdir()
    os.symlink("file", box / "link")
    for name in ("file", "dir"):
        os.setxattr(box / name, "user.note", name.encode())
        (box / name).chmod(0o751)
    for name in ("file", "dir", "link"):
        os.chown(box / name, *OWNER, follow_symlinks=False)
        os.utime(box / name, ns=(1_000, 2_000_000_001), follow_symlinks=False)
    box.chmod(0o711)
    return mounted


def test_attributes_survive_a_remount(adorned):
    names = ("box", "box/file", "box/dir", "box/link")
    before = {name: (facts(adorned / name), times(adorned / name)[2]) for name in names}
    assert before["box/file"][0][:3] == (0o100751, *OWNER)
    adorned.remount()
    assert {name: (facts(adorned / name), times(adorned / name)[2]) for name in names} == before
    assert os.readlink(adorned / "box" / "link") == "file"


def test_attributes_of_what_went_while_nothing_was_mounted_are_not_its_successors(mount, server):
    id = server.new_container("box")
    first = server.write(id, "/mnt/data/file", b"first")["id"]
    mounted = mount(umask="022")
    (mounted / "box" / "file").chmod(0o751)
    mounted.stop()
    server.call("DELETE", f"/v1/containers/{id}/files/{first}")
    mounted.remount()
    assert os.listdir(mounted / "box") == []
    server.write(id, "/mnt/data/file", b"second")
    mounted.remount()
    assert os.stat(mounted / "box" / "file").st_mode & 0o777 == 0o644


def test_attributes_survive_a_rename(adorned):
    box = adorned / "box"
    before = {name: facts(box / name) for name in ("file", "dir", "link")}
    for name in before:
        os.rename(box / name, box / f"new-{name}")
    (box / "sub").mkdir()
    os.rename(box / "new-file", box / "sub" / "new-file")
    os.rename(box / "sub", box / "moved")
    os.rename(box / "moved" / "new-file", box / "new-file")
    assert {name: facts(box / f"new-{name}") for name in before} == before
    adorned.remount()
    assert {name: facts(box / f"new-{name}") for name in before} == before


def test_attributes_survive_a_rewrite(adorned):
    file = adorned / "box" / "file"
    mode, uid, gid, _, inode, xattrs = facts(file)
    file.write_bytes(b"rewritten")
    now = facts(file)
    assert (*now[:3], *now[4:]) == (mode, uid, gid, inode, xattrs)
    assert now[3] > 2_000_000_001
    adorned.remount()
    assert facts(file) == now


def test_attributes_of_unsent_and_scratch_files_survive_a_remount(adorned, server):
    """Also where the disk below stamps what is written with a finer clock than the mount's."""
    box = adorned / "box"
    kept = [box / f".{number}.swp" for number in range(20)]
    for number, path in enumerate(kept):
        with path.open("wb") as file:
            file.write(b"one")
            file.flush()
            for spool in adorned.cache.glob("*/spool/*"):
                spool.stat()  # what was asked for its time tells a finer one from then on
            file.write(b"two")
            file.flush()
            if number % 2:
                os.utime(path, ns=(1_000, 2_000_000_001))
        os.setxattr(path, "user.a", b"b")
    before = {path: facts(path) for path in kept}
    adorned.remount()
    assert {path: facts(path) for path in kept} == before
    assert {path.read_bytes() for path in kept} == {b"onetwo"}


def test_what_others_change_shows_their_time(mount, server):
    id = server.new_container("box")
    file_id = server.write(id, "/mnt/data/file", b"one", created_at=1_700_000_000)["id"]
    mounted = mount(ttl=0)
    file = mounted / "box" / "file"
    assert times(file) == (1_700_000_000 * SECOND,) * 3
    os.chmod(file, 0o600)
    os.utime(file, ns=(1, 2))
    assert times(file)[:2] == (1, 2)
    server.call("DELETE", f"/v1/containers/{id}/files/{file_id}")
    server.write(id, "/mnt/data/file", b"second", created_at=1_700_000_500)
    assert file.read_bytes() == b"second"
    assert times(file)[1] == 1_700_000_500 * SECOND
    assert os.stat(file).st_mode & 0o777 == 0o600


def test_copies_keep_attributes_and_rsync_finds_nothing_to_do(box, tmp_path, run):
    source = tmp_path / "source"
    (source / "dir" / "empty").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(b"content")
    (source / "script").write_bytes(b"#!/bin/sh\n")
    (source / "script").chmod(0o750)
    os.symlink("dir/file", source / "link")
    os.utime(source / "dir" / "file", ns=(1_500_000_000_123_456_789,) * 2)
    os.utime(source / "dir", ns=(1_400_000_000_987_654_321,) * 2)
    os.setxattr(source / "script", "user.note", b"kept")
    run("cp", "-a", source, box / "copied")
    assert facts(box / "copied" / "script")[5] == {"user.note": b"kept"}
    run("rsync", "-a", f"{source}/", box / "synced")
    run("tar", "-cf", tmp_path / "t.tar", "-C", source, ".")
    (box / "untarred").mkdir()
    run("tar", "-xpf", tmp_path / "t.tar", "-C", box / "untarred")
    run("cp", "-a", box / "copied", box / "again")
    assert facts(box / "again" / "script")[5] == {"user.note": b"kept"}
    run("install", "-m", "640", box / "copied" / "script", box / "installed")
    for name in ("copied", "synced", "untarred", "again"):
        compared = run("rsync", "-ain", "--delete", f"{source}/", box / name)
        assert compared == "", name
        assert times(box / name / "dir" / "file")[1] == 1_500_000_000_123_456_789 or (
            name == "untarred"  # ustar has seconds
        )


def test_attributes_that_the_service_tells_stay_what_they_are(box, run, tmp_path, errno_of):
    """Tools that copy all attributes, or remove those the source lacks, do not fail by them."""
    file = box / "file"
    file.write_bytes(b"content")
    told = {name: os.getxattr(file, name) for name in os.listxattr(file)}
    assert "user.containerfs.id" in told
    os.setxattr(file, "user.containerfs.id", b"another")
    os.removexattr(file, "user.containerfs.path")
    assert {name: os.getxattr(file, name) for name in os.listxattr(file)} == told
    assert errno_of(os.removexattr, file, "user.containerfs.none") == "ENODATA"
    run("cp", "--preserve=all", file, box / "copy")
    assert os.getxattr(box / "copy", "user.containerfs.id") != told["user.containerfs.id"]
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    os.setxattr(source / "file", "user.mine", b"mine")
    for _ in range(2):
        run("rsync", "-aX", f"{source}/", f"{box}/")
    assert os.getxattr(file, "user.mine") == b"mine"


def test_a_killed_mount_knows_when_what_was_not_sent_was_written(mount, tick):
    mounted = mount()
    (mounted / "box").mkdir()
    file = mounted / "box" / "file"
    file.write_bytes(b"old")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    tick()
    with file.open("r+b", buffering=0) as writer:
        writer.write(b"new")
        written = os.stat(file).st_mtime_ns
        mounted.kill()
        with suppress(OSError):
            writer.close()
    mounted.remount()
    assert file.read_bytes() == b"new"
    assert os.stat(file).st_mtime_ns == pytest.approx(written, abs=SECOND)
