"""What of an account the server has not got yet, or has still, or may have.

Reading works beside a running mount, after one was killed, and where nothing can be written.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import quote

from containerfs.accounts import STATE, Account, has_state
from containerfs.cache.state import State, open_state
from containerfs.errors import NoSpace, from_os_error
from containerfs.upload.deletions import Deletion
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import LOST_SPOOLS, Entry, Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """A file whose newest content is on this machine only.

    Attributes:
        path: Where the mount shows it, below the mount point; of what is nameless, a made-up one.
        spool: The file that holds the content.
        size: Bytes; None where the spool is lost.
        state: In a word: "local" stays here by its name, "failed" was tried, "waiting" was not,
            and "nameless" is what was unsent when the state was lost: no mount sends it.
        error: Why the last attempt to send it failed, in words.
    """

    path: str
    spool: Path
    size: int | None
    state: Literal["waiting", "failed", "local", "nameless"]
    error: str | None = None

    @property
    def is_due(self) -> bool:
        """Whether it should be on the server."""
        return self.state in ("waiting", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Obsolete:
    """What the server still has of a file that was replaced or removed here.

    Attributes:
        path: Where the mount showed it, below the mount point; its id, where that is not known.
        error: What is to be done, and why the last attempt failed, in words.
    """

    path: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """A rename of which the server has not told yet what arrived.

    Attributes:
        path: The new name, below the mount point.
        error: Of what, in words.
        is_doubtful: It failed, or was cut off, before the last mount began; else it is under way,
            or that mount was killed.
    """

    path: str
    error: str
    is_doubtful: bool


Pending = Unsent | Obsolete | Unsettled


def find(account: Account) -> list[Unsent]:
    """What of *account* is not on the server, oldest first, and last what lost its name.

    Works beside a running mount and where nothing can be written; changes nothing.
    """
    names: dict[str, str] = {}
    entries: list[Entry] = []
    if has_state(account.directory):
        with _readable(account.directory) as state:
            names = state.container_names()
            entries = Journal(state.connection).entries
    found = [_described(entry, account, names) for entry in entries]
    for spool in _nameless(account.directory):
        path = f"{spool.parent.name}/{spool.name}"
        found.append(Unsent(path=path, spool=spool, size=_size(spool), state="nameless"))
    return found


def obsolete(account: Account) -> list[Obsolete]:
    """What of *account* is still to be deleted from the server; as `find`."""
    if not has_state(account.directory):
        return []
    with _readable(account.directory) as state:
        names = state.container_names()
        doomed = Journal(state.connection).doomed.all
    return [_obsolete(deletion, names) for deletion in doomed]


def unsettled(account: Account) -> list[Unsettled]:
    """The renames of *account* that are not over; as `find`."""
    if not has_state(account.directory):
        return []
    with _readable(account.directory) as state:
        names = state.container_names()
        renames = Intents(state.connection).all
    return [_unsettled(rename, names) for rename in renames.values()]


@contextmanager
def _readable(directory: Path) -> Iterator[State]:
    """The state as it is; SQLite must write to read, so where it can't, a copy is opened."""
    path = directory / STATE
    with ExitStack() as stack:
        state: State | None = None
        if os.access(directory, os.W_OK) and os.access(path, os.W_OK):
            with suppress(NoSpace):
                state = stack.enter_context(open_state(path))
        if state is None:
            copy = _copied(path, Path(stack.enter_context(TemporaryDirectory())))
            state = stack.enter_context(open_state(copy))
        yield state


def _copied(path: Path, place: Path) -> Path:
    try:
        for name in (STATE, f"{STATE}-wal"):
            if path.with_name(name).exists():
                shutil.copyfile(path.with_name(name), place / name)
    except OSError as exc:
        raise from_os_error(exc, f"reading {path}") from exc
    return place / STATE


def _described(entry: Entry, account: Account, names: dict[str, str]) -> Unsent:
    spool = account.directory / "spool" / entry.spool
    container = names.get(entry.container_id) or _as_name(entry.container_id)
    state: Literal["waiting", "failed", "local"] = "failed" if entry.error else "waiting"
    return Unsent(
        path=os.path.join(container, entry.path),
        spool=spool,
        size=_size(spool),
        state="local" if entry.held else state,
        error=entry.error,
    )


def _obsolete(deletion: Deletion, names: dict[str, str]) -> Obsolete:
    container = names.get(deletion.container_id) or _as_name(deletion.container_id)
    told = f"its old object {deletion.file_id} is still to be deleted from the server"
    return Obsolete(
        path=os.path.join(container, deletion.path or _as_name(deletion.file_id)),
        error=f"{told}: {deletion.error}" if deletion.error else told,
    )


def _unsettled(rename: Rename, names: dict[str, str]) -> Unsettled:
    container, source = (
        names.get(id) or _as_name(id) for id in (rename.container_id, rename.source_id)
    )
    old = os.path.join(source, rename.source_path)
    return Unsettled(
        path=os.path.join(container, rename.path),
        error=f"what arrived of its rename from {old} is not known yet",
        is_doubtful=rename.is_doubtful,
    )


def _nameless(directory: Path) -> list[Path]:
    """The spools that no journal names any more."""
    folders = sorted(directory.glob(LOST_SPOOLS))
    if not has_state(directory):
        folders.append(directory / "spool")
    spools = [spool for folder in folders for spool in sorted(folder.glob("*"))]
    return [spool for spool in spools if _size(spool) != 0]  # what is empty had nothing but a name


def _as_name(id: str) -> str:
    """An id as a name that leads nowhere else, whatever a server makes its ids of."""
    return quote(id, safe="").replace(".", "%2E")[:255] or "%00"


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None
