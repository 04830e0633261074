"""Real tools on a real mount: what people do in a directory works in this one."""

import os
import shutil
import socket
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent / "containerfs"
GIT = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "init.defaultBranch",
    "GIT_CONFIG_VALUE_0": "main",
    "GIT_CONFIG_KEY_1": "gc.autoDetach",
    "GIT_CONFIG_VALUE_1": "false",
    "GIT_CONFIG_KEY_2": "safe.directory",
    "GIT_CONFIG_VALUE_2": "*",
}


@pytest.fixture
def tree(tmp_path):
    """A source tree: this project's own, without what Python leaves in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PROJECT, tmp_path / "tree", ignore=ignore))


def test_coreutils(box, tree, run, sent):
    run("cp", "-a", tree / "errors.py", box)
    assert os.stat(box / "errors.py").st_mtime_ns == os.stat(tree / "errors.py").st_mtime_ns
    run("sh", "-c", "cat errors.py >> more && head -c 10 errors.py > ten", cwd=box)
    run("sh", "-c", "echo hello | tee one two > three; truncate -s 3 two", cwd=box)
    run("mv", box / "one", box / "uno")
    run("mkdir", "-p", box / "a" / "b")
    run("mv", box / "uno", box / "three", box / "a" / "b")
    run("ln", "-s", "a/b/uno", box / "link")
    run("install", "-m", "700", box / "ten", box / "a" / "installed")
    run("dd", f"if={tree / 'errors.py'}", f"of={box / 'dd'}", "bs=100", "conv=fsync")
    run("split", "-b", "1000", box / "errors.py", box / "part.")
    run("sort", "-o", box / "sorted", box / "errors.py")
    run("touch", "-d", "2001-02-03 04:05:06 UTC", box / "ten")
    assert run("cat", box / "link") == "hello\n"
    assert (
        run("ls", box)
        == "a\ndd\nerrors.py\nlink\nmore\n"
        + "".join(f"{path.name}\n" for path in sorted(box.glob("part.*")))
        + "sorted\nten\ntwo\n"
    )
    assert run("stat", "-c", "%s %a %F", box / "a" / "installed") == "10 700 regular file\n"
    assert run("stat", "-c", "%Y", box / "ten") == "981173106\n"
    assert run("wc", "-c", box / "two").split()[0] == "3"
    assert run("du", "-sb", "--apparent-size", box / "a" / "b").split()[0].isdigit()
    run("cmp", box / "dd", tree / "errors.py")
    run("cmp", box / "more", tree / "errors.py")
    assert run("df", "--output=fstype", box).split()[-1] == "fuse.containerfs"
    run("sh", "-c", "cat part.* | cmp - errors.py", cwd=box)
    have = sent(box)
    assert have["a/b/three"] == have["a/b/uno"] == b"hello\n"
    assert have["two"] == b"hel"
    assert sorted(have["sorted"].splitlines()) == sorted(
        (tree / "errors.py").read_bytes().split(b"\n")[:-1]
    )
    run("rm", "-rf", box / "a", box / "link")
    assert not [name for name in sent(box) if name.startswith("a/")]


def test_grep_and_find(server, mount, tree, run):
    id = server.new_container("box")
    for path in tree.rglob("*"):
        if path.is_file():
            server.write(id, f"/mnt/data/{path.relative_to(tree)}", path.read_bytes())
    box = mount() / "box"
    found = run("grep", "-rl", "import", ".", cwd=tree).splitlines()
    assert sorted(run("grep", "-rl", "import", ".", cwd=box).splitlines()) == sorted(found)
    for words in (
        [".", "-type", "f"],
        [".", "-name", "*.py", "-size", "+4k"],
        [".", "-type", "d", "-not", "-empty"],
        [".", "-newermt", "2000-01-01", "-type", "f"],
    ):
        there, here = (run("find", *words, cwd=place).splitlines() for place in (tree, box))
        assert sorted(here) == sorted(there)
    run("find", ".", "-name", "*.py", "-delete", cwd=box)
    assert run("find", ".", "-name", "*.py", cwd=box) == ""


def test_make_and_shell_scripts(box, run):
    (box / "Makefile").write_text("out: in\n\ttr a-z A-Z < in > out\n")
    (box / "in").write_text("text\n")
    run("make", "--silent", cwd=box)
    assert (box / "out").read_text() == "TEXT\n"
    assert "up to date" in run("make", cwd=box)
    (box / "script").write_text('#!/bin/sh\necho "$0 ran"\n')
    run("chmod", "+x", box / "script")
    assert run(box / "script") == f"{box / 'script'} ran\n"


def test_pipes_and_sockets_join_the_processes_of_this_machine(mount, run, stored):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    os.mkfifo(box / "pipe", 0o600)
    assert run("sh", "-c", "echo through > pipe & cat pipe", cwd=box) == "through\n"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(os.fspath(box / "socket"))
        listener.listen()
        os.rename(box / "socket", box / "moved")
        (box / "moved").chmod(0o755)
        caller.connect(os.fspath(box / "moved"))
    mounted.remount()
    assert run("stat", "-c", "%F %a", "pipe", "moved", cwd=box) == "fifo 600\nsocket 755\n"
    assert stored(os.getxattr(box, "user.containerfs.id").decode()) == {}
    run("rm", "pipe", "moved", cwd=box)
    mounted.remount()
    assert os.listdir(box) == []


@pytest.fixture
def git(run):
    """`git(*words, at=directory)`: what it says."""
    return lambda *words, at: run("git", *words, cwd=at, **GIT)


def test_git_works_from_init_to_worktree(mount, run, git):
    mounted = mount()
    box = mounted / "box"
    one, two, three = (box / name for name in ("one", "two", "three"))
    one.mkdir(parents=True)
    git("init", "-q", at=one)
    for number in range(3):
        (one / f"file {number}").write_text(f"{number}\n" * 100)
        git("add", ".", at=one)
        git("commit", "-qm", f"commit {number}", at=one)
    git("checkout", "-q", "-b", "branch", "HEAD~1", at=one)
    assert sorted(os.listdir(one)) == [".git", "file 0", "file 1"]
    git("checkout", "-q", "main", at=one)
    git("clone", "-q", "--no-hardlinks", "one", "two", at=box)
    git("worktree", "add", "-q", "../three", "HEAD~1", at=two)
    (three / "file 3").write_text("3\n")
    git("add", ".", at=three)
    git("commit", "-qm", "aside", at=three)
    git("merge", "-q", "-m", "merge", git("rev-parse", "HEAD", at=three).strip(), at=two)
    git("stash", "list", at=two)
    git("push", "-q", "origin", "HEAD:refs/heads/merged", at=two)
    for at in (one, two):
        git("gc", "-q", "--prune=now", at=at)
        git("fsck", "--full", "--strict", at=at)
    mounted.remount()
    for at in (one, two, three):
        git("fsck", "--full", "--strict", at=at)
        assert git("status", "--porcelain", at=at) == ""  # nothing looks changed
    git("worktree", "remove", "../three", at=two)
    assert git("worktree", "list", at=two).count("\n") == 1
    run("rm", "-rf", "one", "two", cwd=box)
    assert os.listdir(box) == []


def test_a_git_repository_is_cloned_in_and_out_again(mount, tree, git):
    git("init", "-q", at=tree)
    git("add", "--all", at=tree)
    git("commit", "-q", "-m", "first", at=tree)
    mounted = mount()
    (mounted / "box").mkdir()
    clone = mounted / "box" / "clone"
    git("clone", "-q", "--no-hardlinks", tree, clone, at=tree)
    assert git("status", "--porcelain", at=clone) == ""
    (clone / "errors.py").write_bytes(b"changed")
    git("commit", "-q", "--all", "-m", "second", at=clone)
    git("clone", "-q", mount() / "box" / "clone", tree.parent / "back", at=tree)
    assert git("log", "--format=%s", at=tree.parent / "back") == "second\nfirst\n"
    assert (tree.parent / "back" / "errors.py").read_bytes() == b"changed"
