"""The file that a command uploads: a regular file as it is, anything else copied to disk first."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from containerfs.errors import FileSystemError, Invalid, from_os_error


@contextmanager
def opened_source(path: str) -> Iterator[tuple[int, int]]:
    """A descriptor of a regular file with the content, and its size in bytes.

    Args:
        path: A path, or "-" for standard input.

    Raises:
        FileSystemError: It cannot be read.
    """
    try:
        with _opened(path) as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and path != "-":
                yield file.fileno(), facts.st_size
                return
            if stat.S_ISDIR(facts.st_mode):
                raise Invalid(f"{path}: is a directory")
            with tempfile.TemporaryFile() as spool:
                shutil.copyfileobj(file, spool, 1024 * 1024)
                spool.flush()
                yield spool.fileno(), os.fstat(spool.fileno()).st_size
    except FileSystemError:
        raise
    except IsADirectoryError as exc:
        raise Invalid(f"{path}: is a directory") from exc
    except (FileNotFoundError, PermissionError) as exc:
        raise Invalid(f"{path}: {exc.strerror}") from exc
    except OSError as exc:
        raise from_os_error(exc, f"reading {path}") from exc


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
    else:
        with open(path, "rb") as file:
            yield file
