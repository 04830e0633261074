"""Processes of a run: started, waited for, and ended by their own id, however the run ends."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 30.0  # seconds that a server has to say that it is ready, or to end
LONGEST = 900.0  # seconds that one command of a job may take


class BenchError(Exception):
    """A run, or one contestant's part of it, can't go on; the message says why in one line."""


@contextmanager
def running(
    command: Sequence[str | os.PathLike[str]], *, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that a Ctrl-C reaches it through us only.

    Args:
        log: Gets everything that it says.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], *, patience: float = PATIENCE) -> None:
    """Return when it has ended: by SIGTERM, and by SIGKILL where that does not help."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(patience)


def said(process: subprocess.Popen[bytes], pattern: str, *, log: Path) -> str:
    """The first group of *pattern*, once the process has said it.

    Raises:
        BenchError: It ended, or did not say it in time.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := re.search(pattern, log.read_text(errors="replace"))):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{process.args[0]} did not start: {last_words(log)}")
        time.sleep(0.01)
    return found[1]


def last_words(log: Path) -> str:
    """The last line of a log."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def call(
    command: Sequence[str | os.PathLike[str]], *, cwd: Path | None = None, accepted: int = 0
) -> None:
    """Run a command of a job; its output goes nowhere.

    Args:
        accepted: The exit code that means success.

    Raises:
        BenchError: It failed, or took too long.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=LONGEST,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BenchError(str(exc)) from exc
    if done.returncode != accepted:
        words = done.stderr.decode(errors="replace").strip().splitlines()[:1]
        raise BenchError(f"{command[0]}: exit code {done.returncode}: {' '.join(words)}")
