"""What of a mount the server has not got yet, or has still, as the commands find and show it.

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
from containerfs.unsent import Obsolete, Unsent

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


def pending(account: Account) -> list[Unsent | Obsolete]:
    """All that the server has not got yet, and what is to be deleted there."""
    return [*unsent.find(account), *unsent.obsolete(account)]


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
        DataRemains: Something that should be on the server is not, or is there still.
    """
    accounts = list(of)
    due = [each.path for account in accounts for each in unsent.find(account) if each.is_due]
    old = [each.path for account in accounts for each in unsent.obsolete(account)]
    if due or old:
        parts = [f"not on the server, and kept here: {_named(due)}"] if due else []
        parts += [_still_there(old)] if old else []
        raise DataRemains("; ".join(parts) + note)


def check_nothing_obsolete(account: Account, below: Path) -> None:
    """Args:
        below: A file or directory of the mount, without symbolic links.

    Raises:
        DataRemains: What was replaced or removed there is still on the server.
    """
    old = [
        each.path
        for each in unsent.obsolete(account)
        if Path(account.mountpoint, each.path).is_relative_to(below)
    ]
    if old:
        raise DataRemains(_still_there(old))


def _still_there(paths: list[str]) -> str:
    objects = "object is" if len(paths) == 1 else "objects are"
    told = f"{len(paths)} replaced or removed {objects} still to be deleted from the server"
    return f"{told}: {_named(paths)}"


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(printable, paths[:_NAMED])) + more


def described(each: Unsent | Obsolete) -> str:
    """A file, for a question or a message."""
    if isinstance(each, Obsolete):
        return f"{printable(each.path)} (its old object stays on the server)"
    size = "its content is lost" if each.size is None else f"{each.size} bytes"
    return f"{printable(each.path)} ({size})"


def _shape(account: Account, each: Unsent | Obsolete) -> dict[str, object]:
    return {
        "state": each.state if isinstance(each, Unsent) else "obsolete",
        "size": each.size if isinstance(each, Unsent) else None,
        "path": each.path,
        "error": each.error,
        "source": account.source,
    }
