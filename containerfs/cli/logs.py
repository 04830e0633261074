"""The log of a mount: where it goes, and what may never be in it.

Servers choose names and ids, and may repeat a key in any of them: no line carries a key, and none
holds control characters, so that nobody forges a line or commands the terminal that shows it.
"""

import logging
import os
import sys
from pathlib import Path

import click

from containerfs.api.connection import Connection
from containerfs.cli.logvolume import VolumeFilter
from containerfs.cli.output import printable

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


def log_to(file: Path | None, *, level: str, connection: Connection) -> None:
    """Log to the file or to standard error, once for the process.

    Raises:
        click.ClickException: The file can't be written.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            handler = logging.FileHandler(file)
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}") from error
    handler.setFormatter(SafeFormatter(connection))
    handler.addFilter(VolumeFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
