"""Programs that change files in place, keep metadata, or look for changes nobody made."""

import os
import socket
import stat
import time
from contextlib import suppress

import pytest

GIT = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "init.defaultBranch",
    "GIT_CONFIG_VALUE_0": "main",
    "GIT_CONFIG_KEY_1": "gc.autoDetach",
    "GIT_CONFIG_VALUE_1": "false",
}
LONG_AGO = 1_000_000_000_123_456_789  # nanoseconds


@pytest.fixture
def mounted(mount):
    mounted = mount()
    (mounted / "box").mkdir()
    return mounted


@pytest.fixture
def box(mounted):
    return mounted / "box"


@pytest.fixture
def sent(stored, box):
    """What the server has of the container."""
    return lambda: stored(os.getxattr(box, "user.containerfs.id").decode())


@pytest.fixture
def tree(tmp_path):
    """A directory with everything that a copy should keep."""
    tree = tmp_path / "tree"
    (tree / "dir" / "empty").mkdir(parents=True)
    (tree / "plain").write_bytes(b"plain\n" * 5000)
    (tree / "dir" / "script").write_bytes(b"#!/bin/sh\necho ran\n")
    (tree / "dir" / "none").write_bytes(b"")
    (tree / "dir" / "secret ä").write_bytes(b"secret")
    (tree / "link").symlink_to("dir/script")
    (tree / "dangling").symlink_to("/nowhere/" + "x" * 200)
    os.mkfifo(tree / "pipe", 0o640)
    (tree / "dir" / "script").chmod(0o755)
    (tree / "dir" / "secret ä").chmod(0o400)
    (tree / "dir").chmod(0o750)
    os.setxattr(tree / "plain", "user.colour", b"blue")
    for path in sorted(tree.rglob("*"), reverse=True):
        os.utime(path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    return tree


def facts(tree):
    """What a copy that keeps everything has in common with its original."""
    found = {}
    for path in tree.rglob("*"):
        told = path.lstat()
        kind = stat.S_IFMT(told.st_mode)
        found[str(path.relative_to(tree))] = (
            stat.filemode(told.st_mode),
            told.st_mtime_ns,
            told.st_size if kind == stat.S_IFREG else None,
            os.readlink(path) if kind == stat.S_IFLNK else None,
        )
    return found


def test_pipes_and_sockets_join_the_processes_of_this_machine(box, run, mounted, sent):
    os.mkfifo(box / "pipe", 0o600)
    assert run("sh", "-c", "echo through > pipe & cat pipe", cwd=box) == "through\n"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(os.fspath(box / "socket"))
        listener.listen()
        os.rename(box / "socket", box / "moved")
        caller.connect(os.fspath(box / "moved"))
    mounted.remount()
    assert run("stat", "-c", "%F %a", "pipe", "moved", cwd=box) == "fifo 600\nsocket 755\n"
    assert sent() == {}
    run("rm", "pipe", "moved", cwd=box)
    mounted.remount()
    assert os.listdir(box) == []


def test_a_killed_mount_knows_when_what_was_not_sent_was_written(box, mounted, eventually):
    (box / "file").write_bytes(b"old")
    os.utime(box / "file", ns=(LONG_AGO, LONG_AGO))
    changed = os.stat(box / "file").st_ctime_ns
    eventually(lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) > changed + 10**7)  # a tick
    with (box / "file").open("r+b", buffering=0) as writer:
        writer.write(b"new")
        written = os.stat(box / "file").st_mtime_ns
        mounted.kill()
        with suppress(OSError):
            writer.close()
    mounted.remount()
    assert (box / "file").read_bytes() == b"new"
    assert os.stat(box / "file").st_mtime_ns == pytest.approx(written, abs=10**9)


def test_ed_edits_a_file(box, run, sent, tmp_path):
    (box / "a.txt").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "commands").write_text("/two/s//2/\n$a\nfour\n.\nw\nq\n")
    run("sh", "-c", f"ed -s a.txt < {tmp_path}/commands", cwd=box)
    assert (box / "a.txt").read_bytes() == b"one\n2\nthree\nfour\n"
    assert sent() == {"a.txt": b"one\n2\nthree\nfour\n"}


def test_perl_edits_files_in_place(box, run, sent):
    (box / "a.txt").write_bytes(b"old\n")
    (box / "b.txt").write_bytes(b"old old\n")
    run("perl", "-pi", "-e", "s/old/new/g", "a.txt", "b.txt", cwd=box)
    assert sent() == {"a.txt": b"new\n", "b.txt": b"new new\n"}
    run("perl", "-pi.orig", "-e", "s/new/newer/", "a.txt", cwd=box)
    assert sent() == {"a.txt": b"newer\n", "a.txt.orig": b"new\n", "b.txt": b"new new\n"}


