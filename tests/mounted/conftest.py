"""Real mounts: the installed command in a process of its own, on a real server.

Fixtures:

`mount`
    Mounts: `mount(ttl=0, ...)` returns a `Mount` of the test's server. Options are those of
    `containerfs mount`. `server=` is another server, `cache=` another mount's cache directory,
    `key=` an API key, `ready=False` does not wait. All end with the test.

`shared_mount`, `box`
    A mount of `shared_server` for all tests of a module that don't disturb it, with default
    options; a new container in it for each test, as a path.

`counted`
    `counted(box)`: how many requests of each operation the server had for *box*, since the last
    time.

`uploads`
    `uploads()`: how many uploads and deletions there were in `box` since the last time.

`sent`
    `sent(box)`: what the server has of *box*, as `stored` tells it.

`tick`
    Returns when the clock that files' times are taken from has moved.

`fd`
    Opens: `fd(path, flags)`; closed with the test.

`try_mount`
    Runs `containerfs mount` with the given words and returns when it has failed.

`api`
    The official `openai` client on the test's server: what is true whatever the mount says.

`stored`
    `stored(container_id)`: every file that the server has, path below the data directory without
    the server's prefix, and content, read with the `openai` client. Of several with one path, all
    but the newest have their id added.

`run`
    Runs a tool: its output; a failure of the tool fails the test (`check=False`: the process).

`eventually`
    Waits for a condition that work in the background will make true.

`errno_of`
    `errno_of(os.mkdir, path)`: the name of the errno that a call fails with, or None.

A mount offers:

* `mount / "box"`: a path; `.path`, `.cache`, `.log`: what it has logged; `.pid`.
* `.expect(pattern)`: warnings and errors like this may be logged; any other fails the test.
* `.stop()`: SIGTERM, in order. `.kill()`: SIGKILL, leaving the mount point dead.
* `.remount(**options)`: stops it if it runs, and mounts again with the same cache.
"""

import errno
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from containerfs import mountpoint

CLOCK = 5  # linux/time.h CLOCK_REALTIME_COARSE
COMMAND = str(Path(sys.executable).with_name("containerfs"))
PATIENCE = 60  # seconds that anything may take
HUNG = 300  # seconds of one test after which a mount is killed, so that no call hangs for ever
HUNG_DEEP = 3600  # the same of a deep test
_ENTRY = re.compile(r"\d{4}-\d\d-\d\d \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
# What a program was told by an errno, too.
_TOLD = re.compile(r" WARNING containerfs\.fs\.kernel\.boundary: (?!\w+: no answer)")
_PREFIX = re.compile(r"(^|/)[0-9a-f]{32}-(?=[^/]+$)")


class Mount:
    """A mount process."""

    def __init__(self, directory: Path, *, words: list[str], env: dict[str, str], cache: Path):
        self.path = directory / "mnt"
        self.path.mkdir()
        self.cache = cache
        self._directory = directory
        self._words = words
        self._env = env | {"NOTIFY_SOCKET": str(directory / "notify")}
        self._expected: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._log = directory / "log"
        self._options: dict[str, Any] = {}
        self._patience = HUNG
        self._watchdog = threading.Timer(HUNG, lambda: None)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def expect(self, *patterns: str) -> None:
        self._expected += patterns

    def start(self, options: dict[str, Any]) -> None:
        self._options |= options
        self._listen()
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [
                    *(COMMAND, "mount", *self._words),
                    *(
                        f"--{name.replace('_', '-')}" + (f"={value}" if value is not True else "")
                        for name, value in self._options.items()
                    ),
                    str(self.path),
                ],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._feed()
        while (facts := self._facts()) is None:
            assert process.poll() is None, f"the mount failed: {self.log}"
        assert "READY=1" in facts

    def watch(self, test: pytest.Item | pytest.Module) -> None:
        """From now on it may run as long as *test* may."""
        self._patience = HUNG_DEEP if test.get_closest_marker("deep") else HUNG
        self._feed()

    def _feed(self) -> None:
        self._watchdog.cancel()
        if self._process is not None:
            self._watchdog = threading.Timer(self._patience, self._process.kill)
            self._watchdog.daemon = True
            self._watchdog.start()

    def _listen(self) -> None:
        """Be its systemd until it has ended."""
        if self._channel is None:
            self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._channel.bind(self._env["NOTIFY_SOCKET"])
            self._channel.settimeout(0.2)
        while self._facts(flags=socket.MSG_DONTWAIT):
            pass

    def _facts(self, *, flags: int = 0) -> list[str] | None:
        assert self._channel is not None
        try:
            return self._channel.recv(4096, flags).decode().splitlines()
        except (TimeoutError, BlockingIOError):
            return None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE + 60)
        self._watchdog.cancel()
        assert code == 0, f"exit code {code}: {self.log}"
        assert mountpoint.at(self.path) is None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        self._watchdog.cancel()

    def remount(self, **options: Any) -> "Mount":
        if self.is_running:
            self.stop()
        self.start(options)
        return self

    def close(self) -> None:
        """End it by all means."""
        try:
            if self.is_running:
                self.stop()
        finally:
            if self.is_running:
                self.kill()
            if self._channel is not None:
                self._channel.close()
            while mountpoint.at(self.path):
                mountpoint.detach(self.path)

    def unexpected(self) -> list[str]:
        """What is in the log that is neither harmless nor expected."""
        found = []
        bad = True
        for line in self.log.splitlines():
            entry = _ENTRY.match(line)
            if entry:
                harmless = (_TOLD, *self._expected)
                bad = entry[1] not in ("DEBUG", "INFO") and not any(
                    re.search(pattern, line) for pattern in harmless
                )
            if bad:
                found.append(line)
        return found


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return _environ(tmp_path)


