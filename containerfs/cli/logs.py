"""The log of a mount: where it goes, and what may never be in it.

Servers choose names and ids, and may repeat a key in any of them: no line carries a key, and none
holds control characters, so that nobody forges a line or commands the terminal that shows it.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click

from containerfs.api.connection import Connection
from containerfs.cli.logvolume import VolumeLimit
from containerfs.cli.visible import printable

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class SafeFormatter(logging.Formatter):
    """One line an entry, and its traceback; without the secrets of a connection."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(_FORMAT)
        self._connection = connection

    def format(self, record: logging.LogRecord) -> str:
        """The entry as text."""
        return self._connection.redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Its line, in which even line breaks are escaped."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's own name
        """Its traceback, with the line breaks that it has."""
        text = super().formatException(ei)  # type: ignore[arg-type]  # typeshed names it privately
        return "\n".join(printable(line) for line in text.split("\n"))


class _StandardError(logging.StreamHandler[TextIO]):
    """Standard error as it is at each entry: a line of progress keeps clear of what is written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def logging_to(file: Path | None, *, level: str, connection: Connection) -> Iterator[None]:
    """Log to the file or to standard error, inside; at the end everything has been told.

    Raises:
        click.ClickException: The file can't be written.
    """
    target: logging.Handler = _StandardError(sys.stderr)
    if file is not None:
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            target = logging.FileHandler(file)
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}") from error
    target.setFormatter(SafeFormatter(connection))
    handler = VolumeLimit(target)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
