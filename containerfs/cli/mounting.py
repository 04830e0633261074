"""One mount from its checked settings to its end: what both mount commands do.

Everything that can be wrong is found before anything is started. Expected failures are
`click.ClickException`, in one line.
"""

import os
import resource
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from containerfs import mountpoint, mounts, systemd
from containerfs.account import account_key
from containerfs.api.connection import Connection
from containerfs.api.environment import SECRETS, SOCKET_BASE_URL, connection_from
from containerfs.cli.calling import failures_told
from containerfs.cli.logs import logging_to
from containerfs.cli.starting import collecting_later, versions_unknown
from containerfs.cli.unsentline import Tell, unsent_line
from containerfs.directories import data_dir
from containerfs.errors import AccessDenied
from containerfs.options import Options

Ready = Callable[[], None]

_HINT = " (Ctrl-C: leave it to the next mount)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
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
        _check_hides_nothing_of_ours(path, cache=options.cache_dir, data=source.data)
    return Mounting(source=source, mountpoint=path, options=options, connection=connection)


def _check_hides_nothing_of_ours(path: Path, *, cache: Path, data: Path | None) -> None:
    """A mount that keeps what it needs below itself would wait for itself, for ever."""
    for what, place in (("cache", cache), ("data", data)):
        if place is not None and Path(os.path.realpath(place)).is_relative_to(path):
            raise mountpoint.MountError(f"{path} would hide its own {what} directory, {place}")


def serve(mounting: Mounting, *, ready: Ready) -> None:
    """Mount, and return when it has been unmounted.

    Args:
        ready: Called once the mount can be used; systemd is told as well.

    Raises:
        click.ClickException: It failed, for an expected reason.
    """
    with collecting_later() as collect:
        import trio  # not before it is needed: `--help` and wrong command lines answer at once

        options = mounting.options
        _keep_secrets()

        def is_ready() -> None:
            ready()
            systemd.notify(systemd.READY, systemd.status(f"{mounting.source.name} is mounted"))
            collect()

        account = account_key(mounting.connection, data=mounting.source.data)
        record = mounts.recorded(
            mounting.mountpoint,
            source=mounting.source.name,
            state_dir=options.cache_dir / account,
        )
        log = logging_to(options.log_file, level=options.log_level, connection=mounting.connection)
        with failures_told(), log, record, unsent_line(hint=_HINT) as tell:
            trio.run(_run, mounting, account, is_ready, tell)


def _keep_secrets() -> None:
    """The key is known by now: no program that is started gets it, and no core dump holds it."""
    for name in SECRETS:
        os.environ.pop(name, None)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


async def _run(mounting: Mounting, account: str, ready: Ready, tell: Tell | None) -> None:
    with versions_unknown():
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
            patience=lambda: _patience(mounting.mountpoint),
            tell=tell,
        )


def _patience(path: Path) -> float | None:
    """How long whoever unmounts it wants to wait for what is unsent, if they said."""
    mount = mounts.find(path, owner=os.geteuid())
    return mount.patience if mount else None


def _by_whom(path: Path) -> str:
    """Which mount is there already: the end of a message."""
    mounted = mountpoint.at(path)
    mount = mounts.find(path, owner=mounted.owner) if mounted else None
    return f": {mount.source}, by process {mount.pid}" if mount else ""


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