def _environ(tmp_path: Path) -> dict[str, str]:
    """A user of their own: no keys, no settings."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "home").mkdir()
    return {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm",
        "NO_PROXY": "*",
        "CONTAINERFS_LOG_LEVEL": "info",
    }


@pytest.fixture
def command() -> str:
    """The installed command."""
    return COMMAND


@pytest.fixture
def mount(
    server: Any,
    environ: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Mount]]:
    with _mounting(server, environ, tmp_path_factory, request) as start:
        yield start


@pytest.fixture(scope="module")
def shared_mount(
    shared_server: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mount]:
    environ = _environ(tmp_path_factory.mktemp("user"))
    with _mounting(shared_server, environ, tmp_path_factory, request) as start:
        yield start()


@pytest.fixture
def tick() -> Callable[[], None]:
    def tick() -> None:
        before = time.clock_gettime_ns(CLOCK)
        while time.clock_gettime_ns(CLOCK) == before:
            pass

    return tick


@pytest.fixture
def fd() -> Iterator[Callable[..., int]]:
    opened: list[int] = []

    def fd(path: Path, flags: int, mode: int = 0o644) -> int:
        opened.append(os.open(path, flags, mode))
        return opened[-1]

    yield fd
    for each in opened:
        os.close(each)


@pytest.fixture
def box(shared_mount: Mount, request: pytest.FixtureRequest) -> Path:
    shared_mount.watch(request.node)  # it has served other tests
    path = shared_mount / secrets.token_hex(8)
    path.mkdir()
    return path


@pytest.fixture
def counted(shared_server: Any) -> Callable[[Path], dict[str, int]]:
    def counted(box: Path) -> dict[str, int]:
        container_id = os.getxattr(box, "user.containerfs.id").decode()
        found = [
            entry["operation"]
            for entry in shared_server.requests()
            if container_id in entry["path"]
        ]
        shared_server.forget_requests()
        return {each: found.count(each) for each in found}

    return counted


@pytest.fixture
def uploads(counted: Callable[[Path], dict[str, int]], box: Path) -> Callable[[], tuple[int, int]]:
    def uploads() -> tuple[int, int]:
        requests = counted(box)
        return requests.get("create_file", 0), requests.get("delete_file", 0)

    return uploads


@pytest.fixture
def sent(shared_server: Any) -> Callable[[Path], dict[str, bytes]]:
    def sent(box: Path) -> dict[str, bytes]:
        container_id = os.getxattr(box, "user.containerfs.id").decode()
        found: dict[str, bytes] = {}
        for file in shared_server.files(container_id):
            path = _PREFIX.sub(r"\1", file["path"].removeprefix("/mnt/data/"))
            content = f"/v1/containers/{container_id}/files/{file['id']}/content"
            status, _, data = shared_server.exchange("GET", content)
            if status != 404:  # it went meanwhile
                found[path if path not in found else f"{path}, {file['id']}"] = data
        return found

    return sent


@contextmanager
def _mounting(
    default: Any,
    environ: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Mount]]:
    mounts: list[Mount] = []

    def start(
        *, server: Any = None, cache: Path | None = None, key: str | None = None, **options: Any
    ) -> Mount:
        chosen = server or default
        directory = tmp_path_factory.mktemp("m")
        cache = cache or directory / "cache"
        env = environ | ({"OPENAI_API_KEY": key} if key else {})
        where = ["--uds", chosen.uds] if chosen.uds else ["--base-url", chosen.base_url]
        each = Mount(directory, words=[*where, f"--cache-dir={cache}"], env=env, cache=cache)
        mounts.append(each)
        each.watch(request.node)
        each.start(options)
        return each

    try:
        yield start
    finally:
        failures: list[Exception | AssertionError] = []
        for each in reversed(mounts):
            try:
                each.close()
            except (AssertionError, subprocess.TimeoutExpired, mountpoint.MountError) as exc:
                failures.append(exc)
        for each in mounts:
            if isinstance(request.node, pytest.Item):
                request.node.add_report_section("teardown", f"log of {each.path}", each.log)
    assert not failures, failures
    for each in mounts:
        assert not each.unexpected(), "\n".join(["logged unexpectedly:", *each.unexpected()])


@pytest.fixture
def try_mount(
    environ: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    path = tmp_path / "tried"
    path.mkdir()

    def attempt(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "mount", *map(str, words), str(path)],
            env=environ | {"CONTAINERFS_LOG_LEVEL": "warning"} | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    yield attempt
    assert mountpoint.at(path) is None


@pytest.fixture
def api(server: Any) -> Iterator[openai.OpenAI]:
    with (
        httpx.Client(transport=httpx.HTTPTransport(uds=server.uds)) as http_client,
        openai.OpenAI(
            base_url=server.base_url, api_key="sk-test", http_client=http_client, max_retries=0
        ) as client,
    ):
        yield client


@pytest.fixture
def stored(api: openai.OpenAI) -> Callable[[str], dict[str, bytes]]:
    def stored(container_id: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for file in api.containers.files.list(container_id, limit=100):
            path = _PREFIX.sub(r"\1", file.path.removeprefix("/mnt/data/"))
            try:
                content = api.containers.files.content.retrieve(file.id, container_id=container_id)
            except openai.NotFoundError:  # it went meanwhile
                continue
            found[path if path not in found else f"{path}, {file.id}"] = content.read()
        return found

    return stored


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    def run(
        *words: object,
        check: bool = True,
        cwd: Path | None = None,
        text: bool = True,
        patience: float = PATIENCE,
        **env: str,
    ) -> Any:
        done = subprocess.run(
            [os.fspath(word) if isinstance(word, Path | bytes) else str(word) for word in words],
            cwd=cwd or tmp_path,
            env=environ | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=text,
            timeout=patience,
        )
        if not check:
            return done
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def eventually() -> Callable[..., Any]:
    def eventually(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        turn = threading.Event()
        while not (found := condition()):
            assert time.monotonic() < deadline, "it never came true"
            turn.wait(0.02)
        return found

    return eventually


@pytest.fixture
def sync() -> Callable[[Path | str], None]:
    """Has the server hold what is open at a path or below it, as GNU's sync(1) does.

    Without a fork, as closing the copies of our descriptors would send them, too; and that of
    uutils, which Ubuntu 26.04 has, makes no call that a file system sees.
    """

    def sync(path: Path | str) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    return sync


@pytest.fixture
def errno_of() -> Callable[..., str | None]:
    def errno_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
        try:
            call(*args, **kwargs)
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
        return None

    return errno_of
