"""What other users of the machine can see and do: nothing."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containerfs import accounts, mountpoint, mounts, unsent
from containerfs.accounts import Account, locked
from containerfs.cache.state import open_state
from containerfs.errors import LocalFault
from containerfs.mountpoint import MountError
from containerfs.upload.journal import Journal

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def modes(top: Path) -> dict[str, int]:
    found = {"": top.lstat().st_mode}
    for path in top.rglob("*"):
        found[str(path.relative_to(top))] = path.lstat().st_mode
    return found


def as_nobody(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool as another user, who gets into *cwd* by inheriting it."""
    return subprocess.run(
        words,
        cwd=cwd,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_all_that_a_mount_keeps_is_its_users_alone(shared_server, mount) -> None:
    old = os.umask(0)
    try:
        mounted = mount(shared_server)
    finally:
        os.umask(old)
    box = mounted.path / "private"
    box.mkdir()
    (box / "a").write_bytes(b"content")
    (box / "b~").write_bytes(b"stays here")
    for top in (mounted.cache, mounted.home.parent / "run"):
        for path, mode in modes(top).items():
            assert mode & 0o077 == 0, (path, oct(mode))
            wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
            assert stat.S_IMODE(mode) & 0o777 == wanted, (path, oct(mode))


@as_root
@pytest.mark.skipif(
    not os.path.exists("/dev/fuse") or os.stat("/dev/fuse").st_mode & 0o006 == 0o006,
    reason="everybody may open /dev/fuse here",
)
def test_who_may_not_open_the_device_is_told_what_it_needs() -> None:
    check = (
        "import os; from containerfs import mountpoint;"
        f"os.seteuid({NOBODY}); mountpoint.check_fuse(allow_other=False)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    said = done.stderr.splitlines()[-1]
    assert said.endswith(
        "/dev/fuse can't be opened: Permission denied: users need its mode to be 0666"
    )


@pytest.mark.parametrize("name", ["", "content", "spool"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755, 0o701])
def test_a_folder_that_others_can_enter_is_refused(tmp_path, name, mode) -> None:
    cache = tmp_path / "cache"
    with locked(cache / "account"):
        pass
    (cache / "account" / name).chmod(mode)
    with pytest.raises(LocalFault, match="yours alone"), locked(cache / "account"):
        pass


@pytest.mark.parametrize("name", ["", "content", "spool"])
def test_a_symbolic_link_in_the_place_of_a_folder_is_refused(tmp_path, name) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    account = tmp_path / "cache" / "account"
    (account / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    account.parent.chmod(0o700)
    if name:
        account.chmod(0o700)
    (account / name).symlink_to(other)
    with pytest.raises(LocalFault, match="yours alone"), locked(account):
        pass
    assert list(other.iterdir()) == []


@as_root
@pytest.mark.parametrize("name", ["..", "", "content", "spool"])
def test_a_folder_of_somebody_else_is_refused(tmp_path, name) -> None:
    account = tmp_path / "cache" / "account"
    with locked(account):
        pass
    os.chown(account / name, NOBODY, NOBODY)
    with pytest.raises(LocalFault, match="yours"), locked(account):
        pass


def test_a_cache_directory_that_others_can_write_to_is_refused(tmp_path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o1777)
    with pytest.raises(LocalFault, match="others must not write"), locked(cache / "account"):
        pass


@as_root
def test_somebody_elses_link_to_a_cache_directory_is_refused(tmp_path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with locked(tmp_path / "link" / "account"):
        pass  # one's own is fine
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    with pytest.raises(LocalFault, match="yours"), locked(tmp_path / "link" / "account"):
        pass


@pytest.mark.parametrize("name", [accounts.STATE, "lock", "mount.json.new"])
def test_no_file_is_written_through_a_symbolic_link(tmp_path, name) -> None:
    account = tmp_path / "cache" / "account"
    with locked(account):
        pass
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (account / name).unlink(missing_ok=True)
    (account / name).symlink_to(victim)
    try:
        with locked(account), open_state(account / accounts.STATE):
            accounts.remember(Account(directory=account, mountpoint="/mnt", source="openai:"))
    except LocalFault:
        assert name != "mount.json.new"
    assert victim.read_text() == "precious"


def test_the_runtime_directory_must_be_private(tmp_path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert stat.S_IMODE(mounts.runtime_dir(environ).stat().st_mode) == 0o700
    (tmp_path / "containerfs").chmod(0o750)
    with pytest.raises(MountError, match="only its owner"):
        mounts.runtime_dir(environ)
    (tmp_path / "containerfs").rmdir()
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "containerfs").symlink_to(tmp_path / "real")
    with pytest.raises(MountError):
        mounts.runtime_dir(environ)


@as_root
def test_after_su_the_runtime_directory_is_not_that_of_who_was_there_before(tmp_path) -> None:
    tmp_path.chmod(0o700)
    tmp_path.parent.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        found = mounts.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})
        assert found.stat().st_uid == NOBODY
    finally:
        os.seteuid(0)


def test_a_runtime_directory_that_is_not_there_is_done_without(tmp_path) -> None:
    found = mounts.runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path / "gone")})
    assert found.stat().st_uid == os.geteuid()


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_nobody_mounts_on_a_directory_of_somebody_else(tmp_path, monkeypatch, mode) -> None:
    theirs = Path("theirs")  # to which its parents need not be open
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    theirs.mkdir()
    theirs.chmod(mode)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(MountError, match="not yours"):
            mountpoint.prepare(theirs, nonempty=False)
    finally:
        os.seteuid(0)


