"""Mount points, good and bad: what `containerfs mount` and `containerfs umount` say of each.

The file systems here are empty ones, each served by a process of its own under containerfs's name.
"""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from containerfs import mountpoint, mounts

EMPTY_FILE_SYSTEM = """
import errno, os, stat, sys
from pathlib import Path
import pyfuse3, trio
from containerfs import mounts

class Empty(pyfuse3.Operations):
    async def getattr(self, inode, ctx):
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino, attributes.st_mode = inode, stat.S_IFDIR | 0o755
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        return attributes
    async def lookup(self, parent_inode, name, ctx):
        raise pyfuse3.FUSEError(errno.ENOENT)
    async def opendir(self, inode, ctx):
        return inode
    async def readdir(self, fh, start_id, token):
        return None

path = Path(sys.argv[1])
with mounts.recorded(path, source="local:/data", state_dir=path):
    pyfuse3.init(Empty(), str(path), {"fsname=containerfs", "subtype=containerfs"})
    print("mounted", flush=True)
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)
"""


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.fixture
def containerfs(environ, tmp_path):
    """Run the command; returns its exit code and what it said on standard error."""

    def run(*words: object, **more: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "containerfs", *map(str, words)],
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    return run


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "a directory"
    path.mkdir()
    yield path
    while mountpoint.at(path):
        mountpoint.detach(path)


@pytest.fixture
def mounted(directory, environ):
    """The process that serves an empty file system of ours on the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", EMPTY_FILE_SYSTEM, str(directory)],
        env=environ,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"mounted\n"
        yield process
        process.kill()


@pytest.fixture
def dead(mounted, directory):
    mounted.kill()
    mounted.wait()
    return directory


# Mounting.


def test_a_missing_directory(containerfs, tmp_path):
    missing = tmp_path / "missing"
    assert containerfs("mount", "local:", missing) == (
        1,
        f"containerfs: {missing}: no such file or directory\n",
    )


def test_a_file(containerfs, tmp_path):
    (tmp_path / "file").touch()
    code, said = containerfs("mount", "local:", tmp_path / "file")
    assert (code, said) == (1, f"containerfs: {tmp_path / 'file'}: not a directory\n")


@pytest.mark.parametrize("below", [".", "below", "below/deep"])
@pytest.mark.parametrize("what", ["cache", "data"])
def test_a_directory_that_would_hide_its_own_cache_or_data(
    containerfs, directory, tmp_path, what, below
):
    (tmp_path / "link").symlink_to(directory)
    place = tmp_path / "link" / below
    source, option = (
        (f"local:{place}", ()) if what == "data" else ("local:", ("--cache-dir", place))
    )
    code, said = containerfs("mount", *option, source, directory)
    assert (code, said) == (
        1,
        f"containerfs: {directory} would hide its own {what} directory, {place}\n",
    )
    assert list(directory.iterdir()) == []


def test_a_directory_that_has_entries(containerfs, directory):
    (directory / "entry").touch()
    code, said = containerfs("mount", "local:", directory)
    assert code == 1
    assert said == (
        f"containerfs: {directory}: the directory is not empty (-o nonempty mounts over it)\n"
    )


def test_a_directory_where_something_else_is_mounted(containerfs):
    assert containerfs("mount", "local:", "/proc") == (
        1,
        "containerfs: /proc: proc (proc) is mounted here\n",
    )


def test_a_live_mount_is_an_error_that_names_it(containerfs, directory, mounted):
    code, said = containerfs("mount", "local:", directory)
    assert code == 1
    assert said == (
        f"containerfs: {directory}: already mounted: local:/data, by process {mounted.pid}\n"
    )


@pytest.mark.usefixtures("mounted")
def test_a_live_mount_is_found_through_a_symbolic_link(containerfs, directory, tmp_path):
    (tmp_path / "link").symlink_to(directory)
    code, said = containerfs("mount", "local:", tmp_path / "link")
    assert (code, said.split(":")[1].strip()) == (1, str(directory))


def test_a_dead_mount_is_detached(dead):
    assert mountpoint.is_dead(dead)
    mountpoint.prepare(dead, nonempty=False)
    assert mountpoint.at(dead) is None
    assert os.listdir(dead) == []


def test_nothing_is_mounted_when_mount_is_asked_to_fake_it(environ, directory):
    helper = "from containerfs.cli.main import mount_helper; mount_helper()"
    words = ["local:", str(directory), "-sfnv", "-o", "rw,_netdev,ttl=5,unknown=1"]
    done = subprocess.run(
        [sys.executable, "-c", helper, *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert mountpoint.at(directory) is None


# The rest of the command line.


def test_a_missing_key_names_what_would_help(containerfs, directory):
    code, said = containerfs("mount", directory)
    assert code == 4
    assert said.count("\n") == 1
    assert all(word in said for word in ("OPENAI_API_KEY", "api_key_file", "local:"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["mount"], "expected [SOURCE] DIR"),
        (["mount", "openai:"], "expected [SOURCE] DIR"),
        (["mount", "a", "b", "c"], "expected [SOURCE] DIR"),
        (["mount", "s3:", "dir"], "unknown source 's3:'"),
        (["mount", "dir", "-o", "tll=5"], "unknown option tll (did you mean ttl?)"),
        (["mount", "dir", "-o", "ttl=soon"], "option ttl: 'soon' is not a duration"),
        (["mount", "dir", "--ttl", "soon"], "option ttl: 'soon' is not a duration"),
        (["mount", "dir", "--tll", "5"], "No such option"),
        (["mount", "dir", "--config", "/missing"], "/missing: no such file"),
        (["umount"], "Missing argument 'DIR'"),
        (["umount", "dir", "--timeout", "soon"], "'soon' is not a duration"),
        (["mout"], "no such command 'mout' (did you mean mount?)"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(containerfs, words, complaint):
    code, said = containerfs(*words)
    assert code == 2
    assert complaint in said
    assert said.count("\n") == 1


def test_a_wrong_variable_is_named(containerfs, directory):
    code, said = containerfs("mount", "local:", directory, CONTAINERFS_TTTL="1")
    assert code == 2
    assert "unknown variable CONTAINERFS_TTTL (did you mean CONTAINERFS_TTL?)" in said


def test_in_the_background_a_failure_is_reported_to_the_caller(containerfs, directory, tmp_path):
    (tmp_path / "data").write_text("not a directory")
    code, said = containerfs("mount", "-d", f"local:{tmp_path}/data", directory)
    assert code == 1
    assert said == f"containerfs: {tmp_path}/data: not a directory\n"
    assert mountpoint.at(directory) is None


@pytest.mark.parametrize("words", ["['--help']", "['mount', '--help']", "['umount', '--help']"])
def test_help_comes_without_importing_what_only_a_mount_needs(environ, words):
    program = f"""
