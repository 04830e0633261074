"""The fixtures of the mounted tests, for mounts that suffer.

Beside them:

`short`
    Options of a mount that waits for nothing longer than a few seconds.

`together`
    `together({name: call, ...})`: makes all calls at once; the name of each one's errno, or None.
    A call that is not answered although every limit has passed is "HANGS".

`id_of`
    The container's id, of its path.
"""

import errno
import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

_PATH = Path(__file__).parent.parent / "mounted" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("mounted_fixtures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_mounted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_mounted)

environ = _mounted.environ
command = _mounted.command
mount = _mounted.mount
try_mount = _mounted.try_mount
api = _mounted.api
stored = _mounted.stored
run = _mounted.run
eventually = _mounted.eventually
errno_of = _mounted.errno_of


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
