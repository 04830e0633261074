"""What a child process says on its standard error, as entries of our log.

A line is an entry, and so is a traceback, with the line before it: whoever limits the log by the
entry then leaves out a whole traceback or nothing of it.
"""

import logging
from collections.abc import Callable

import trio

_BEGIN = "Traceback (most recent call last):"
# What comes between two tracebacks of one failure.
_BETWEEN = (
    "",
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Failure(Exception):
    """An error in the child: its traceback, as it was told."""


async def relay(stream: trio.abc.ReceiveStream, log: logging.Logger, *, who: str) -> None:
    """Log what the child says, until it ends.

    Args:
        who: The child's name, which begins each entry.
    """
    entries = _Entries(lambda lines: _tell(lines, log, who))
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            entries.add(line.decode(errors="replace").rstrip())
        if not rest:  # it pauses: what has come is whole
            entries.pause()
    entries.end()


class _Entries:
    """Lines, put together."""

    def __init__(self, tell: Callable[[list[str]], None]) -> None:
        self._tell = tell
        self._lines: list[str] = []
        self._is_in_traceback = False

    def add(self, line: str) -> None:
        if self._is_in_traceback:
            self._lines.append(line)
            self._is_in_traceback = not line or line.startswith(" ")  # the exception ends it
            return
        self._is_in_traceback = line == _BEGIN
        if not (self._is_in_traceback or line in _BETWEEN):
            self.end()
        self._lines.append(line)

    def pause(self) -> None:
        if not self._is_in_traceback:
            self.end()

    def end(self) -> None:
        lines, self._lines = self._lines, []
        self._is_in_traceback = False
        if any(lines):
            self._tell(lines)


def _tell(lines: list[str], log: logging.Logger, who: str) -> None:
    if _BEGIN not in lines:
        for line in filter(None, lines):
            log.warning("%s: %s", who, line)
        return
    # By these words the limit knows what comes again and again: what differs stays out of them.
    kind = next(line for line in reversed(lines) if line).partition(":")[0]
    failure = Failure("\n".join(lines))
    log.error("%s: %s", who, kind, exc_info=(Failure, failure, None))
