"""The folders below the cache directory: one for each account, and what waits in it.

A folder remembers where its account was mounted last, so that what is unsent can be found by the
mount point, whether or not the mount is running.
"""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from containerfs.cache.state import open_state
from containerfs.errors import Busy, LocalFault, NotFound, from_os_error
from containerfs.upload.journal import Entry, Journal

STATE = "state.sqlite"
FOLDERS = ("content", "spool")
_RECORD = "mount.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The folder of an account.

    Attributes:
        mountpoint: Where it was mounted last; absolute.
        source: What the mount command was given: "openai:" or "local:DATA".
    """

    directory: Path
    mountpoint: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """A file whose newest content is on this machine only.

    Attributes:
        path: Where the mount shows it, below the mount point.
        spool: The file that holds the content.
        size: Bytes; None where the spool is lost.
    """

    entry: Entry
    path: str
    spool: Path
    size: int | None

    @property
    def state(self) -> str:
        """In a word: "local" stays here by its name, "failed" was tried, "waiting" was not."""
        if self.entry.held:
            return "local"
        return "failed" if self.entry.error else "waiting"


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
            raise Busy(f"a mount uses {directory}") from exc
        yield
    finally:
        os.close(fd)


def _prepare(directory: Path) -> None:
    """Make the account's folder and those in it, and check that they are this user's alone.

    The cache directory above may be a symbolic link, if the link is this user's too, and others
    may look into it; but who can write there could put another folder in the place of ours.
    """
    above = directory.parent
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def remember(account: Account) -> None:
    """Note in its folder where the account is mounted."""
    facts = {name: value for name, value in asdict(account).items() if name != "directory"}
    draft = account.directory / f"{_RECORD}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        draft.unlink(missing_ok=True)
        with open(os.open(draft, flags, 0o600), "w") as file:
            json.dump(facts, file)
        draft.replace(account.directory / _RECORD)
    except OSError as exc:
        raise from_os_error(exc, f"writing {draft}") from exc


def find(cache_dir: Path, mountpoint: Path) -> Account:
    """The account that was mounted last on *mountpoint*.

    Raises:
        NotFound: None was.
    """
    for account in known(cache_dir):
        if account.mountpoint == str(mountpoint):
            return account
    raise NotFound(f"{mountpoint}: nothing was ever mounted here with this cache directory")


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


def unsent(account: Account) -> list[Unsent]:
    """What of *account* is not on the server, oldest first; works beside a running mount."""
    with open_state(account.directory / STATE) as state:
        names = state.container_names()
        entries = Journal(state.connection).entries
    found = []
    for entry in entries:
        spool = account.directory / "spool" / entry.spool
        container = names.get(entry.container_id) or _as_name(entry.container_id)
        path = os.path.join(container, entry.path)
        found.append(Unsent(entry=entry, path=path, spool=spool, size=_size(spool)))
    return found


def discard(account: Account, *, held: bool) -> int:
    """Forget all that is unsent; the caller has the folder's lock.

    Args:
        held: Temporary files of editors too.

    Returns:
        How many files were given up.
    """
    doomed = [each for each in unsent(account) if held or not each.entry.held]
    with open_state(account.directory / STATE) as state:
        journal = Journal(state.connection)
        for each in doomed:
            journal.forget(each.entry)
    for each in doomed:
        each.spool.unlink(missing_ok=True)
    return len(doomed)


def _as_name(id: str) -> str:
    """A container's id as a name that leads nowhere else, whatever a server makes its ids of."""
    return quote(id, safe="").replace(".", "%2E")[:255] or "%00"


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None
