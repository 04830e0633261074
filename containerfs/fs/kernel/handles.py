"""Open files and directories, by the numbers that the kernel calls them by."""

import math
import os
from collections.abc import Iterator
from typing import Generic, TypeVar

from containerfs.errors import BadHandle
from containerfs.fs.tree.early import Early
from containerfs.fs.tree.nodes import Directory, File, Node

DOTS = (".", "..")  # no entry has such a name

HandleT = TypeVar("HandleT", "FileHandle", "DirectoryHandle")


class FileHandle:
    """An open file.

    Attributes:
        flushed: A close of one of its descriptors has sent what was written through it.
        is_outdated: It was open while the server came to have another version, which is not mixed
            with what was read through it.
        wrote: It changed the file since it was opened.
    """

    __slots__ = ("appends", "file", "flags", "flushed", "is_outdated", "wrote")

    def __init__(self, file: File, flags: int) -> None:
        self.file = file
        self.flags = flags
        self.appends = bool(flags & os.O_APPEND)
        self.flushed = False
        self.is_outdated = False
        self.wrote = False

    @property
    def can_write(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class DirectoryHandle:
    """An open directory: the names that it held when it was opened, or last rewound.

    Attributes:
        names: What it held, "." and ".." first; each keeps its place.
        early: What has more names, while the directory's first listing is on its way.
        patience: Seconds that its reader may still wait for a listing on its way.
        believed_until: When it is asked for again, on trio's clock: to open it and to read it for
            the first time is one call of a program, to rewind and read it is another.
    """

    __slots__ = ("believed_until", "directory", "early", "names", "patience")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.names: list[str] = []
        self.early: Early | None = None
        self.patience = math.inf
        self.believed_until = 0.0

    def node(self, name: str) -> Node | None:
        """What *name* means now: it may have gone since, or be another one."""
        if name == ".":
            return self.directory
        if name == "..":
            return self.directory.parent or self.directory
        return self.directory.children.get(name)

    def rewind(self) -> None:
        """Take down what the directory holds now: later changes disturb nobody's place in it."""
        self.names = [*DOTS]
        if self.early is None:
            # By name, so that a program that opens them in this order is noticed (`Prefetch`).
            self.names += sorted(self.directory.children)

    def read_on(self) -> int:
        """Take down what has come since; returns how many names that is in all."""
        if self.early is not None:
            self.names += self.early.names[len(self.names) - len(DOTS) :]
        return len(self.names) - len(DOTS)

    def end(self) -> None:
        """Take down the rest: all is here now."""
        known = set(self.names)
        self.names += [name for name in self.directory.children if name not in known]
        self.early = None


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

    def __iter__(self) -> Iterator[HandleT]:
        return iter(self._handles.values())

    def remove(self, fh: int) -> HandleT | None:
        """The handle, open no more; None where it was not."""
        return self._handles.pop(fh, None)
