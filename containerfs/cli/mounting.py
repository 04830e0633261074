"""One mount from its checked settings to its end: what both mount commands do.

Everything that can be wrong is found before anything is started. Expected failures are
`click.ClickException`, in one line.
"""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from containerfs import mountpoint, mounts, systemd
from containerfs.account import account_key
from containerfs.api.connection import Connection
from containerfs.api.environment import SOCKET_BASE_URL, connection_from
from containerfs.cli.calling import failures_told
from containerfs.errors import AccessDenied
from containerfs.options import Options, data_dir

Ready = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is mounted: the service, or an embedded server."""

    name: str  # "openai:" or "local:/path/of/data"
    data: Path | None  # the embedded server's data; None for the service

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read `openai:` or `local:[DATA]`.

        Raises:
            ValueError: It is neither.
        """
        scheme, colon, rest = text.partition(":")
        if scheme == "local" and colon:
            data = Path(rest).expanduser().absolute() if rest else data_dir(os.environ)
            return cls(name=f"local:{data}", data=data)
        if text == "openai:":
            return cls(name=text, data=None)
        raise ValueError(f"unknown source {text!r}: it is openai: or local:[DATA]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounting:
    """A mount that is about to be: everything has been checked."""

    source: Source
    mountpoint: Path  # absolute, without symbolic links
    options: Options
    connection: Connection


def check(source: Source, directory: Path, options: Options) -> Mounting:
    """Check the mount point, FUSE and the key; detach a dead mount of ours.

    Raises:
        click.ClickException: One of them is no good.
    """
    with failures_told():
        mountpoint.check_fuse(allow_other=options.allow_other)
        path = mountpoint.locate(directory)
        connection = check_connection(source, options)
        try:
            mountpoint.prepare(path, nonempty=options.nonempty)
        except mountpoint.AlreadyMountedError as error:
            raise mountpoint.MountError(f"{error}{_by_whom(path)}") from error
    return Mounting(source=source, mountpoint=path, options=options, connection=connection)


def serve(mounting: Mounting, *, ready: Ready) -> None:
    """Mount, and return when it has been unmounted.

    Args:
        ready: Called once the mount can be used; systemd is told as well.

    Raises:
        click.ClickException: It failed, for an expected reason.
    """
    import trio  # not before it is needed: `--help` and wrong command lines answer at once

    _log_to(mounting.options)

    def is_ready() -> None:
        ready()
        systemd.notify(systemd.READY, systemd.status(f"{mounting.source.name} is mounted"))

    account = account_key(mounting.connection, data=mounting.source.data)
    record = mounts.recorded(
        mounting.mountpoint,
        source=mounting.source.name,
        state_dir=mounting.options.cache_dir / account,
    )
    with failures_told(), record:
        trio.run(_run, mounting, account, is_ready)


async def _run(mounting: Mounting, account: str, ready: Ready) -> None:
    from containerfs import daemon, embedded

    data = mounting.source.data
    connection = mounting.connection
    async with AsyncExitStack() as stack:
        if data is not None:
            server = embedded.running(data=data, runtime_dir=mounts.runtime_dir())
            connection = replace(connection, uds=str(await stack.enter_async_context(server)))
        await daemon.run(
            options=mounting.options,
            connection=connection,
            account=account,
            mountpoint=mounting.mountpoint,
            source=mounting.source.name,
            ready=ready,
        )


def _by_whom(path: Path) -> str:
    """Which mount is there already: the end of a message."""
    mounted = mountpoint.at(path)
    mount = mounts.find(path, owner=mounted.owner) if mounted else None
    return f": {mount.source}, by process {mount.pid}" if mount else ""


def _log_to(options: Options) -> None:
    """Log to the file or to standard error, once for the process."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if options.log_file is not None:
        try:
            os.close(os.open(options.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            handler = logging.FileHandler(options.log_file)
        except OSError as error:
            raise click.ClickException(f"{options.log_file}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])


def check_connection(source: Source, options: Options) -> Connection:
    """How to reach what is mounted; the socket of an embedded server is not known yet.

    Raises:
        FileSystemError: There is no key, or a value can't be used.
    """
    if source.data is not None:
        return Connection(
            base_url=SOCKET_BASE_URL,
            timeout=options.timeout,
            transfer_timeout=options.transfer_timeout,
            max_connections=options.max_connections,
        )
    try:
        return connection_from(options, os.environ)
    except AccessDenied as error:
        raise AccessDenied(f"{error}; local: mounts an embedded server and needs no key") from error
