"""Which process serves which mount point: a small file for each running mount.

They live in a private directory of the mounting user that does not survive a reboot. A record whose
process is gone means nothing; a process is known by its id and the time it started.
"""

import hashlib
import json
import os
import select
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from containerfs.mountpoint import MountError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mount:
    """A running mount, as it was recorded."""

    pid: int
    started: int  # clock ticks since boot: a process id alone may be another process by now
    mountpoint: str
    source: str
    state_dir: str  # the folder of the account that it serves
    patience: float | None = None  # seconds that its end may wait for what is unsent, if told


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Record:
    """A mount, and the file that says so."""

    path: Path
    mount: Mount


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The private directory (0700) for what does not outlive the session; made if missing.

    Raises:
        MountError: It is not ours alone.
    """
    path = _runtime_dirs(os.geteuid(), environ)[0]
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise MountError(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise MountError(f"{path}: not a directory that only its owner, this user, can enter")
    return path


@contextmanager
def recorded(mountpoint: Path, *, source: str, state_dir: Path) -> Iterator[None]:
    """Record that this process serves the mount point, until a clean stop."""
    pid = os.getpid()
    started = _started(pid) or 0
    mount = Mount(
        pid=pid,
        started=started,
        mountpoint=str(mountpoint),
        source=source,
        state_dir=str(state_dir),
    )
    path = runtime_dir() / _name(mountpoint)
    _write(_Record(path=path, mount=mount))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write(record: _Record) -> None:
    """Put it in the place of what was there."""
    draft = record.path.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)  # left by a process of the same number
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(draft, flags, 0o600), "w") as file:
        json.dump(asdict(record.mount), file)
    draft.replace(record.path)


def find(mountpoint: Path, *, owner: int) -> Mount | None:
    """The running mount on this path, as far as it is recorded.

    Args:
        owner: User id of who mounted it; only that user's own processes are believed.
    """
    record = _running(mountpoint, owner=owner)
    return record.mount if record else None


def last(mountpoint: Path) -> Mount | None:
    """The mount of this user that runs on this path, or was the last and did not end in order."""
    owner = os.geteuid()
    records = [each.mount for each in _records(mountpoint, owner=owner)]
    return find(mountpoint, owner=owner) or next(iter(records), None)


def be_patient(mountpoint: Path, seconds: float | None) -> None:
    """Tell this user's mount on this path how long its end may wait for what is unsent.

    Args:
        seconds: None for as long as it would by itself.
    """
    record = _running(mountpoint, owner=os.geteuid())
    if record is not None:
        with suppress(OSError):  # then it waits as long as it would by itself
            _write(replace(record, mount=replace(record.mount, patience=seconds)))


def _running(mountpoint: Path, *, owner: int) -> _Record | None:
    records = _records(mountpoint, owner=owner)
    return next((each for each in records if _is_running(each.mount, owner=owner)), None)


def _records(mountpoint: Path, *, owner: int) -> Iterator[_Record]:
    """What that user recorded of this path, in any of the places for it."""
    for directory in _runtime_dirs(owner, os.environ):
        path = directory / _name(mountpoint)
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
                recorder = os.fstat(file.fileno()).st_uid
                mount = Mount(**json.load(file))
        except (OSError, ValueError, TypeError):
            continue
        if recorder == owner and mount.mountpoint == str(mountpoint):
            yield _Record(path=path, mount=mount)


def _is_running(mount: Mount, *, owner: int) -> bool:
    try:
        is_owners = os.stat(f"/proc/{mount.pid}").st_uid == owner
    except OSError:
        return False
    return is_owners and _started(mount.pid) == mount.started


def wait_until_gone(mount: Mount, *, timeout: float | None) -> bool:
    """Wait for the mount's process to end; False when it still runs after `timeout` seconds."""
    try:
        process = os.pidfd_open(mount.pid)
    except ProcessLookupError:
        return True
    try:
        if _started(mount.pid) != mount.started:
            return True
        return bool(select.select([process], [], [], timeout)[0])
    finally:
        os.close(process)


def _runtime_dirs(uid: int, environ: Mapping[str, str]) -> list[Path]:
    """Where a user's directory may be; the first is where this environment puts it.

    After su, the environment may name the directory of who was somebody else before.
    """
    session = Path(f"/run/user/{uid}")
    named = environ.get("XDG_RUNTIME_DIR", "") if uid == os.geteuid() else ""
    bases = [Path(named)] if os.path.isabs(named) and _is_open(named) else []
    bases += [session] if session.is_dir() else []
    return [base / "containerfs" for base in bases] + [Path(f"/tmp/containerfs-{uid}")]  # noqa: S108 - its owner and mode are checked


def _is_open(directory: str) -> bool:
    """Whether this user can make something in it."""
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)


def _name(mountpoint: Path) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:32] + ".json"


def _started(pid: int) -> int | None:
    """When a process started; None when it has ended. Source: proc(5), /proc/pid/stat."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *others = fields.rpartition(")")[2].split()
    return None if state in "ZX" else int(others[18])  # a zombie only waits for its parent