import sys
from containerfs.cli.main import main
try:
    main({words})
except SystemExit:
    heavy = {{"httpx", "httpcore", "trio", "starlette", "uvicorn", "rich", "pyfuse3"}}
    sys.exit(f"imported: {{heavy & set(sys.modules)}}" if heavy & set(sys.modules) else 0)
"""
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=60)


# Unmounting.


def test_umount_returns_when_the_process_has_ended(containerfs, directory, mounted):
    assert containerfs("umount", directory) == (0, "")
    assert mountpoint.at(directory) is None
    assert mounted.wait(timeout=60) == 0


@pytest.mark.usefixtures("mounted")
def test_a_mount_in_use_is_not_unmounted(containerfs, directory):
    user = os.open(directory, os.O_RDONLY)
    try:
        code, said = containerfs("umount", directory)
    finally:
        os.close(user)
    assert code == 1
    assert said.startswith(f"containerfs: {directory}: in use by ")
    assert f"({os.getpid()})" in said
    assert mountpoint.at(directory).is_ours


def test_umount_detaches_a_dead_mount(containerfs, dead):
    assert containerfs("umount", dead) == (0, "")
    assert mountpoint.at(dead) is None


def test_umount_detaches_a_dead_mount_that_is_in_use(containerfs, mounted, directory):
    user = os.open(directory, os.O_RDONLY)
    try:
        mounted.kill()
        mounted.wait()
        assert containerfs("umount", directory) == (0, "")
        assert mountpoint.at(directory) is None
    finally:
        os.close(user)


def test_only_dead_mounts_are_detached_when_that_is_asked(containerfs, mounted, directory):
    assert containerfs("umount", "--dead", directory) == (0, "")
    assert mountpoint.at(directory).is_ours
    mounted.kill()
    mounted.wait()
    assert containerfs("umount", "--dead", directory) == (0, "")
    assert mountpoint.at(directory) is None
    assert containerfs("umount", "--dead", directory) == (0, "")


def test_a_mount_that_hangs_is_unmounted(containerfs, environ, mounted, directory):
    mounted.send_signal(signal.SIGSTOP)
    try:
        assert containerfs("umount", "--dead", directory) == (0, "")
        assert mountpoint.at(directory).is_ours
        words = [sys.executable, "-m", "containerfs", "umount", str(directory)]
        with open("/proc/self/mountinfo") as table:
            changes = select.poll()
            changes.register(table, select.POLLPRI)
            unmounting = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE)
            while mountpoint.at(directory) and unmounting.poll() is None:
                assert changes.poll(30_000), "it is still mounted"
    finally:
        mounted.send_signal(signal.SIGCONT)
    assert unmounting.communicate(timeout=60) == (None, b"")
    assert unmounting.returncode == 0


def test_umount_of_what_is_not_mounted(containerfs, directory):
    assert containerfs("umount", directory) == (
        1,
        f"containerfs: {directory}: nothing is mounted here\n",
    )


def test_umount_leaves_what_others_mounted(containerfs):
    assert containerfs("umount", "/proc") == (
        1,
        "containerfs: /proc: proc is mounted here, not containerfs\n",
    )


# Records of running mounts.


def test_a_mount_is_recorded_while_it_runs(tmp_path, environ, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", environ["XDG_RUNTIME_DIR"])
    with mounts.recorded(tmp_path, source="local:", state_dir=tmp_path):
        found = mounts.find(tmp_path, owner=os.geteuid())
        assert found.pid == os.getpid()
        assert found.source == "local:"
        assert mounts.find(tmp_path / "other", owner=os.geteuid()) is None
        assert mounts.find(tmp_path, owner=os.geteuid() + 1) is None
    assert mounts.find(tmp_path, owner=os.geteuid()) is None


def test_a_record_of_a_process_that_ended_means_nothing(dead, environ, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", environ["XDG_RUNTIME_DIR"])
    assert list(Path(environ["XDG_RUNTIME_DIR"]).rglob("*.json"))
    assert mounts.find(dead, owner=os.geteuid()) is None


def test_a_runtime_directory_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "containerfs").mkdir()
    (tmp_path / "containerfs").chmod(0o755)
    with pytest.raises(mountpoint.MountError, match="only its owner"):
        mounts.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})
