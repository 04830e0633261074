"""What is still to be sent, on a line of a terminal, while an end waits for it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Tell = Callable[[int, int], None]  # told the files and bytes that are left

INTERVAL = 0.25  # seconds from one telling to the next


@contextmanager
def unsent_line(*, hint: str = "") -> Iterator[Tell | None]:
    """A line on standard error, from the first telling on; None where nobody looks.

    Args:
        hint: Words at its end.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        yield _Line(stack, hint)


class _Line:
    """The line; it is gone when the stack is closed."""

    def __init__(self, stack: ExitStack, hint: str) -> None:
        self._stack = stack
        self._hint = hint
        self._show: Callable[[str], None] | None = None

    def __call__(self, files: int, size: int) -> None:
        from rich.filesize import decimal

        if self._show is None:
            self._show = _shown(self._stack)
        what = f"{files} {'file' if files == 1 else 'files'}, {decimal(size)}"
        self._show(f"{what} left to send{self._hint}" if files else "finishing")


def _shown(stack: ExitStack) -> Callable[[str], None]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    console = Console(stderr=True)
    progress = stack.enter_context(Progress(*columns, console=console, transient=True))
    task = progress.add_task("")
    return lambda text: progress.update(task, description=text)
