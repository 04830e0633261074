"""Mounts of the contestants: started on a fresh cache, unmounted and ended whatever happens."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import PATIENCE, BenchError, end, last_words, running

COMMAND = Path(sys.executable).with_name("containerfs")
HUNG = 3600.0  # seconds after which a mount is killed, so that no call on it hangs for ever
_UNMOUNTING = 120.0  # seconds that a mount has to send what it still holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A running mount."""

    path: Path
    pid: int


@contextmanager
def containerfs(
    place: Path, *, base_url: str, certificate: Path | None = None, options: Sequence[str] = ()
) -> Iterator[Mount]:
    """Mount the API at *base_url*.

    Args:
        place: A directory that does not exist yet; everything of the mount is in it, and it is
            removed in the end.
        options: Further words of `containerfs mount`.
    """
    command = [str(COMMAND), "mount", "--base-url", base_url, "--cache-dir", str(place / "cache")]
    if certificate is not None:
        command += ["--ca-file", str(certificate)]
    with _mounted(place, [*command, *options, "openai:", str(place / "mnt")]) as mount:
        yield mount


@contextmanager
def rclone(place: Path, *, remote: Sequence[str], options: Sequence[str] = ()) -> Iterator[Mount]:
    """Mount a remote of rclone.

    Args:
        place: As for `containerfs`.
        remote: The remote and the options that it needs.
        options: Further words of `rclone mount`.
    """
    command = ["rclone", "mount", *remote, str(place / "mnt"), "--config", ""]
    command += ["--cache-dir", str(place / "cache"), *options]
    with _mounted(place, command) as mount:
        yield mount


def has_option(option: str) -> bool:
    """Whether `containerfs mount` has this option."""
    done = subprocess.run([COMMAND, "mount", "--help"], capture_output=True, text=True)
    return option in done.stdout


@contextmanager
def _mounted(place: Path, command: Sequence[str]) -> Iterator[Mount]:
    path = place / "mnt"
    for each in (place, place / "run", path):
        each.mkdir(mode=0o700)
    log = place / "log"
    try:
        with running(command, log=log, env=_environ(place)) as process:
            hung = threading.Timer(HUNG, process.kill)
            hung.daemon = True
            hung.start()
            try:
                _wait(path, process, log)
                yield Mount(path=path, pid=process.pid)
            finally:
                hung.cancel()
                end(process, patience=_UNMOUNTING)
    finally:
        _detach(path)
        shutil.rmtree(place, ignore_errors=True)


def _wait(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_mounted(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"no mount: {last_words(log)}")
        time.sleep(0.002)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted here. Looks at the kernel's table only."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == str(path) for line in table)


def _detach(path: Path) -> None:
    """Take off what a mount left behind."""
    while is_mounted(path):
        detach = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        done = subprocess.run([*detach, str(path)], capture_output=True)
        if done.returncode != 0:
            return


def _environ(place: Path) -> dict[str, str]:
    """A user of their own: no keys, no settings."""
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(place),
        "XDG_RUNTIME_DIR": str(place / "run"),
        "LC_ALL": "C.UTF-8",
        "NO_PROXY": "*",
        "OPENAI_API_KEY": "sk-benchmark",
    }
    with contextlib.suppress(KeyError):
        environ["TMPDIR"] = os.environ["TMPDIR"]
    return environ