def test_cp_keeps_everything(box, tree, run, mounted, tmp_path):
    run("cp", "-a", tree, box / "copy")
    assert facts(box / "copy") == facts(tree)
    assert os.getxattr(box / "copy" / "plain", "user.colour") == b"blue"
    mounted.remount()
    run("cp", "-a", box / "copy", tmp_path / "back")
    assert facts(tmp_path / "back") == facts(tree)
    assert os.getxattr(tmp_path / "back" / "plain", "user.colour") == b"blue"
    run("diff", "-r", "--no-dereference", "--exclude=pipe", tree, tmp_path / "back")
    assert run("cp", "-auv", f"{tree}/dir/.", box / "copy" / "dir").count("->") == 0


def test_tar_keeps_everything_and_sees_no_change(box, tree, run, mounted):
    run("tar", "-C", tree, "--format=posix", "-cf", box / "tree.tar", ".")
    (box / "out").mkdir()
    run("tar", "-C", box / "out", "-xpf", box / "tree.tar")
    assert facts(box / "out") == facts(tree)
    for _ in range(2):
        done = run("tar", "-C", box / "out", "-df", box / "tree.tar", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        again = run("tar", "-C", box, "-cf", box / "again.tar", "out", check=False)
        assert (again.returncode, again.stderr) == (0, "")  # no "file changed as we read it"
        mounted.remount()


def test_zip_and_unzip(box, tree, run):
    run("zip", "-qry", box / "tree.zip", "plain", "dir", "link", cwd=tree)
    run("unzip", "-tq", box / "tree.zip")
    run("unzip", "-q", box / "tree.zip", "-d", box / "out")
    (tree / "pipe").unlink()
    (tree / "dangling").unlink()
    run("diff", "-r", tree, box / "out")
    assert os.access(box / "out" / "dir" / "script", os.X_OK)
    (box / "more").write_bytes(b"more")
    run("zip", "-qm", "tree.zip", "more", cwd=box)
    assert not (box / "more").exists()
    assert run("unzip", "-p", box / "tree.zip", "more") == "more"


def test_rsync_transfers_once_what_does_not_change(box, tree, run, server, mounted):
    def changed(*words):
        return run("rsync", "-a", "-i", *words, f"{tree}/", f"{box}/copy/").splitlines()

    assert len(changed()) == len(facts(tree)) + 2  # "created directory", and the directory itself
    assert facts(box / "copy") == facts(tree)
    run("sync", box)
    server.forget_requests()
    assert changed() == []
    assert changed("--checksum") == []
    mounted.remount()
    assert changed() == []
    assert server.requests("create_file") == []


@pytest.mark.parametrize("how", [["--inplace"], ["--append"], ["--append-verify"], ["--delete"]])
def test_rsync_brings_a_copy_up_to_date(box, tree, run, sent, how):
    run("rsync", "-a", f"{tree}/", f"{box}/copy/")
    with (tree / "plain").open("ab") as writer:
        writer.write(b"more\n" * 1000)
    (tree / "dir" / "script").unlink()
    run("rsync", "-a", "--no-whole-file", *how, f"{tree}/", f"{box}/copy/")
    if "--delete" not in how:
        (box / "copy" / "dir" / "script").unlink()
    os.utime(tree / "dir", ns=(LONG_AGO, LONG_AGO))
    os.utime(box / "copy" / "dir", ns=(LONG_AGO, LONG_AGO))
    assert facts(box / "copy") == facts(tree)
    run("sync", box)
    assert sent()["copy/plain"] == (tree / "plain").read_bytes()
    assert set(sent()) == {"copy/plain", "copy/dir/none", "copy/dir/secret ä"}


def test_git_works_from_init_to_worktree(box, run, mounted):
    def git(*words, at):
        return run("git", *words, cwd=box / at, **GIT)

    (box / "one").mkdir()
    git("init", "-q", at="one")
    for number in range(3):
        (box / "one" / f"file {number}").write_text(f"{number}\n" * 100)
        git("add", ".", at="one")
        git("commit", "-qm", f"commit {number}", at="one")
    git("clone", "-q", "--no-hardlinks", "one", "two", at=".")
    git("worktree", "add", "-q", "../three", "HEAD~1", at="two")
    assert sorted(os.listdir(box / "three")) == [".git", "file 0", "file 1"]
    (box / "three" / "file 3").write_text("3\n")
    git("add", ".", at="three")
    git("commit", "-qm", "aside", at="three")
    git("merge", "-q", "-m", "merge", git("rev-parse", "HEAD", at="three").strip(), at="two")
    git("stash", "list", at="two")
    git("push", "-q", "origin", "HEAD:refs/heads/merged", at="two")
    for at in ("one", "two"):
        git("gc", "-q", "--prune=now", at=at)
        git("fsck", "--full", "--strict", at=at)
    mounted.remount()
    for at in ("one", "two", "three"):
        git("fsck", "--full", "--strict", at=at)
        assert git("status", "--porcelain", at=at) == ""  # nothing looks changed
    git("worktree", "remove", "../three", at="two")
    assert git("worktree", "list", at="two").count("\n") == 1
    run("rm", "-rf", "one", "two", cwd=box)
    assert os.listdir(box) == []
