"""The embedded server as a child process, for as long as somebody needs it.

Should it end meanwhile, killed where memory is short for instance, it is started again. It listens
on a Unix socket in a private directory, and ends when its standard input does: it can't outlive
this process, however that ends. It is given neither keys nor settings of ours.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

import containerfs
from containerfs.mountpoint import MountError
from containerfs.relaying import relay

log = logging.getLogger(__name__)

_START = 30.0  # seconds until it must listen
_STOP = 5.0  # seconds until it is told more firmly to end
_WAITS = (0.1, 1.0, 5.0, 30.0)  # seconds from an end that nobody asked for to the next start
_LONGEST_SOCKET = 100  # bytes; the kernel's limit is 107
Pipe = TypeVar("Pipe", bound=trio.abc.AsyncResource)
_OURS = ("OPENAI_", "CONTAINERFS_", "NOTIFY_SOCKET")


@asynccontextmanager
async def running(*, data: Path, runtime_dir: Path) -> AsyncIterator[Path]:
    """Run the server; yields the path of its socket once it listens.

    Args:
        data: Where it keeps its data; made (0700) if missing.
        runtime_dir: A private directory for the socket's own one.

    Raises:
        MountError: It did not start; the message ends with what it said last.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise MountError(f"{data}: not a directory") from error
    except OSError as error:
        raise MountError(f"{data}: {error.strerror}") from error
    directory = _private_directory(runtime_dir)
    try:
        socket = directory / "socket"
        failure: MountError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(_keep_running, _command(socket=socket, data=data))
            except MountError as error:  # raised below, outside of the nursery's group
                failure = error
            else:
                yield socket
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _command(*, socket: Path, data: Path) -> list[str]:
    serve = [sys.executable, "-P", "-m", "containerfs", "serve", "--until-eof"]
    # The data is its owner's, kept for ever: no clock deletes it.
    return [*serve, "--behaviour", "expiry=off", "--uds", str(socket), "--data", str(data)]


def _private_directory(runtime_dir: Path) -> Path:
    """A directory (0700) whose name is short enough for a socket in it."""
    places = (runtime_dir, "server"), (Path("/tmp"), "containerfs-server")  # noqa: S108 - made anew
    for above, name in places:
        _remove_left(above, name)
    for above, name in places:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-{os.getpid()}-", dir=above))
        if len(os.fsencode(directory)) + len("/socket") <= _LONGEST_SOCKET:
            break
        directory.rmdir()
    return directory


def _remove_left(above: Path, name: str) -> None:
    """Remove the directories there of mounts of this user that were killed."""
    for left in above.glob(f"{name}-*-*"):
        with suppress(OSError):  # another mount, which begins too, removed it
            is_ours = left.lstat().st_uid == os.geteuid()
            if is_ours and not Path("/proc", left.name.split("-")[-2]).exists():
                shutil.rmtree(left, ignore_errors=True)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours without keys and settings, and with the code that runs here."""
    code = [str(Path(containerfs.__file__).parent.parent), environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, code))}


async def _wait_until_ready(process: trio.Process) -> None:
    """Return when the server has said that it listens."""
    output, errors = _pipe(process.stdout), _pipe(process.stderr)
    said = b""
    with trio.move_on_after(_START):
        while not (said.startswith(b"listening on ") and b"\n" in said):
            chunk = await output.receive_some()
            if not chunk:
                break  # it has ended, or is about to
            said += chunk
        else:
            return
    complaint = b""
    with trio.move_on_after(_STOP):
        async for chunk in errors:
            complaint = (complaint + chunk)[-4096:]
    lines = complaint.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    reason = lines[-1].removeprefix("containerfs: ")
    raise MountError(f"the embedded server did not start: {reason}")


async def _keep_running(
    command: list[str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the server again and again; started once it listens for the first time.

    Raises:
        MountError: It did not start the first time.
    """
    begun = trio.current_time()
    await _run(command, task_status)
    waits = iter(_WAITS)
    while True:
        if trio.current_time() - begun > _WAITS[-1]:
            waits = iter(_WAITS)  # it was well for long
        await trio.sleep(next(waits, _WAITS[-1]))
        begun = trio.current_time()
        try:
            await _run(command)
        except (MountError, OSError) as error:
            log.error("the embedded server does not start: %s", error)


async def _run(
    command: list[str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the server until it ends."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us: we stop it when nothing needs it any more
        env=_environment(os.environ),
    )
    try:
        await _wait_until_ready(process)
        task_status.started()
        async with trio.open_nursery() as nursery:
            for stream in (process.stdout, process.stderr):
                nursery.start_soon(partial(relay, _pipe(stream), log, who="embedded server"))
            code = await process.wait()
        log.error("the embedded server has ended with code %s; it is started again", code)
    finally:
        await _stop(process)


async def _stop(process: trio.Process) -> None:
    """End the server: ask, then tell, then make."""
    with trio.CancelScope(shield=True):
        await _pipe(process.stdin).aclose()
        for end in (process.terminate, process.kill):
            with trio.move_on_after(_STOP):
                await process.wait()
                return
            end()
        await process.wait()


def _pipe(stream: Pipe | None) -> Pipe:
    """One of the child's streams; all three were opened as pipes."""
    if stream is None:
        raise TypeError("the child was not started with pipes")
    return stream
