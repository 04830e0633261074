"""What all commands of the service share: their options, a client, failures as exit codes."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from containerfs.api.connection import Connection
from containerfs.api.environment import SOCKET_BASE_URL, connection_from
from containerfs.cli.starting import collecting_later
from containerfs.cli.visible import printable
from containerfs.configuration import load
from containerfs.errors import AccessDenied, Expired, FileSystemError, NotFound
from containerfs.options import OPTIONS, Options
from containerfs.setting import Option, OptionError

if TYPE_CHECKING:
    from containerfs.api.client import Client  # imports httpx: not for --help

T = TypeVar("T")

CONNECTION = tuple(name for name, option in OPTIONS.items() if option.kind == "connection")
_LOCAL_HELP = "Use the embedded server with its data in this directory."


class Failed(click.ClickException):
    """A failure of the service or of this machine, told in one line."""


class FailedNotFound(Failed):
    """There is no such container or file."""

    exit_code = 3


class FailedNotAllowed(Failed):
    """The key is missing, wrong, or not allowed to do this."""

    exit_code = 4


class FailedExpired(Failed):
    """The container has expired."""

    exit_code = 5


_FAILURES: dict[type[FileSystemError], type[Failed]] = {
    NotFound: FailedNotFound,
    AccessDenied: FailedNotAllowed,
    Expired: FailedExpired,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Target:
    """Which server is meant."""

    connection: Connection
    data: Path | None  # of the embedded server, to be started for this command

    @asynccontextmanager
    async def client(self, *, may_make: bool = False) -> AsyncIterator["Client"]:
        """A client of that server.

        Args:
            may_make: The data directory of an embedded server may be missing; it is made then.

        Raises:
            NotFound: It is missing.
        """
        from containerfs.api.client import connect

        async with AsyncExitStack() as stack:
            connection = self.connection
            if self.data is not None:
                if not (may_make or self.data.is_dir()):
                    raise NotFound(f"{self.data}: there is no such data directory")
                from containerfs import embedded, mounts

                server = embedded.running(data=self.data, runtime_dir=mounts.runtime_dir())
                connection = replace(connection, uds=str(await stack.enter_async_context(server)))
            yield await stack.enter_async_context(connect(connection))


def service_options(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the connection options and `--local`; it is called with `target`."""

    @wraps(command)
    def with_target(*args: Any, local: Path | None, given: dict[str, str], **others: Any) -> T:
        with failures_told():
            target = _target(local, given)
        return command(*args, target=target, **others)

    path = click.Path(path_type=Path)
    flag = click.option("--local", type=path, metavar="DATA", help=_LOCAL_HELP)
    return flag(with_options(CONNECTION)(with_target))


def with_options(names: Iterable[str]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command these options of a mount; it is called with `given`: their texts by name."""
    chosen = tuple(names)

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @wraps(command)
        def with_given(*args: Any, **others: Any) -> T:
            texts = {name: others.pop(name) for name in chosen}
            given = {name: text for name, text in texts.items() if text}
            return command(*args, given=given, **others)

        decorated: Callable[..., T] = with_given
        for name in reversed(chosen):
            decorated = _parameter(OPTIONS[name])(decorated)
        return decorated

    return decorate


def call(operation: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an operation in trio.

    Raises:
        Failed: It failed for an expected reason.
        OSError: What it printed could not be written.
    """
    with collecting_later():
        import trio

    try:
        with failures_told():
            return trio.run(operation, *args)
    except BaseExceptionGroup as group:
        # The embedded server runs in a nursery, which puts all that is raised beside it in a group.
        error, *others = _leaves(group)
        if others or not isinstance(error, OSError):
            raise
        raise error from group


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn expected failures, also within groups, into `Failed`."""
    try:
        yield
    except FileSystemError as exc:
        raise _failed(exc) from exc
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        if any(isinstance(error, KeyboardInterrupt) for error in errors):
            raise KeyboardInterrupt from group
        expected = [error for error in errors if isinstance(error, FileSystemError)]
        if len(expected) != len(errors):
            raise
        raise _failed(expected[0]) from group


def _parameter(option: Option) -> Callable[[Callable[..., T]], Callable[..., T]]:
    default = f"  [default: {option.default}]" if option.default not in ("", "{}") else ""
    metavar = option.unit.upper() or "NUMBER"
    return click.option(option.flag, option.name, metavar=metavar, help=option.help + default)


def _target(local: Path | None, given: dict[str, str]) -> Target:
    options = options_of(given)
    if local is None:
        return Target(connection=connection_from(options, os.environ), data=None)
    if options.uds is not None or "base_url" in given:
        raise click.UsageError("--local and --base-url or --uds exclude one another")
    # The embedded server that is started here knows no keys: none is sent to it.
    connection = Connection(
        base_url=SOCKET_BASE_URL,
        timeout=options.timeout,
        transfer_timeout=options.transfer_timeout,
        max_connections=options.max_connections,
    )
    return Target(connection=connection, data=local.expanduser().absolute())


def options_of(given: Mapping[str, str]) -> Options:
    """The settings, with those that were given on the command line.

    Raises:
        click.UsageError: One of them makes no sense.
    """
    try:
        return load(file=None, environ=os.environ, given=given)
    except OptionError as exc:
        raise click.UsageError(str(exc)) from exc


def _failed(error: FileSystemError) -> Failed:
    return _FAILURES.get(type(error), Failed)(printable(str(error)))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
