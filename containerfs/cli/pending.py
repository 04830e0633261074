"""What of a mount the server has not got yet, or has still, as the commands find and show it.

They go by the mount point, and work beside a running mount, without one, and after one was killed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from containerfs import accounts, mountpoint, mounts, unsent
from containerfs.accounts import Account
from containerfs.cli.output import show_all
from containerfs.cli.visible import printable
from containerfs.errors import NotFound
from containerfs.options import Options
from containerfs.unsent import Obsolete, Pending, Unsent, Unsettled

_COLUMNS = ("state", "size", "path", "error")
_NAMED = 20  # files that a message names


class DataRemains(click.ClickException):
    """Not all is on the server as it is here; the message names what is not."""

    exit_code = 7


def accounts_at(directory: Path, options: Options) -> list[Account]:
    """The accounts that are, or were last, mounted on *directory*; the newest first.

    A directory inside a mount means that mount.

    Raises:
        NotFound: There are none.
    """
    path = mountpoint.locate(directory)
    for above in (path, *path.parents):
        found = accounts.at(options.cache_dir, above)
        mount = mounts.last(above)
        if mount is not None:
            recorded = account_of(mount)
            found = [recorded, *(each for each in found if each.directory != recorded.directory)]
        if found:
            return found
    raise NotFound(f"{path}: nothing was mounted here with the cache directory {options.cache_dir}")


def account_of(mount: mounts.Mount) -> Account:
    """The account that a recorded mount serves."""
    return Account(
        directory=Path(mount.state_dir), mountpoint=mount.mountpoint, source=mount.source
    )


def pending(account: Account) -> list[Pending]:
    """All that the server has not got yet, what is to be deleted there, and what is not known."""
    return [*unsent.find(account), *unsent.obsolete(account), *unsent.unsettled(account)]


def show_unsent(of: Iterable[Account], *, form: str | None) -> None:
    """Print what of these accounts is unsent, or still to be deleted from the server.

    A table says whose it is where that is a question.
    """
    shapes = [_shape(account, each) for account in of for each in pending(account)]
    sources = {shape["source"] for shape in shapes}
    columns = _COLUMNS if len(sources) < 2 else ("source", *_COLUMNS)
    show_all(shapes, columns=columns, form=form)


def check_nothing_remains(of: Iterable[Account], *, note: str = "") -> None:
    """Args:
        note: The end of the message.

    Raises:
        DataRemains: Something that should be on the server is not, or is there still, or may be.
    """
    found = list(of)
    due = [each for account in found for each in unsent.find(account) if each.is_due]
    old = [each for account in found for each in unsent.obsolete(account)]
    renames = [each for account in found for each in unsent.unsettled(account)]
    _check_none(due, old, renames, note=note)


def due_below(account: Account, path: Path) -> list[Unsent]:
    """What of *path*, which is in the account's mount, should be on the server and is not."""
    return [each for each in unsent.find(account) if each.is_due and _is_below(each, account, path)]


def check_synced(these: Iterable[Unsent], account: Account, *, below: Path, note: str = "") -> None:
    """Args:
        these: What was due before.
        below: A file or directory of the mount, without symbolic links.
        note: The end of the message.

    Raises:
        DataRemains: Some of it still is, what was written since not being meant; or something that
            was replaced or removed there is still on the server.
    """
    spools = {each.spool for each in these}
    due = [each for each in unsent.find(account) if each.is_due and each.spool in spools]
    old = [each for each in unsent.obsolete(account) if _is_below(each, account, below)]
    renames = [
        each
        for each in unsent.unsettled(account)
        if each.is_doubtful and _is_below(each, account, below)
    ]
    _check_none(due, old, renames, note=note)


def _is_below(each: Pending, account: Account, path: Path) -> bool:
    return Path(account.mountpoint, each.path).is_relative_to(path)


def _check_none(
    due: list[Unsent], old: list[Obsolete], renames: list[Unsettled], *, note: str = ""
) -> None:
    parts = []
    if due:
        parts.append(f"not on the server, and kept here: {_named(due)}")
    if old:
        objects = "object is" if len(old) == 1 else "objects are"
        told = f"{len(old)} replaced or removed {objects} still to be deleted from the server"
        parts.append(f"{told}: {_named(old)}")
    if renames:
        parts.append(f"what arrived of a rename is not known yet: {_named(renames)}")
    if parts:
        raise DataRemains("; ".join(parts) + note)


def _named(these: Sequence[Pending]) -> str:
    more = f" and {len(these) - _NAMED} more" if len(these) > _NAMED else ""
    return ", ".join(printable(each.path) for each in these[:_NAMED]) + more


def described(each: Pending) -> str:
    """A file, for a question or a message."""
    if isinstance(each, Obsolete):
        return f"{printable(each.path)} (its old object stays on the server)"
    if isinstance(each, Unsettled):
        return f"{printable(each.path)} (what arrived of its rename stays on the server)"
    size = "its content is lost" if each.size is None else f"{each.size} bytes"
    return f"{printable(each.path)} ({size})"


def _shape(account: Account, each: Pending) -> dict[str, object]:
    rest = "obsolete" if isinstance(each, Obsolete) else "renaming"
    return {
        "state": each.state if isinstance(each, Unsent) else rest,
        "size": each.size if isinstance(each, Unsent) else None,
        "path": each.path,
        "error": each.error,
        "source": account.source,
    }