@as_root
def test_what_somebody_else_mounted_is_not_unmounted_and_they_are_named(
    shared_server, mount
) -> None:
    mounted = mount(shared_server)
    os.seteuid(NOBODY)
    try:
        for end in (mountpoint.unmount, mountpoint.detach):
            with pytest.raises(MountError, match="user 0, who mounted it"):
                end(mounted.path)
    finally:
        os.seteuid(0)
    assert mountpoint.at(mounted.path).is_ours


def test_an_export_of_a_container_with_a_hostile_id_stays_in_its_directory(tmp_path) -> None:
    account = Account(directory=tmp_path / "cache" / "a", mountpoint="/mnt", source="openai:")
    ids = ["../../out", f"{tmp_path}/out", "..", ".", "a/../../out"]
    with locked(account.directory), open_state(account.directory / accounts.STATE) as state:
        journal = Journal(state.connection)
        for number, id in enumerate(ids):
            spool = f"{number:032x}"
            (account.directory / "spool" / spool).write_bytes(b"x")
            journal.begin(container_id=id, path="out", spool=spool, replaces=(), held=False)
    for each in unsent.find(account):
        top, _, rest = each.path.partition("/")
        assert (rest, top in (".", "..")) == ("out", False)
        assert os.path.normpath(tmp_path / each.path).startswith(f"{tmp_path}/")


@as_root
def test_other_users_are_not_let_in(shared_server, mount) -> None:
    mounted = mount(shared_server)
    box = mounted.path / "closed"
    box.mkdir()
    (box / "a").write_bytes(b"secret content")
    (box / "a").chmod(0o666)
    mounted.path.parent.chmod(0o755)
    for words in (["ls", "mnt"], ["stat", "mnt/closed"], ["cat", "mnt/closed/a"]):
        done = as_nobody(*words, cwd=mounted.path.parent)
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
        assert "secret" not in done.stdout


@as_root
def test_allow_other_lets_others_do_what_modes_allow(shared_server, mount) -> None:
    mounted = mount(shared_server, "--allow-other", "--umask=022")
    box = mounted.path / "open"
    box.mkdir()
    for name, mode in {"public": 0o644, "private": 0o600}.items():
        (box / name).write_bytes(b"content")
        (box / name).chmod(mode)
    mounted.path.parent.chmod(0o755)

    def tried(*words: str) -> int:
        return as_nobody(*words, cwd=mounted.path.parent).returncode

    assert tried("cat", "mnt/open/public") == 0
    for words in (
        ("cat", "mnt/open/private"),
        ("rm", "-f", "mnt/open/public"),
        ("cp", "/dev/null", "mnt/open/public"),
        ("touch", "mnt/open/new"),
        ("mkdir", "mnt/another"),
        ("chmod", "777", "mnt/open/private"),
        ("rmdir", "mnt/open"),
    ):
        assert tried(*words) != 0, words
    assert sorted(os.listdir(box)) == ["private", "public"]


@as_root
def test_the_socket_of_the_embedded_server_answers_only_its_owner(server) -> None:
    assert stat.S_IMODE(os.stat(server.uds).st_mode) == 0o600
    directory = Path(server.uds).parent
    directory.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(server.uds)
    pid = os.fork()
    if pid == 0:  # another user, in that directory
        code = 1
        try:
            os.chdir(directory)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            socket.socket(socket.AF_UNIX).connect("socket")
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Secrets.


def children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in path.read_text().split()]
    return found


