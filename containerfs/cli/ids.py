"""Ids on the command line: by flag, or by position, as in the official command line."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

T = TypeVar("T")


def container_id(command: Callable[..., T]) -> Callable[..., T]:
    """Call a command with `container_id`."""
    return _by_flag_or_position("container_id")(command)


def container_and_file_id(command: Callable[..., T]) -> Callable[..., T]:
    """Call a command with `container_id` and `file_id`."""
    return _by_flag_or_position("container_id", "file_id")(command)


def _by_flag_or_position(*names: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @wraps(command)
        def with_ids(*, ids: tuple[str, ...], **given: Any) -> T:
            flags = {name: given.pop(name) for name in names}
            return command(**_chosen(ids, flags), **given)

        for name in reversed(names):
            flag = f"--{name.replace('_', '-')}"
            help_text = f"The {name.split('_')[0]}'s id; it can also be given by position."
            with_ids = click.option(flag, name, metavar="ID", help=help_text)(with_ids)
        metavar = " ".join(f"[{name.upper()}]" for name in names)
        return click.argument("ids", nargs=-1, metavar=metavar)(with_ids)

    return decorate


def _chosen(words: tuple[str, ...], flags: dict[str, str | None]) -> dict[str, str]:
    """The ids: those without a flag are the words, in order.

    Raises:
        UsageError: One is missing or empty, or there are too many.
    """
    left = list(words)
    found = {}
    for name, given in flags.items():
        found[name] = given if given is not None else (left.pop(0) if left else "")
        if not found[name]:
            raise click.UsageError(f"missing {name.replace('_', ' ')}")
    if left:
        raise click.UsageError(f"unexpected argument {left[0]!r}")
    return found
