"""Real tools on a real mount: what people do in a directory works in this one."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent / "containerfs"


def xattr(path, name):
    return os.getxattr(path, f"user.containerfs.{name}").decode()


def files_below(directory):
    """Every file, by its path below *directory*."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def tree(tmp_path):
    """A source tree: this project's own, without what Python leaves in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PROJECT, tmp_path / "tree", ignore=ignore))


@pytest.fixture
def mounted(mount):
    mounted = mount()
    (mounted / "box").mkdir()
    return mounted


@pytest.fixture
def work(mounted):
    """A new container."""
    return mounted / "box"


@pytest.fixture
def contents(stored):
    return lambda box: stored(xattr(box, "id"))


def test_a_copied_tree_compares_equal_everywhere(mounted, work, tree, mount, run, contents):
    run("cp", "-r", tree, work)
    run("diff", "-r", tree, work / "tree")
    run("sync", work)  # empty files are sent after a moment
    run("diff", "-r", tree, mount() / "box" / "tree")
    mounted.remount()
    run("diff", "-r", tree, work / "tree")
    expected = {f"tree/{name}": data for name, data in files_below(tree).items()}
    assert contents(work) == expected


def test_coreutils(work, tree, run, contents):
    run("cp", "-a", tree / "errors.py", work)
    assert os.stat(work / "errors.py").st_mtime_ns == os.stat(tree / "errors.py").st_mtime_ns
    run("sh", "-c", "cat errors.py >> more && head -c 10 errors.py > ten", cwd=work)
    run("sh", "-c", "echo hello | tee one two > three; truncate -s 3 two", cwd=work)
    run("mv", work / "one", work / "uno")
    run("mkdir", "-p", work / "a" / "b")
    run("mv", work / "uno", work / "three", work / "a" / "b")
    run("ln", "-s", "a/b/uno", work / "link")
    run("install", "-m", "700", work / "ten", work / "a" / "installed")
    run("dd", f"if={tree / 'errors.py'}", f"of={work / 'dd'}", "bs=100", "conv=fsync")
    run("split", "-b", "1000", work / "errors.py", work / "part.")
    run("sort", "-o", work / "sorted", work / "errors.py")
    run("touch", "-d", "2001-02-03 04:05:06 UTC", work / "ten")
    assert run("cat", work / "link") == "hello\n"
    assert (
        run("ls", work)
        == "a\ndd\nerrors.py\nlink\nmore\n"
        + "".join(f"{path.name}\n" for path in sorted(work.glob("part.*")))
        + "sorted\nten\ntwo\n"
    )
    assert run("stat", "-c", "%s %a %F", work / "a" / "installed") == "10 700 regular file\n"
    assert run("stat", "-c", "%Y", work / "ten") == "981173106\n"
    assert run("wc", "-c", work / "two").split()[0] == "3"
    assert run("du", "-sb", "--apparent-size", work / "a" / "b").split()[0].isdigit()
    run("cmp", work / "dd", tree / "errors.py")
    run("cmp", work / "more", tree / "errors.py")
    assert run("df", "--output=fstype", work).split()[-1] == "fuse.containerfs"
    run("sh", "-c", "cat part.* | cmp - errors.py", cwd=work)
    have = contents(work)
    assert have["a/b/three"] == have["a/b/uno"] == b"hello\n"
    assert have["two"] == b"hel"
    assert sorted(have["sorted"].splitlines()) == sorted(
        (tree / "errors.py").read_bytes().split(b"\n")[:-1]
    )
    run("rm", "-rf", work / "a", work / "link")
    assert not [name for name in contents(work) if name.startswith("a/")]


def test_grep_and_find(server, mount, tree, run):
    id = server.new_container("box")
    for name, data in files_below(tree).items():
        server.write(id, f"/mnt/data/{name}", data)
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


def test_tar(work, tree, run, tmp_path):
    run("tar", "-C", tree.parent, "-cf", work / "tree.tar", "tree")
    run("tar", "-C", work, "-xf", work / "tree.tar")
    run("diff", "-r", tree, work / "tree")
    run("tar", "-C", work, "-czf", work / "again.tgz", "tree")
    run("tar", "-C", tmp_path, "--one-top-level=out", "-xzf", work / "again.tgz")
    run("diff", "-r", tree, tmp_path / "out" / "tree")
    assert run("tar", "-C", work, "-df", work / "again.tgz") == ""


def test_rsync(mounted, work, tree, run, contents, server):
    def changes(*words):
        said = run("rsync", "-a", "--itemize-changes", *words, f"{tree}/", f"{work}/copy/")
        return [line.split()[1] for line in said.splitlines() if line.startswith(">f")]

    assert sorted(changes()) == sorted(files_below(tree))
    run("diff", "-r", tree, work / "copy")
    run("sync", work)  # empty files wait a moment
    server.forget_requests()
    assert changes() == []
    mounted.remount()
    assert changes() == []
    assert server.requests("create_file") == []
    (tree / "errors.py").write_bytes(b"changed")
    (tree / "api" / "types.py").unlink()
    assert changes("--delete") == ["errors.py"]
    with (tree / "options.py").open("ab") as writer:
        writer.write(b"# more\n")
    assert changes("--inplace", "--no-whole-file") == ["options.py"]
    with (tree / "values.py").open("ab") as writer:
        writer.write(b"# more\n")
    assert changes("--append-verify") == ["values.py"]
    run("diff", "-r", tree, work / "copy")
    expected = {f"copy/{name}": data for name, data in files_below(tree).items()}
    assert contents(work) == expected


GIT = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "init.defaultBranch",
    "GIT_CONFIG_VALUE_1": "main",
}


def test_git(mounted, work, tree, run, mount):
    def git(*words, cwd):
        return run("git", *words, cwd=cwd, **GIT)

    git("init", "--quiet", cwd=tree)
    git("add", "--all", cwd=tree)
    git("commit", "--quiet", "-m", "first", cwd=tree)
    git("clone", "--quiet", "--no-hardlinks", tree, work / "clone", cwd=tree)
    clone = work / "clone"
    assert git("status", "--porcelain", cwd=clone) == ""
    (clone / "errors.py").write_bytes(b"changed")
    (clone / "new.py").write_bytes(b"new")
    git("add", "new.py", cwd=clone)
    git("commit", "--quiet", "--all", "-m", "second", cwd=clone)
    git("checkout", "--quiet", "-b", "branch", "HEAD~1", cwd=clone)
    git("checkout", "--quiet", "main", cwd=clone)
    git("gc", "--quiet", cwd=clone)
    git("fsck", "--strict", "--full", cwd=clone)
    assert git("log", "--format=%s", cwd=clone) == "second\nfirst\n"
    mounted.remount()
    git("fsck", "--strict", "--full", cwd=clone)
    assert git("status", "--porcelain", cwd=clone) == ""
    git("clone", "--quiet", mount() / "box" / "clone", tree.parent / "back", cwd=tree)
    assert git("log", "--format=%s", cwd=tree.parent / "back") == "second\nfirst\n"


def test_sed_in_place(work, run, contents):
    (work / "a.txt").write_bytes(b"old\n")
    (work / "b.txt").write_bytes(b"old old\n")
    run("sed", "-i", "s/old/new/g", "a.txt", "b.txt", cwd=work)
    assert (work / "a.txt").read_bytes() == b"new\n"
    run("sed", "-i.orig", "s/new/newer/", "a.txt", cwd=work)
    assert contents(work) == {"a.txt": b"newer\n", "b.txt": b"new new\n", "a.txt.orig": b"new\n"}
    assert sorted(os.listdir(work)) == ["a.txt", "a.txt.orig", "b.txt"]


@pytest.mark.parametrize("options", [[], ["backupcopy=yes"], ["backup"]], ids=str)
def test_vim(mounted, work, run, contents, options, server):
    (work / "file").write_bytes(b"one\n")
    settings = [f"--cmd=set {option}" for option in options]
    words = [word for setting in settings for word in setting.split("=", 1)]
    run(
        "vim",
        "-N",
        "-u",
        "NONE",
        "-i",
        "NONE",
        *words,
        "-es",
        "-c",
        "normal otwo",
        "-c",
        "wq",
        work / "file",
    )
    run(
        "vim",
        "-N",
        "-u",
        "NONE",
        "-i",
        "NONE",
        *words,
        "-es",
        "-c",
        "normal inew",
        "-c",
        "wq",
        work / "made",
    )
    assert (work / "file").read_bytes() == b"one\ntwo\n"
    assert contents(work) == {"file": b"one\ntwo\n", "made": b"new\n"}
    assert {"file", "made"} <= set(os.listdir(work)) <= {"file", "made", "file~"}
    mounted.remount()
    assert (work / "file").read_bytes() == b"one\ntwo\n"


def test_vim_keeps_its_swap_file_here_and_recovers_from_it(
    work, contents, run, eventually, environ
):
    (work / "file").write_bytes(b"one\n")
    script = [
        "-c",
        "set updatecount=1",
        "-c",
        "normal otwo",
        "-c",
        "preserve",
        "-c",
        "!echo ready; read x",
    ]
    with subprocess.Popen(
        ["vim", "-N", "-u", "NONE", "-i", "NONE", "-es", *script, str(work / "file")],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as vim:
        eventually(
            lambda: (work / ".file.swp").exists() and os.stat(work / ".file.swp").st_size > 4096
        )
        vim.kill()
    assert contents(work) == {"file": b"one\n"}
    run("vim", "-N", "-u", "NONE", "-i", "NONE", "-es", "-r", work / "file", "-c", "wq! recovered")
    assert ".file.swp" in os.listdir(work)
    assert set(contents(work)) <= {"file", "recovered"}


def test_nano(work, run, contents, eventually, tmp_path):
    (work / "file").write_bytes(b"one\n")
    tmux = ("tmux", "-S", tmp_path / "tmux")
    run(*tmux, "-f", "/dev/null", "new-session", "-d", "-x80", "-y24", "nano", "-I", work / "file")
    eventually(lambda: "GNU nano" in run(*tmux, "capture-pane", "-p"))
    run(*tmux, "send-keys", "zero ")
    run(*tmux, "send-keys", "C-o")
    eventually(lambda: "File Name to Write" in run(*tmux, "capture-pane", "-p"))
    run(*tmux, "send-keys", "Enter")
    eventually(lambda: "Wrote 1 line" in run(*tmux, "capture-pane", "-p"))
    assert contents(work) == {"file": b"zero one\n"}
    run(*tmux, "send-keys", "C-x")
    eventually(lambda: run(*tmux, "list-sessions", check=False).returncode != 0)
    assert os.listdir(work) == ["file"]


def test_zipfile(work, tree, run, tmp_path):
    python = shutil.which("python3")
    run(python, "-m", "zipfile", "-c", work / "tree.zip", tree)
    run(python, "-m", "zipfile", "-t", work / "tree.zip")
    run(python, "-m", "zipfile", "-e", work / "tree.zip", work / "out")
    run("diff", "-r", tree, work / "out" / "tree")
    with zipfile.ZipFile(work / "tree.zip", "a") as archive:
        archive.writestr("more", "more")
    shutil.copy(work / "tree.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "tree.zip") as archive:
        assert archive.read("more") == b"more"


def test_sqlite(work, run, mounted):
    python = shutil.which("python3")
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('CREATE TABLE IF NOT EXISTS t(x)');"
        "c.executemany('INSERT INTO t VALUES(?)', [(i,) for i in range(1000)]); c.commit();"
        "count, = c.execute('SELECT count(*) FROM t').fetchone();"
        "print(count, c.execute('PRAGMA integrity_check').fetchone()[0])"
    )
    assert run(python, "-c", script, work / "data.db") == "1000 ok\n"
    assert run(python, "-c", script, work / "data.db") == "2000 ok\n"
    mounted.remount()
    assert run(python, "-c", script, work / "data.db") == "3000 ok\n"


def test_make_and_shell_scripts(work, run):
    (work / "Makefile").write_text("out: in\n\ttr a-z A-Z < in > out\n")
    (work / "in").write_text("text\n")
    run("make", "--silent", cwd=work)
    assert (work / "out").read_text() == "TEXT\n"
    assert "up to date" in run("make", cwd=work)
    (work / "script").write_text('#!/bin/sh\necho "$0 ran"\n')
    run("chmod", "+x", work / "script")
    assert run(work / "script") == f"{work / 'script'} ran\n"
