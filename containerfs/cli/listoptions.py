"""The flags of every list command."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

T = TypeVar("T")

_FLAGS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option("--after", metavar="ID", help="Begin after this object."),
    click.option(
        "--limit",
        type=click.IntRange(1, 100),
        default=100,
        help="Objects asked for at a time  [default: 100]",
    ),
    click.option(
        "--order",
        type=click.Choice(["asc", "desc"]),
        default="desc",
        help="By the time of creation  [default: desc]",
    ),
    click.option(
        "--max-items",
        "most",
        type=click.IntRange(-1),
        callback=lambda ctx, param, value: None if value == -1 else value,
        help="Print at most so many; -1 for all  [default: -1]",
    ),
)


def list_options(command: Callable[..., T]) -> Callable[..., T]:
    """Call a command with `after`, `limit`, `order` and `most`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
