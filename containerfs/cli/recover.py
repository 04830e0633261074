"""`containerfs recover`: list, export or give up what is not on the server."""

import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from containerfs import accounts, discarding, unsent
from containerfs.accounts import Account
from containerfs.cli.calling import failures_told, options_of, with_options
from containerfs.cli.output import format_option
from containerfs.cli.pending import accounts_at, described, pending, show_unsent
from containerfs.cli.visible import printable
from containerfs.errors import Busy, FileSystemError
from containerfs.unsent import Pending, Unsent


@click.command()
@click.argument("directory", metavar="DIR", type=Path)
@click.option("--list", "wants_list", is_flag=True, help="Show what is unsent (the default).")
@click.option(
    "--export",
    "target",
    metavar="TARGET",
    type=click.Path(path_type=Path),
    help="Copy it to this directory; nothing is overwritten.",
)
@click.option(
    "--discard",
    is_flag=True,
    help="Give it up for good; what was to be deleted from the server, or may have to be, stays.",
)
@click.option("--yes", is_flag=True, help="Do not ask before giving it up.")
@format_option
@with_options(["cache_dir"])
def recover(
    *,
    directory: Path,
    wants_list: bool,
    target: Path | None,
    discard: bool,
    yes: bool,
    form: str | None,
    given: dict[str, str],
) -> None:
    """List, export or give up what of the mount on DIR is not on the server."""
    if wants_list + (target is not None) + discard > 1:
        raise click.UsageError("--list, --export and --discard exclude one another")
    with failures_told():
        found = accounts_at(directory, options_of(given))
        if target is not None:
            _export(found, target)
        elif discard:
            _discard(found, yes=yes)
        else:
            show_unsent(found, form=form)


def _export(found: list[Account], target: Path) -> None:
    """Copy all that can be copied, and fail in the end where something could not."""
    failures = 0
    for each in [file for account in found for file in unsent.find(account)]:
        destination = target / each.path
        try:
            _copy(each, destination)
        except OSError as exc:
            failures += 1
            click.echo(printable(f"{destination}: {_reason(exc, each)}"), err=True)
        else:
            click.echo(printable(str(destination)))
    if failures:
        raise FileSystemError(f"not exported: {_files(failures)}")


def _copy(each: Unsent, destination: Path) -> None:
    with open(each.spool, "rb") as source:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open(destination, "xb") as copy:
            try:
                shutil.copyfileobj(source, copy)
            except OSError:
                destination.unlink()
                raise


def _reason(error: OSError, each: Unsent) -> str:
    if isinstance(error, FileExistsError):
        return "is there already; nothing is overwritten"
    if isinstance(error, FileNotFoundError) and error.filename == str(each.spool):
        return "its content is not here any more"
    return error.strerror or str(error)


def _discard(found: list[Account], *, yes: bool) -> None:
    with ExitStack() as locks:
        for account in found:
            try:
                locks.enter_context(accounts.locked(account.directory))
            except Busy as exc:
                raise Busy(f"{account.mountpoint} is mounted: unmount it first") from exc
        doomed = [each for account in found for each in pending(account)]
        if doomed and (yes or _confirmed(doomed)):
            give_up = (discarding.discard, discarding.keep_obsolete, discarding.give_up_renames)
            count = sum(each(account) for account in found for each in give_up)
            click.echo(f"given up: {_files(count)}", err=True)


def _confirmed(doomed: Iterable[Pending]) -> bool:
    names = "\n".join(f"  {described(each)}" for each in doomed)
    return click.confirm(f"{names}\nGive these up for good?", abort=True, err=True)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
