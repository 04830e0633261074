"""`containerfs queue`, `sync` and `recover`: what is not on the server yet, and what to do with it.

They go by the mount point, and work beside a running mount as well as without one.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import click

from containerfs import accounts, mountpoint, mounts
from containerfs.accounts import Account, Unsent
from containerfs.cli.calling import call, failures_told
from containerfs.cli.mounting import Source, check_connection
from containerfs.cli.output import format_option, printable, show_all
from containerfs.errors import Busy, Exists, FileSystemError, from_os_error
from containerfs.options import OptionError, Options, load

COLUMNS = ("state", "size", "path", "error")

_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


class DataRemains(click.ClickException):
    """Files are still on this machine only; the message names them."""

    exit_code = 7


def remaining(account: Account) -> None:
    """Raises:
    DataRemains: Something that should be on the server is not.
    """
    files = [each for each in accounts.unsent(account) if not each.entry.held]
    if files:
        names = ", ".join(printable(each.path) for each in files[:20])
        more = f" and {len(files) - 20} more" if len(files) > 20 else ""
        raise DataRemains(f"not on the server, and kept here: {names}{more}")


@click.command()
@_directory
@format_option
def queue(*, directory: Path, form: str | None) -> None:
    """Show what of the mount on DIR is on this machine only.

    The state is "waiting" or "failed" for what should be on the server, with the reason of the
    failure, and "local" for temporary files, which stay here.
    """
    with failures_told():
        shapes = [_shape(each) for each in accounts.unsent(_account(directory))]
    show_all(shapes, columns=COLUMNS, form=form)


def _shape(each: Unsent) -> dict[str, object]:
    return {
        "state": each.state,
        "size": each.size,
        "path": each.path,
        "error": each.entry.error,
    }


@click.command()
@click.argument("path", metavar="DIR|FILE", type=click.Path(path_type=Path))
def sync(*, path: Path) -> None:
    """Send what of DIR (and everything below it), or of FILE, is not on the server yet.

    Without a running mount, DIR is where it was; exit code 7 when data remains.
    """
    with failures_told():
        if _is_mounted(path):
            _fsync(path)
            return
        account = _account(path)
        call(_send, account, _options())
        remaining(account)


def _is_mounted(path: Path) -> bool:
    real = path.absolute()
    return any(
        mounted.is_ours and not mountpoint.is_dead(above)
        for above in (real, *real.parents)
        if (mounted := mountpoint.at(above)) is not None
    )


def _fsync(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise FileSystemError(f"{path}: {exc.strerror}") from exc


async def _send(account: Account, options: Options) -> None:
    from containerfs import daemon, embedded

    source = Source.parse(account.source)
    connection = check_connection(source, options)
    if source.data is None:
        await daemon.send_unsent(options, connection, account)
        return
    async with embedded.running(data=source.data, runtime_dir=mounts.runtime_dir()) as socket:
        connection = replace(connection, uds=str(socket))
        await daemon.send_unsent(options, connection, account)


@click.command()
@_directory
@click.option("--list", "wants_list", is_flag=True, help="Show what is unsent (the default).")
@click.option(
    "--export",
    "target",
    metavar="TARGET",
    type=click.Path(path_type=Path),
    help="Copy it to this directory.",
)
@click.option("--discard", is_flag=True, help="Give it up for good.")
@click.option("--yes", is_flag=True, help="Do not ask before giving it up.")
@format_option
def recover(
    *,
    directory: Path,
    wants_list: bool,
    target: Path | None,
    discard: bool,
    yes: bool,
    form: str | None,
) -> None:
    """List, export or give up what of the mount on DIR is not on the server."""
    if wants_list + (target is not None) + discard > 1:
        raise click.UsageError("--list, --export and --discard exclude one another")
    with failures_told():
        account = _account(directory)
        files = accounts.unsent(account)
        if target is not None:
            _export(files, target)
        elif discard:
            _discard(account, files, yes=yes)
        else:
            show_all([_shape(each) for each in files], columns=COLUMNS, form=form)


def _export(files: list[Unsent], target: Path) -> None:
    for each in files:
        destination = target / each.path
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            with open(each.spool, "rb") as source, open(destination, "xb") as copy:
                shutil.copyfileobj(source, copy)
        except FileExistsError as exc:
            raise Exists(f"{destination} is there already; nothing is overwritten") from exc
        except OSError as exc:
            raise from_os_error(exc, f"exporting {each.path}") from exc
        click.echo(printable(str(destination)))


def _discard(account: Account, files: list[Unsent], *, yes: bool) -> None:
    if not files:
        return
    if not yes:
        names = "\n".join(f"  {printable(each.path)} ({each.size} bytes)" for each in files)
        click.confirm(f"{names}\nGive these up for good?", abort=True, err=True)
    try:
        with accounts.locked(account.directory):
            count = accounts.discard(account, held=True)
    except Busy as exc:
        raise Busy(f"{account.mountpoint} is mounted: unmount it first") from exc
    click.echo(f"{count} files were given up", err=True)


def _account(directory: Path) -> Account:
    """The account that is, or was last, mounted on *directory*."""
    path = mountpoint.locate(directory)
    for above in (path, *path.parents):  # a directory inside a mount means that mount
        mount = mounts.find(above, owner=os.geteuid())
        if mount is not None:
            return Account(
                directory=Path(mount.state_dir), mountpoint=mount.mountpoint, source=mount.source
            )
    return accounts.find(_options().cache_dir, path)


def _options() -> Options:
    try:
        return load(file=None, environ=os.environ, given={})
    except OptionError as exc:
        raise click.UsageError(str(exc)) from exc
