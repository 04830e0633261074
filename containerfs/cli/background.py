"""Leaves the terminal: the work goes on in the background once it is under way.

The caller's process waits until the work is ready, or has failed; then what was said on standard
error is said by the caller too.
"""

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Ready = Callable[[], None]


def run_in_background(work: Callable[[Ready], int], *, log_file: Path | None) -> int:
    """Run `work` in a process of its own; returns its exit code, or 0 as soon as it is ready.

    Must be called before any thread or event loop is started: it forks.

    Args:
        work: Calls its argument when it is ready, and returns an exit code.
        log_file: Where standard error goes from then on; None for nowhere.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _be_the_child(work, writer, said, log_file)
        os.close(writer)
        try:
            is_ready = os.read(reader, 1) != b""
        except KeyboardInterrupt:
            os.kill(child, signal.SIGTERM)
            raise
        finally:
            os.close(reader)
        code = 0 if is_ready else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        sys.stderr.write(said.read().decode(errors="replace"))
        return 128 - code if code < 0 else code  # as a shell counts: 128 + the signal's number


def _be_the_child(
    work: Callable[[Ready], int], writer: int, said: BinaryIO, log_file: Path | None
) -> None:
    """Do the work, and end the process: the caller's stack is not ours to unwind."""
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(said.fileno(), 2)

        def ready() -> None:
            target = null
            if log_file is not None:
                target = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            sys.stderr.flush()
            os.dup2(target, 2)
            os.write(writer, b"1")
            os.close(writer)

        code = work(ready)
    except BaseException:  # whatever it is, this process ends here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)
