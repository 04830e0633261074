"""Progress of a transfer, drawn on standard error when that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from containerfs.cli.visible import printable

Advance = Callable[[int], None]  # told the bytes transferred so far


@contextmanager
def transfer_bar(name: str, *, total: int | None) -> Iterator[Advance]:
    """A bar for one transfer; nothing at all where nobody looks.

    Args:
        total: Bytes, None where unknown.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(Text(printable(name)).plain, total=total)
        yield lambda done: progress.update(task, completed=done)
