"""The fixtures of the mounted tests, for mounts that suffer.

Beside them:

`mounted`
    A mount with short limits: whatever the server does, each call is answered within `LIMIT`.

`id_of`
    The container's id, of its path.

`answered`
    `answered(call, *args)`: the name of the errno of a call that must be answered within the
    limits, or None.
"""

import importlib.util
import os
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


@pytest.fixture
def id_of() -> Callable[[Path], str]:
    return lambda box: os.getxattr(box, "user.containerfs.id").decode()
