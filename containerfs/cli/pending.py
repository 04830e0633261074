"""What of a mount is on this machine only, as the commands find and show it.

They go by the mount point, and work beside a running mount, without one, and after one was killed.
"""

from collections.abc import Iterable
from pathlib import Path

import click

from containerfs import accounts, mountpoint, mounts, unsent
from containerfs.accounts import Account
from containerfs.cli.output import printable, show_all
from containerfs.errors import NotFound
from containerfs.options import Options
from containerfs.unsent import Unsent

_COLUMNS = ("state", "size", "path", "error")
_NAMED = 20  # files that a message names


class DataRemains(click.ClickException):
    """Files are still on this machine only; the message names them."""

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


def show_unsent(of: Iterable[Account], *, form: str | None) -> None:
    """Print what of these accounts is unsent; a table says whose it is where that is a question."""
    shapes = [_shape(account, each) for account in of for each in unsent.find(account)]
    sources = {shape["source"] for shape in shapes}
    columns = _COLUMNS if len(sources) < 2 else ("source", *_COLUMNS)
    show_all(shapes, columns=columns, form=form)


def check_nothing_remains(of: Iterable[Account], *, note: str = "") -> None:
    """Args:
        note: The end of the message.

    Raises:
        DataRemains: Something that should be on the server is not.
    """
    _check_none([each for account in of for each in unsent.find(account) if each.is_due], note=note)


def due_below(account: Account, path: Path) -> list[Unsent]:
    """What of *path*, which is in the account's mount, should be on the server and is not."""
    top = Path(account.mountpoint)
    return [
        each
        for each in unsent.find(account)
        if each.is_due and (top / each.path).is_relative_to(path)
    ]


def check_were_sent(these: Iterable[Unsent], account: Account) -> None:
    """Args:
    these: What was due before.

    Raises:
        DataRemains: Some of it still is; what was written since is not meant.
    """
    spools = {each.spool for each in these}
    _check_none([each for each in unsent.find(account) if each.is_due and each.spool in spools])


def _check_none(due: Iterable[Unsent], *, note: str = "") -> None:
    names = [printable(each.path) for each in due]
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        told = ", ".join(names[:_NAMED])
        raise DataRemains(f"not on the server, and kept here: {told}{more}{note}")


def described(each: Unsent) -> str:
    """A file, for a question or a message."""
    size = "its content is lost" if each.size is None else f"{each.size} bytes"
    return f"{printable(each.path)} ({size})"


def _shape(account: Account, each: Unsent) -> dict[str, object]:
    return {
        "state": each.state,
        "size": each.size,
        "path": each.path,
        "error": each.error,
        "source": account.source,
    }
