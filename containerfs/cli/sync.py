"""`containerfs sync`: send what is not on the server yet, with or without a running mount."""

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import click

from containerfs import mountpoint, mounts
from containerfs.account import account_key
from containerfs.accounts import Account
from containerfs.cli.calling import CONNECTION, call, failures_told, options_of, with_options
from containerfs.cli.logs import logging_to
from containerfs.cli.mounting import Source, check_connection
from containerfs.cli.pending import (
    accounts_at,
    check_nothing_remains,
    check_synced,
    due_below,
)
from containerfs.errors import AccessDenied, FileSystemError, NotFound
from containerfs.options import Options
from containerfs.unsent import find, obsolete, unsettled


@click.command()
@click.argument("path", metavar="DIR|FILE", type=Path)
@with_options((*CONNECTION, "cache_dir"))
def sync(*, path: Path, given: dict[str, str]) -> None:
    """Send what of DIR (and everything below it), or of FILE, is not on the server yet.

    What was replaced or removed there, and could not be deleted from the server, is deleted.
    Without a running mount, this is done for everything of the mount that was there; then the
    options must lead to the server and the account that were mounted. Exit code 7 when something
    remains to be sent or deleted, or it is not known what arrived of a rename.
    """
    with failures_told():
        options = options_of(given)
        if _is_mounted(path):
            _sync_mounted(path, options)
            return
        newest, *others = accounts_at(path, options)
        for account in (newest, *(each for each in others if _has_due(each))):
            call(_send, account, options)
        check_nothing_remains([newest, *others])


def _has_due(account: Account) -> bool:
    is_unsent = any(each.is_due for each in find(account))
    return is_unsent or bool(obsolete(account)) or bool(unsettled(account))


def _is_mounted(path: Path) -> bool:
    real = mountpoint.locate(path)
    return any(
        mounted.is_ours and not mountpoint.is_dead(above)
        for above in (real, *real.parents)
        if (mounted := mountpoint.at(above)) is not None
    )


def _sync_mounted(path: Path, options: Options) -> None:
    """Have the mount send and delete it, and look whether it did: its journal may know of more."""
    try:
        account, *_ = accounts_at(path, options)
    except NotFound:  # another user's mount
        _fsync(path)
        return
    real = mountpoint.locate(path)
    due = due_below(account, real)
    try:
        _fsync(path)
    except FileSystemError as exc:
        check_synced(due, account, below=real, note=f" ({exc})")
        raise
    check_synced(due, account, below=real)


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
    if account_key(connection, data=source.data) != account.directory.name:
        raise AccessDenied(
            f"{account.mountpoint} was mounted with another server, account or key: give the same"
        )
    async with AsyncExitStack() as stack:
        stack.enter_context(
            logging_to(options.log_file, level=options.log_level, connection=connection)
        )
        if source.data is not None:
            server = embedded.running(data=source.data, runtime_dir=mounts.runtime_dir())
            connection = replace(connection, uds=str(await stack.enter_async_context(server)))
        await daemon.send_unsent(options, connection, account)
