"""Open files and directories, by the numbers that the kernel calls them by."""

import os
from typing import Generic, TypeVar

from containerfs.errors import BadHandle
from containerfs.fs.nodes import Directory, File, Node

HandleT = TypeVar("HandleT", "FileHandle", "DirectoryHandle")


class FileHandle:
    """An open file.

    Attributes:
        flushed: A close of one of its descriptors has sent what was written through it.
        wrote: It changed the file since it was opened.
    """

    __slots__ = ("appends", "file", "flags", "flushed", "wrote")

    def __init__(self, file: File, flags: int) -> None:
        self.file = file
        self.flags = flags
        self.appends = bool(flags & os.O_APPEND)
        self.flushed = False
        self.wrote = False

    @property
    def can_write(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class DirectoryHandle:
    """An open directory: the names that it held when it was opened, or last rewound.

    Attributes:
        entries: Each with the node that it means whatever happens: "." and ".." have one.
        believed_until: When it is asked for again, on trio's clock: to open it and to read it for
            the first time is one call of a program, to rewind and read it is another.
    """

    __slots__ = ("believed_until", "directory", "entries")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.entries: list[tuple[str, Node | None]] = []
        self.believed_until = 0.0

    def rewind(self) -> None:
        """Take down what the directory holds now: later changes disturb nobody's place in it."""
        directory = self.directory
        parent = directory.parent or directory
        entries: list[tuple[str, Node | None]] = [(".", directory), ("..", parent)]
        # By name, so that a program that opens them in this order is noticed (`Prefetch`).
        entries += [(name, None) for name in sorted(directory.children)]
        self.entries = entries


class Handles(Generic[HandleT]):
    """Handles by number; a number is not used twice."""

    def __init__(self) -> None:
        self._handles: dict[int, HandleT] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, handle: HandleT) -> int:
        fh = self._next
        self._next += 1
        self._handles[fh] = handle
        return fh

    def __getitem__(self, fh: int) -> HandleT:
        """Raises:
        BadHandle: It is not open.
        """
        try:
            return self._handles[fh]
        except KeyError:
            raise BadHandle(f"handle {fh}") from None

    def remove(self, fh: int) -> HandleT | None:
        """The handle, open no more; None where it was not."""
        return self._handles.pop(fh, None)
