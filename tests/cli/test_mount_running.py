"""Mounts from their start to their end, by the command itself, on the embedded server."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from containerfs import mountpoint, mounts

COMMAND = [sys.executable, "-m", "containerfs"]
HELPER = [
    sys.executable,
    "-c",
    "from containerfs.cli.main import mount_helper; mount_helper()",
]


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "NO_PROXY": "*",
    }


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "mount"
    path.mkdir()
    yield path
    while mountpoint.at(path):
        mountpoint.detach(path)


@pytest.fixture
def source(tmp_path):
    return f"local:{tmp_path / 'data'}"


@pytest.fixture
def notified(tmp_path):
    """Waits for the next notification and returns it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(60)
        yield lambda: channel.recv(4096).decode()


@pytest.fixture
def run(environ):
    def run(*words: object, command=COMMAND, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, words)],
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def foreground(environ, directory, source, notified):
    """A mount in the foreground, ready to be used."""
    with subprocess.Popen(
        [*COMMAND, "mount", source, str(directory)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "READY=1" in notified().splitlines()
        yield process
        process.kill()


@pytest.fixture
def recorded_mount(directory, environ, monkeypatch):
    """Looks up who serves the directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", environ["XDG_RUNTIME_DIR"])
    return lambda: mounts.find(directory, owner=os.geteuid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_mount_in_order(foreground, directory, environ, number):
    (directory / "demo").mkdir()
    (directory / "demo" / "file").write_text("content")
    foreground.send_signal(number)
    _, said = foreground.communicate(timeout=60)
    assert (foreground.returncode, said) == (0, "")
    assert mountpoint.at(directory) is None
    assert list((Path(environ["XDG_RUNTIME_DIR"]) / "containerfs").iterdir()) == []


def test_it_says_what_is_mounted_where_and_what_to_try(foreground, directory, source):
    lines = [foreground.stdout.readline() for _ in range(4)]
    assert lines[0].startswith(f"{source} is mounted on {directory}; Ctrl-C unmounts it.")
    assert lines[1].split() == ["ls", str(directory)]
    assert lines[2].split()[:2] == ["mkdir", f"{directory}/demo"]


def test_in_the_background_the_caller_returns_when_it_is_mounted(
    run, directory, source, recorded_mount
):
    done = run("mount", "-d", source, directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (directory / "demo").mkdir()
    serving = recorded_mount()
    assert os.getsid(serving.pid) == serving.pid  # left the caller's session
    assert run("umount", directory).returncode == 0
    assert mountpoint.at(directory) is None
    assert recorded_mount() is None


def test_mount_and_fstab_get_a_mount_in_the_background(run, directory, source):
    done = run(source, directory, "-v", "-o", "rw,noauto,x-systemd.automount", command=HELPER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{source} is mounted on {directory}\n"
    (directory / "demo").mkdir()
    assert run("umount", directory).returncode == 0


def test_umount_waits_for_the_end_also_where_its_output_was_closed(
    run, directory, source, recorded_mount
):
    assert run("mount", "-d", source, directory).returncode == 0
    closed = ["/bin/sh", "-c", '"$@" >&- 2>&-', "sh", *COMMAND]
    assert run("umount", directory, command=closed).returncode == 0
    assert recorded_mount() is None


@pytest.mark.parametrize(("words", "may_be_run"), [("rw,noexec,user", False), ("rw,exec", True)])
def test_programs_are_run_from_a_mount_unless_fstab_says_noexec(
    run, directory, source, words, may_be_run
):
    assert run(source, directory, "-o", words, command=HELPER).returncode == 0
    (directory / "demo").mkdir()
    shutil.copy("/bin/true", directory / "demo" / "program")
    assert os.access(directory / "demo" / "program", os.X_OK) == may_be_run
    if may_be_run:
        subprocess.run([directory / "demo" / "program"], check=True)
    else:
        with pytest.raises(PermissionError):
            subprocess.run([directory / "demo" / "program"], check=True)
    assert run("umount", directory).returncode == 0


def test_a_killed_mount_is_healed_by_the_next_one(foreground, run, directory, source):
    (directory / "demo").mkdir()
    (directory / "demo" / "file").write_text("content")
    foreground.kill()
    foreground.wait()
    assert mountpoint.is_dead(directory)
    done = run("mount", "-d", source, directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert (directory / "demo" / "file").read_text() == "content"
    assert run("umount", directory).returncode == 0


def test_what_was_written_is_there_after_unmounting_and_mounting_again(run, directory, source):
    for content in ("first", "second"):
        assert run("mount", "-d", source, directory).returncode == 0
        (directory / "demo").mkdir(exist_ok=content == "second")
        (directory / "demo" / content).write_text(content)
        assert run("umount", directory).returncode == 0
    assert run("mount", "-d", source, directory).returncode == 0
    assert sorted(os.listdir(directory / "demo")) == ["first", "second"]
    assert run("umount", directory).returncode == 0


@pytest.mark.parametrize(("limit", "told"), [("512:4096", []), ("512:512", ["512"])])
def test_a_mount_takes_the_open_files_that_it_may_have_and_tells_where_they_are_few(
    run, directory, source, tmp_path, recorded_mount, limit, told
):
    limited = ["prlimit", f"--nofile={limit}", *COMMAND]
    log = tmp_path / "log"
    done = run("mount", "--daemon", f"--log-file={log}", source, directory, command=limited)
    assert done.returncode == 0, done.stderr
    limits = Path(f"/proc/{recorded_mount().pid}/limits").read_text()
    assert re.search(r"^Max open files +(\d+) +\1 ", limits, re.MULTILINE)
    assert run("umount", directory).returncode == 0
    assert re.findall("no more than ([0-9]+) files", log.read_text()) == told


def test_what_is_unsent_is_told_of_a_mount_that_hangs(foreground, run, directory):
    foreground.send_signal(signal.SIGSTOP)
    try:
        done = run("queue", directory)
    finally:
        foreground.send_signal(signal.SIGCONT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_live_mount_is_an_error_that_names_it(foreground, run, directory, source):
    done = run("mount", source, directory)
    assert done.returncode == 1
    assert done.stderr == (
        f"containerfs: {directory}: already mounted: {source}, by process {foreground.pid}\n"
    )


def test_a_read_only_mount_takes_no_changes(run, directory, source):
    assert run("mount", "-d", source, directory, "-o", "ro").returncode == 0
    with pytest.raises(OSError, match="Read-only file system"):
        (directory / "demo").mkdir()
    assert run("umount", directory).returncode == 0


@pytest.mark.parametrize(
    ("command", "words", "is_ro"),
    [
        (["mount", "-d"], ["-o", "ttl=5"], True),
        (["mount", "-d"], ["-o", "rw"], False),
        (["mount", "-d"], ["-o", "rw,ro"], True),
        ([], ["-o", "rw"], True),  # mount(8) says it always
        ([], ["-o", "rw,noro"], False),
    ],
)
def test_rw_undoes_a_ro_of_the_configuration_file_unless_mount_says_it(
    run, directory, source, tmp_path, command, words, is_ro
):
    (tmp_path / "config.toml").write_text("ro = true")
    caller = COMMAND if command else HELPER
    config = str(tmp_path / "config.toml")
    done = run(*command, source, directory, *words, command=caller, CONTAINERFS_CONFIG=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(os.statvfs(directory).f_flag & os.ST_RDONLY) == is_ro
    assert run("umount", directory).returncode == 0


@pytest.fixture
def closed_port():
    with socket.socket() as channel:
        channel.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield channel.getsockname()[1]


@pytest.mark.parametrize("how", [["mount"], ["mount", "-d"]], ids=["foreground", "background"])
def test_a_server_that_is_down_is_told_in_one_line(run, directory, closed_port, how):
    url = f"http://127.0.0.1:{closed_port}/v1"
    done = run(*how, directory, "--base-url", url, "--timeout", "1", OPENAI_API_KEY="sk-x")
    assert done.returncode == 1
    assert done.stderr.startswith("containerfs: ")
    assert done.stderr.count("\n") == 1
    assert "sk-x" not in done.stderr
    assert mountpoint.at(directory) is None


def test_a_wrong_key_is_told_in_one_line(run, directory, tmp_path, environ):
    (tmp_path / "key").write_text("right")
    (tmp_path / "key").chmod(0o600)
    serve = ["serve", "--data", str(tmp_path / "data"), "--port", "0", "--until-eof"]
    with subprocess.Popen(
        [*COMMAND, *serve, "--api-key-file", str(tmp_path / "key")],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        url = server.stdout.readline().removeprefix("listening on ").strip()
        done = run("mount", directory, "--base-url", url, OPENAI_API_KEY="wrong")
        server.communicate()
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "wrong" not in done.stderr
