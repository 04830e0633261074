"""Where a downloaded file goes: standard output, a file, or a name in a directory.

A regular file appears whole or not at all: it is written beside its place under another name, and
renamed when everything has arrived.
"""

import os
import posixpath
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from containerfs.errors import FileSystemError, LocalFault, from_os_error

Write = Callable[[bytes], object]
_LONGEST_NAME = 255  # bytes


@contextmanager
def destination(output: str | None, *, remote_path: str, file_id: str) -> Iterator[Write]:
    """Where the content goes, as a function that takes its pieces.

    Args:
        output: None or "-" for standard output, a directory, or a file.

    Raises:
        UsageError: Standard output is a terminal and was not asked for by "-".
        FileSystemError: The file cannot be made or written.
    """
    if output is None and sys.stdout.isatty():
        raise click.UsageError("the content may not be text; -o FILE saves it, -o - prints it")
    if output is None or output == "-":
        yield _to_stdout
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    if path.is_dir() or output.endswith("/"):
        target = path / local_name(remote_path, file_id=file_id)
    else:
        target = Path(os.path.realpath(path))
    is_special = target.exists() and not target.is_file()  # /dev/null, a pipe
    with _special(target) if is_special else _replacing(target) as write:
        yield write


def local_name(remote_path: str, *, file_id: str) -> str:
    """The last part of a remote path as a file name that leads nowhere else."""
    for candidate in (posixpath.basename(remote_path), file_id):
        name = "".join(_safe(char) for char in candidate)
        while len(name.encode()) > _LONGEST_NAME:
            name = name[:-1]
        if name not in ("", ".", ".."):
            return name
    return "content"


@contextmanager
def _replacing(target: Path) -> Iterator[Write]:
    partial = target.with_name(f".containerfs-{secrets.token_hex(8)}.part")
    with _local_failures(target):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(partial, flags, 0o666)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                yield lambda piece: _write_all(file.fileno(), piece)
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def _special(target: Path) -> Iterator[Write]:
    with _local_failures(target), open(target, "wb", buffering=0) as file:
        yield lambda piece: _write_all(file.fileno(), piece)


@contextmanager
def _local_failures(target: Path) -> Iterator[None]:
    try:
        yield
    except FileSystemError:
        raise
    except OSError as exc:
        error = from_os_error(exc, f"writing {target}")
        if type(error) is LocalFault:
            error = LocalFault(f"writing {target}: {exc.strerror}")
        raise error from exc


def _to_stdout(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _safe(char: str) -> str:
    if char == "/" or not char.isprintable():
        return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
    return char
