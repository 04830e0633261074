"""The fixtures of the mounted tests, for what the commands say of real mounts.

Beside them:

`on_terminal`
    `on_terminal("umount", path)`: starts the command with its standard error on a terminal; a
    `Process` with `.send_signal`, `.kill()`, `.shown_until(pattern)`, and `.end()`: its exit code
    and all that the terminal was shown.

`kept`
    A killed mount, `write_back` being long, whose container "box" has the unsent files "a" and "b".
"""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

_SHARED = ["environ", "command", "mount", "api", "stored", "run", "eventually", "errno_of"]
_mounted = run_path(str(Path(__file__).parent.parent / "mounted" / "conftest.py"))
globals().update({name: _mounted[name] for name in _SHARED})

PATIENCE = 60  # seconds that anything may take
SOON = 40  # seconds that an end may take; a mount by itself waits longer for what is unsent


class Process:
    """A command whose standard error is a terminal."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._shown = b""
        self.send_signal = self._process.send_signal

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, f"nothing more was shown after {self._shown!r}"
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # the terminal is closed: nobody has its other end
            return False
        self._shown += chunk
        return bool(chunk)

    @property
    def shown(self) -> str:
        return self._shown.decode()

    def shown_until(self, pattern: str) -> str:
        while not (found := re.search(pattern, self.shown)):
            assert self._read(), f"it ended without {pattern!r}: {self.shown}"
        return found[0]

    def end(self) -> tuple[int, str]:
        deadline = time.monotonic() + SOON
        while self._read():
            assert time.monotonic() < deadline, f"it does not end: {self.shown}"
        return self._process.wait(PATIENCE), self.shown

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        os.close(self._master)


@pytest.fixture
def on_terminal(command: str, environ: dict[str, str]) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def on_terminal(*words: object, **more: str) -> Process:
        started.append(Process([command, *map(str, words)], environ | more))
        return started[-1]

    yield on_terminal
    for process in started:
        process.close()


@pytest.fixture
def kept(mount: Callable[..., Any]) -> Any:
    mounted = mount(write_back=600)
    (mounted / "box").mkdir()
    (mounted / "box" / "a").write_bytes(b"first")
    (mounted / "box" / "b").write_bytes(b"second")
    mounted.kill()
    return mounted