def test_the_key_is_in_no_command_line_no_child_and_no_attribute(shared_server, mount, key) -> None:
    mounted = mount(shared_server)
    box = mounted.path / "keyless"
    box.mkdir()
    (box / "a").write_bytes(b"content")
    assert key.encode() not in Path(f"/proc/{mounted.pid}/cmdline").read_bytes()
    for path in (box, box / "a"):
        for attribute in os.listxattr(path):
            assert key.encode() not in os.getxattr(path, attribute)
    for path in mounted.cache.rglob("*"):
        assert key not in path.name
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
    table = Path("/proc/self/mountinfo").read_text()
    assert key not in table


def test_a_local_mounts_server_is_given_no_key(tmp_path, key) -> None:
    with subprocess.Popen(
        [
            str(Path(sys.executable).with_name("containerfs")),
            *("mount", f"local:{tmp_path}/data", f"--cache-dir={tmp_path}/cache"),
            str(_made(tmp_path / "mnt")),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_API_KEY": key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        started = children(process.pid)
        seen = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in started for name in FACTS]
        process.terminate()
        said = b"".join(process.communicate(timeout=60))
    assert started
    assert all(key.encode() not in text for text in (*seen, said))


FACTS = ("environ", "cmdline")


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_programs_that_are_started_are_given_no_key(tmp_path, key) -> None:
    tool = tmp_path / "key-command"
    tool.write_text(f'#!/bin/sh\nenv > "{tmp_path}/env"\necho sk-from-the-command\n')
    tool.chmod(0o700)
    done = _containerfs(
        tmp_path,
        *("containers", "list", "--base-url=http://127.0.0.1:9/v1", "--timeout=0.1"),
        f"--api-key-command={tool}",
        OPENAI_API_KEY=key,
        OPENAI_CUSTOM_HEADERS=f"X-Secret: {key}",
    )
    assert done.returncode == 1
    assert "PATH=" in (tmp_path / "env").read_text()
    assert key not in (tmp_path / "env").read_text()
    assert "sk-" not in done.stdout + done.stderr


def test_no_core_is_dumped(shared_server, mount) -> None:
    limits = Path(f"/proc/{mount(shared_server).pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4] == "0"


@pytest.mark.parametrize("answer", ["message", "header", "line", "name"])
@pytest.mark.parametrize(
    "words",
    [
        ["containers", "list"],
        ["containers", "retrieve", "c"],
        ["containers", "delete", "c"],
        ["containers:files", "list", "c"],
        ["containers:files:content", "retrieve", "c", "f"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_repeats_the_key(hostile, tmp_path, key, words, answer) -> None:
    error = {"error": {"message": f"Incorrect API key provided: {key}", "code": key}}
    answers: dict[str, Callable[[Any], Any]] = {
        "message": lambda _: hostile.json(error, 401),
        "header": lambda _: hostile.json({}, 500, x_request_id=key, x_should_retry="false"),
        "line": lambda _: [f"HTTP/1.1 200 OK\r\n{key}\r\n\r\n".encode()],
        "name": lambda _: hostile.json({}, 302, location=f"http://{key}.invalid/{key}?{key}"),
    }
    hostile.answer = answers[answer]
    where = [f"--base-url={hostile.base_url}", "--timeout=0.3"]
    done = _containerfs(tmp_path, *words, *where, OPENAI_API_KEY=key)
    assert done.returncode in (1, 4)
    assert "sk-canary-" not in (done.stdout + done.stderr).lower()
    assert "Traceback" not in done.stderr


def test_a_mount_logs_no_key_whatever_the_server_says(hostile, mount, key) -> None:
    mounted = mount(hostile, "--ttl=0", "--timeout=0.3")
    hostile.containers = [{"id": key, "name": key}]
    hostile.files = [{"id": key, "path": f"/mnt/data/{key}", "bytes": 5}]
    hostile.content = b"not five bytes"
    for answer in (
        hostile.serve,
        lambda _: hostile.json({"error": {"message": f"wrong {key}"}}, 401),
        lambda _: hostile.json({}, 500, x_request_id=key),
        lambda _: [f"HTTP/1.1 200 OK\r\n{key}\r\n\r\n".encode()],
        hostile.serve,
    ):
        hostile.answer = answer
        for directory, _, names in os.walk(mounted.path):
            for name in names:
                try:
                    Path(directory, name).read_bytes()
                except OSError:
                    continue
    assert "[key]" in mounted.log  # and `mount` looks for the key itself


def _containerfs(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("containerfs")), *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "NO_PROXY": "*"} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
