"""A directory that a file system is, or will be, mounted on.

Looks at the kernel's table of mounts, so that neither a dead nor a hanging file system holds it up,
and detaches what is dead. Everything wrong with a mount point is a `MountError`, in one line.
"""

import errno
import os
import re
import stat
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from containerfs.errors import FileSystemError

FILE_SYSTEM = "fuse.containerfs"
READ_AHEAD = "1024"  # KiB; the most that one request of the kernel asks for
_PATIENCE = 5.0  # seconds that a live file system has to answer
_LOOKING = 2.0  # seconds in which those are found who use it


class MountError(FileSystemError):
    """This can't be mounted, or unmounted; the message says why in one line."""


class AlreadyMountedError(MountError):
    """A living mount of ours is there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mounted:
    """What the kernel has mounted on a directory."""

    path: Path
    file_system: str  # "ext4", "fuse.containerfs"
    source: str
    device: str  # "0:77": its number, as sysfs has it
    owner: int  # user id of who mounted it; 0 where the file system does not say

    @property
    def is_ours(self) -> bool:
        """Whether containerfs mounted it."""
        return self.file_system == FILE_SYSTEM


def locate(directory: Path) -> Path:
    """The absolute path without symbolic links, as the kernel's table has it.

    A mounted directory itself is not looked at: its file system may be dead or hang.
    """
    path = Path(os.path.realpath(directory.absolute().parent)) / directory.absolute().name
    return path if at(path) else Path(os.path.realpath(directory))


def at(path: Path) -> Mounted | None:
    """What is mounted on exactly this path; the uppermost where several are."""
    found = [line for line in _table() if _unescape(line.split(" ", 5)[4]) == str(path)]
    return _parse(found[-1]) if found else None


def _table() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return list(table)


def read_far_ahead(path: Path) -> None:
    """Have the kernel read a mebibyte at a time for who reads in order, an eighth of the requests.

    Only root may tell it so; for others it stays at what libfuse can ask for.

    Source: the kernel's Documentation/ABI/testing/sysfs-class-bdi.
    """
    mounted = at(path)
    if mounted is not None:
        with suppress(OSError):
            Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb").write_text(READ_AHEAD)


def is_dead(path: Path) -> bool:
    """Whether the process that served the file system on this path is gone.

    One that does not answer in time counts as alive.
    """
    answer: list[int | None] = []

    def look() -> None:
        try:
            os.statvfs(
                path
            )  # always asks the process; stat may be answered from the kernel's cache
        except OSError as error:
            answer.append(error.errno)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_PATIENCE)
    return errno.ENOTCONN in answer


def detach(path: Path) -> None:
    """Take a dead file system off its directory, also while somebody still uses it.

    Raises:
        MountError: Somebody else mounted it, or the system did not let us.
    """
    _check_may_unmount(path)
    _run(["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"], path)


def unmount(path: Path) -> None:
    """Unmount a file system that nobody uses, also while its process hangs.

    Args:
        path: As `locate` returned it: umount looks for no links in it, which would wait for it.

    Raises:
        MountError: It is in use, somebody else mounted it, or the system did not let us.
    """
    _check_may_unmount(path)
    _run(["umount", "--no-canonicalize"] if os.geteuid() == 0 else ["fusermount3", "-u"], path)


def _check_may_unmount(path: Path) -> None:
    """fusermount3 says of what somebody else mounted that nothing is mounted."""
    mounted = at(path)
    if mounted is not None and os.geteuid() not in (0, mounted.owner):
        raise MountError(f"{path}: only root and user {mounted.owner}, who mounted it, can do that")


def prepare(path: Path, *, nonempty: bool) -> None:
    """Check that containerfs can be mounted on this directory; detach a dead mount of ours.

    Args:
        path: As `locate` returned it.
        nonempty: Whether the directory may have entries.

    Raises:
        AlreadyMountedError: By a process of ours that lives.
        MountError: Something else is mounted there, or it is not an empty directory, or not one
            that this user may mount on.
    """
    mounted = at(path)
    if mounted is not None:
        if not mounted.is_ours:
            raise MountError(f"{path}: {mounted.file_system} ({mounted.source}) is mounted here")
        if not is_dead(path):
            raise AlreadyMountedError(f"{path}: already mounted")
        detach(path)
        return prepare(path, nonempty=nonempty)  # there may be another one below
    try:
        with os.scandir(path) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        raise MountError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not is_empty and not nonempty:
        raise MountError(f"{path}: the directory is not empty (-o nonempty mounts over it)")
    if os.geteuid() != 0 and not _is_for_users(path):
        raise MountError(
            f"{path}: only root can mount on a directory that is not yours to write to"
        )
    return None


def _is_for_users(path: Path) -> bool:
    """Whether fusermount3 lets this user mount on it. Source: check_perm() in its fusermount.c."""
    status = path.stat()
    is_kept_apart = bool(status.st_mode & stat.S_ISVTX) and status.st_uid != os.geteuid()
    return os.access(path, os.W_OK, effective_ids=True) and not is_kept_apart


def check_fuse(*, allow_other: bool) -> None:
    """Check that this user can mount at all.

    Raises:
        MountError: No FUSE device, no `fusermount3`, or `allow_other` is not allowed.
    """
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise MountError("/dev/fuse is missing: load the kernel module (modprobe fuse)") from error
    except OSError as error:
        hint = ": users need its mode to be 0666" if error.errno == errno.EACCES else ""
        raise MountError(f"/dev/fuse can't be opened: {error.strerror}{hint}") from error
    if os.geteuid() == 0:
        return  # root mounts without the helper and needs no leave
    if not any(os.access(Path(d, "fusermount3"), os.X_OK) for d in os.get_exec_path()):
        raise MountError("fusermount3 is missing: install the package fuse3")
    if allow_other and not _user_allow_other():
        raise MountError("allow_other needs the line user_allow_other in /etc/fuse.conf")


def _user_allow_other() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def _run(command: list[str], path: Path) -> None:
    try:
        done = subprocess.run(  # the C locale: busy is recognised by its text
            [*command, "--", str(path)],
            capture_output=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            text=True,
        )
    except FileNotFoundError as error:
        raise MountError(f"{command[0]} is missing: install the package fuse3") from error
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        if "busy" in reason[0]:
            raise MountError(f"{path}: in use{_users(path)}")
        raise MountError(f"{path}: {reason[0]}")


def _users(path: Path) -> str:
    """What is mounted below the directory, and who works in it as far as this user may see: the end
    of a message.

    A program that is just being replaced (execve(2)) keeps who looks at it waiting, until what it
    closes meanwhile is answered: the others are named without it.
    """
    places = [_parse(line).path for line in _table()]
    found = [f"the mount on {each}" for each in places if path in each.parents]
    looking = threading.Thread(target=_look_for_users, args=(path, found), daemon=True)
    looking.start()
    looking.join(_LOOKING)
    return f" by {', '.join(found)}" if found else ""


def _look_for_users(path: Path, found: list[str]) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            places = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(Path(os.readlink(place)).is_relative_to(path) for place in places):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:
            continue  # ended meanwhile, or another user's


def _parse(line: str) -> Mounted:
    """One line of mountinfo. Source: proc(5), /proc/pid/mountinfo."""
    place, _, kind = line.rstrip("\n").partition(" - ")
    file_system, source, options = kind.split(" ")[:3]
    owner = re.search(r"\buser_id=(\d+)", options)
    return Mounted(
        path=Path(_unescape(place.split(" ")[4])),
        file_system=file_system,
        source=_unescape(source),
        device=place.split(" ")[2],
        owner=int(owner[1]) if owner else 0,
    )


def _unescape(field: str) -> str:
    """The kernel writes blanks, newlines and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
