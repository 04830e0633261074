"""cp, tar, zip and rsync keep all of a tree, and find afterwards that nothing has changed."""

import os
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent / "containerfs"
LONG_AGO = 1_000_000_000_123_456_789  # nanoseconds


@pytest.fixture
def mounted(mount):
    """A mount with a container, for what is still so after a remount."""
    mounted = mount()
    (mounted / "box").mkdir()
    return mounted


@pytest.fixture
def project(tmp_path):
    """A source tree: this project's own, without what Python leaves in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PROJECT, tmp_path / "tree", ignore=ignore))


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


def files_below(directory):
    """Every file, by its path below *directory*."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


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


def test_a_copied_tree_compares_equal_everywhere(mounted, project, mount, run, stored, sync):
    box = mounted / "box"
    run("cp", "-r", project, box)
    run("diff", "-r", project, box / "tree")
    sync(box)  # empty files are sent after a moment
    run("diff", "-r", project, mount() / "box" / "tree")
    mounted.remount()
    run("diff", "-r", project, box / "tree")
    expected = {f"tree/{name}": data for name, data in files_below(project).items()}
    assert stored(os.getxattr(box, "user.containerfs.id").decode()) == expected


def test_cp_keeps_everything(mounted, tree, run, tmp_path):
    copy = mounted / "box" / "copy"
    run("cp", "-a", tree, copy)
    assert facts(copy) == facts(tree)
    assert os.getxattr(copy / "plain", "user.colour") == b"blue"
    mounted.remount()
    run("cp", "-a", copy, tmp_path / "back")
    assert facts(tmp_path / "back") == facts(tree)
    assert os.getxattr(tmp_path / "back" / "plain", "user.colour") == b"blue"
    run("diff", "-r", "--no-dereference", "--exclude=pipe", tree, tmp_path / "back")
    assert run("cp", "-auv", f"{tree}/dir/.", copy / "dir").count("->") == 0


def test_tar_keeps_everything_and_sees_no_change(mounted, tree, run, tmp_path):
    box = mounted / "box"
    run("tar", "-C", tree, "--format=posix", "-cf", box / "tree.tar", ".")
    (box / "out").mkdir()
    run("tar", "-C", box / "out", "-xpf", box / "tree.tar")
    assert facts(box / "out") == facts(tree)
    for _ in range(2):
        done = run("tar", "-C", box / "out", "-df", box / "tree.tar", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        again = run("tar", "-C", box, "-czf", box / "again.tgz", "out", check=False)
        assert (again.returncode, again.stderr) == (0, "")  # no "file changed as we read it"
        mounted.remount()
    run("tar", "-C", tmp_path, "-xzf", box / "again.tgz")
    run("diff", "-r", "--no-dereference", "--exclude=pipe", tree, tmp_path / "out")


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


def test_pythons_zipfile(box, project, run, tmp_path):
    tool = (sys.executable, "-m", "zipfile")
    run(*tool, "-c", box / "tree.zip", project)
    run(*tool, "-t", box / "tree.zip")
    run(*tool, "-e", box / "tree.zip", box / "out")
    run("diff", "-r", project, box / "out" / "tree")
    with zipfile.ZipFile(box / "tree.zip", "a") as archive:
        archive.writestr("more", "more")
    shutil.copy(box / "tree.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "tree.zip") as archive:
        assert archive.read("more") == b"more"


def test_rsync_transfers_once_what_does_not_change(mounted, tree, run, server, tmp_path, sync):
    box = mounted / "box"

    def changed(*words):
        return run("rsync", "-a", "-i", *words, f"{tree}/", f"{box}/copy/").splitlines()

    assert len(changed()) == len(facts(tree)) + 2  # "created directory", and the directory itself
    assert facts(box / "copy") == facts(tree)
    sync(box)  # empty files wait a moment
    server.forget_requests()
    assert changed() == []
    assert changed("--checksum") == []
    assert server.requests("content") == []
    mounted.remount()
    assert changed() == []
    assert server.requests("create_file") == []
    run("rsync", "-a", f"{box}/copy/", f"{tmp_path}/back/")
    assert run("rsync", "-a", "-i", f"{box}/copy/", f"{tmp_path}/back/") == ""
    assert facts(tmp_path / "back") == facts(tree)


@pytest.mark.parametrize(
    "how",
    [[], ["--inplace"], ["--append"], ["--append-verify"], ["--delete"]],
    ids=lambda how: "".join(how).strip("-"),
)
def test_rsync_brings_a_copy_up_to_date(box, tree, run, sent, how, sync):
    run("rsync", "-a", f"{tree}/", f"{box}/copy/")
    with (tree / "plain").open("ab") as writer:
        writer.write(b"more\n" * 1000)
    (tree / "dir" / "script").unlink()
    said = run("rsync", "-ai", "--no-whole-file", *how, f"{tree}/", f"{box}/copy/").splitlines()
    assert [line.split()[1] for line in said if line.startswith(">f")] == ["plain"]
    if "--delete" not in how:
        (box / "copy" / "dir" / "script").unlink()
    os.utime(tree / "dir", ns=(LONG_AGO, LONG_AGO))
    os.utime(box / "copy" / "dir", ns=(LONG_AGO, LONG_AGO))
    assert facts(box / "copy") == facts(tree)
    sync(box)
    assert sent(box)["copy/plain"] == (tree / "plain").read_bytes()
    assert set(sent(box)) == {"copy/plain", "copy/dir/none", "copy/dir/secret ä"}
