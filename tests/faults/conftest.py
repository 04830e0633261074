"""The fixtures of the mounted tests, for mounts that suffer.

Beside them:

`short`
    Options of a mount that waits for nothing longer than a few seconds.

`together`
    `together({name: call, ...})`: makes all calls at once; the name of each one's errno, or None.
    A call that is not answered although every limit has passed is "HANGS".

`id_of`
    The container's id, of its path.

`write`
    `write(path, data)`: writes and closes; the error of either is the call's.

`sync`
    `sync(directory)`: returns when the server has all of it.
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import pytest

_SHARED = {
    "environ",
    "command",
    "mount",
    "try_mount",
    "api",
    "stored",
    "run",
    "eventually",
    "errno_of",
}
_mounted = run_path(str(Path(__file__).parent.parent / "mounted" / "conftest.py"))
globals().update({name: _mounted[name] for name in _SHARED})

SHORT = {"op_timeout": 3, "timeout": 2, "transfer_timeout": 2}
LONG = 20  # seconds after which a call with SHORT limits is not answered any more


@pytest.fixture
def short() -> dict[str, float]:
    return dict(SHORT)


@pytest.fixture
def together() -> Callable[[dict[str, Callable[[], object]]], dict[str, str | None]]:
    def together(calls: dict[str, Callable[[], object]]) -> dict[str, str | None]:
        answers: dict[str, str | None] = dict.fromkeys(calls, "HANGS")

        def make(name: str, call: Callable[[], object]) -> None:
            try:
                call()
                answers[name] = None
            except OSError as exc:
                answers[name] = errno.errorcode[exc.errno or 0]

        threads = [threading.Thread(target=make, args=pair, daemon=True) for pair in calls.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        return answers

    return together


@pytest.fixture
def id_of() -> Callable[[Path], str]:
    return lambda box: os.getxattr(box, "user.containerfs.id").decode()


@pytest.fixture
def write() -> Callable[[Path, bytes], None]:
    def write(path: Path, data: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            file.write(data)

    return write


@pytest.fixture
def sync() -> Callable[[Path], None]:
    def sync(directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    return sync
