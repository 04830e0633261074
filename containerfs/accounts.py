"""The folders below the cache directory: one for each account, used by one process at a time.

A folder remembers where its account was mounted last, so that what is unsent can be found by the
mount point, whether or not the mount is running.
"""

import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from containerfs.cache.ballast import Ballast
from containerfs.cache.state import BALLAST, State, open_state
from containerfs.errors import Busy, LocalFault, NoSpace, from_os_error

log = logging.getLogger(__name__)

STATE = "state.sqlite"
FOLDERS = ("content", "spool")
_RECORD = "mount.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Account:
    """The folder of an account.

    Attributes:
        mountpoint: Where it was mounted last; absolute.
        source: What the mount command was given: "openai:" or "local:DATA".
    """

    directory: Path
    mountpoint: str
    source: str


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make the account's folder, and be the only one that uses it, inside.

    Raises:
        Busy: A mount, or a command that changes what is unsent, uses it.
        LocalFault: It is not this user's alone.
    """
    try:
        _prepare(directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(directory / "lock", flags, 0o600)
    except OSError as exc:
        raise from_os_error(exc, f"opening {directory}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise Busy(f"{directory} is in use{_by_whom(directory)}") from exc
        yield
    finally:
        os.close(fd)


def _by_whom(directory: Path) -> str:
    """Where its account was mounted last, and what to do: the end of a message."""
    where = [each.mountpoint for each in known(directory.parent) if each.directory == directory]
    hint = "a second mount of this account needs another --cache-dir"
    return f" (mounted last on {where[0]}): {hint}" if where else f": {hint}"


def _prepare(directory: Path) -> None:
    """Make the account's folder and those in it, and check that they are this user's alone.

    The cache directory above may be a symbolic link, if the link is this user's too, and others
    may look into it; but who can write there could put another folder in the place of ours.
    """
    above = directory.parent
    made = [each for each in (above, *above.parents) if not each.exists()]
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise LocalFault(f"{above} is not a directory") from exc
    for status in (above.lstat(), above.stat()):
        is_link = stat.S_ISLNK(status.st_mode)
        if status.st_uid != os.geteuid() or (status.st_mode & 0o022 and not is_link):
            raise LocalFault(f"{above} must be yours, and others must not write to it")
    for each in (directory, *(directory / name for name in FOLDERS)):
        each.mkdir(mode=0o700, exist_ok=True)
        status = each.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not is_ours or status.st_mode & 0o077:
            raise LocalFault(f"{each} must be a directory that is yours alone (mode 0700)")
    for each in (directory, above, *(each.parent for each in made)):  # they survive a power cut
        _sync(each)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remember(account: Account) -> None:
    """Note in its folder where the account is mounted; on a full disk the ballast goes for it."""
    try:
        _remember(account)
    except NoSpace:
        Ballast(account.directory / BALLAST).let_go()
        _remember(account)


def _remember(account: Account) -> None:
    facts = {name: value for name, value in asdict(account).items() if name != "directory"}
    draft = account.directory / f"{_RECORD}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        draft.unlink(missing_ok=True)
        with open(os.open(draft, flags, 0o600), "w") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(account.directory / _RECORD)
    except OSError as exc:
        raise from_os_error(exc, f"writing {draft}") from exc


def at(cache_dir: Path, mountpoint: Path) -> list[Account]:
    """The accounts that were mounted on *mountpoint* when each was mounted last, newest first."""
    return [account for account in known(cache_dir) if account.mountpoint == str(mountpoint)]


def has_state(directory: Path) -> bool:
    """Whether the state of a folder is there, and was not lost."""
    try:
        return (directory / STATE).lstat().st_size > 0
    except OSError:
        return False


def known(cache_dir: Path) -> Iterator[Account]:
    """All accounts of a cache directory, the last mounted first."""
    records = sorted(cache_dir.glob(f"*/{_RECORD}"), key=_changed, reverse=True)
    for record in records:
        try:
            yield Account(directory=record.parent, **json.loads(record.read_text()))
        except (OSError, ValueError, TypeError):
            continue


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def opened(directory: Path) -> Iterator[State]:
    """The state in a folder that is locked; open inside.

    Where it was lost, what is unsent is put aside before a new one begins, which knows none of it.
    """
    from containerfs.upload.spools import SpoolDirectory  # imports trio: not for every command

    if not has_state(directory):
        aside = SpoolDirectory(directory / "spool").rescue()
        if aside is not None:
            log.error("the state was lost: unsent content, without its names, is in %s", aside)
    with open_state(directory / STATE) as state:
        yield state
