"""What the tree is made of: directories, files, and what exists on this machine only."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import trio

from containerfs.api.types import Container, RemoteFile
from containerfs.cache.cachefile import Content
from containerfs.cache.download import Download
from containerfs.cache.listing import Listing
from containerfs.cache.state import LocalNode
from containerfs.errors import FileSystemError
from containerfs.fs.tree.seldom import Seldom
from containerfs.upload.journal import Entry
from containerfs.upload.spool import Spool

if TYPE_CHECKING:
    from containerfs.fs.tree.early import Early


class Node:
    """An inode.

    Attributes:
        ino: The same for as long as the node lives, and where possible after a remount.
        parent: None once it has no name any more (removed, or replaced).
        nlookup: How often the kernel was told of it and has not given it back.
        opens: How many handles are open on it.
        local: What is remembered of it on this machine, if anything is.
    """

    __slots__ = ("ino", "local", "name", "nlookup", "parent", "seldom")
    kind = "file"
    format = stat.S_IFREG
    opens = Seldom(0)

    def __init__(self, *, ino: int, name: str, parent: Directory | None) -> None:
        self.ino = ino
        self.name = name
        self.parent = parent
        self.nlookup = 0
        self.local: LocalNode | None = None
        self.seldom: dict[str, Any] | None = None

    @property
    def container(self) -> ContainerDirectory | None:
        """The container it is in, or is; None for the root and what is in no container."""
        node: Node | None = self
        while node is not None and not isinstance(node, ContainerDirectory):
            node = node.parent
        return node

    @property
    def path(self) -> str:
        """Visible path below the container: "" for the container itself."""
        if isinstance(self.parent, ContainerDirectory):
            return self.name  # as nearly all do
        parts = []
        node: Node | None = self
        while node is not None and not isinstance(node, ContainerDirectory):
            parts.append(node.name)
            node = node.parent
        return "/".join(reversed(parts))


class Symlink(Node):
    """A symbolic link: it exists on this machine only."""

    __slots__ = ("target",)
    kind = "symlink"
    format = stat.S_IFLNK

    def __init__(self, *, ino: int, name: str, parent: Directory | None, target: bytes) -> None:
        super().__init__(ino=ino, name=name, parent=parent)
        self.target = target


class Fifo(Node):
    """A named pipe: the kernel moves the bytes, the mount holds the name. On this machine only."""

    __slots__ = ()
    kind = "fifo"
    format = stat.S_IFIFO


class Socket(Node):
    """The name that a Unix socket is bound to, on this machine only."""

    __slots__ = ()
    kind = "socket"
    format = stat.S_IFSOCK


SPECIAL: tuple[type[Fifo | Socket], ...] = (Fifo, Socket)


class File(Node):
    """A file: an object on the server, or bytes that are not there yet, or both.

    Attributes:
        remote: The object that holds its content on the server, where there is one.
        older: Other objects of the same path, hidden by `remote`; they go when it goes.
        spool: The newer content, where the server has not got it.
        entry: The journal's record of the spool.
        content: The cached content of `remote`, pinned while the file is open.
        download: The same on its way, joined while the file is open.
        true_size: What was found out where the server does not tell.
        pages_valid: Whether what the kernel may have cached is the content of now.
        changing: Held while the server's side of it changes: one upload, rename or removal at a
            time. Made when first needed.
        copying: Held while a spool is made from the content, for the same reason.
        error: What went wrong with its last upload, in words.
        unreported: The same, where it happened in the background, until a close or fsync tells.
        writers: How many of its handles may write.
        told_size: What the kernel takes for its size: from our last answer, and its own writes.
    """

    __slots__ = ("remote", "told_size")
    older = Seldom[tuple[RemoteFile, ...]](())
    spool = Seldom[Spool | None](None)
    entry = Seldom[Entry | None](None)
    content = Seldom[Content | None](None)
    download = Seldom[Download | None](None)
    true_size = Seldom[int | None](None)
    pages_valid = Seldom(True)
    error = Seldom[str | None](None)
    unreported = Seldom[FileSystemError | None](None)
    writers = Seldom(0)
    _changing = Seldom[trio.Lock | None](None)
    _copying = Seldom[trio.Lock | None](None)

    def __init__(self, *, ino: int, name: str, parent: Directory | None) -> None:
        super().__init__(ino=ino, name=name, parent=parent)
        self.remote: RemoteFile | None = None
        self.told_size = 0

    @property
    def changing(self) -> trio.Lock:
        lock = self._changing
        if lock is None:
            lock = self._changing = trio.Lock()
        return lock

    @property
    def copying(self) -> trio.Lock:
        lock = self._copying
        if lock is None:
            lock = self._copying = trio.Lock()
        return lock

    @property
    def size(self) -> int | None:
        """Bytes; None where nobody knows yet."""
        if self.seldom is not None:
            if self.spool is not None:
                return self.spool.size
            if self.true_size is not None:
                return self.true_size
        return self.remote.size if self.remote is not None else 0

    def stamp_spool(self) -> None:
        """Have the spool tell the time of the last change, until it is written to again."""
        if self.spool is not None and self.local is not None and self.local.ctime_ns is not None:
            self.spool.stamp(self.local.ctime_ns)

    @property
    def is_dirty(self) -> bool:
        """There is content that should be on the server and is not."""
        return self.spool is not None and not self.is_held

    @property
    def is_held(self) -> bool:
        """Its content stays on this machine while it has this name."""
        return self.entry is not None and self.entry.held

    @property
    def versions(self) -> tuple[RemoteFile, ...]:
        """Every object on the server that goes when this file goes, the newest first."""
        return self.older if self.remote is None else (self.remote, *self.older)

    @property
    def remote_ids(self) -> tuple[str, ...]:
        """The ids of those."""
        return tuple(file.id for file in self.versions)

    @property
    def own_ids(self) -> tuple[str, ...]:
        """The same, and those that its unsent content takes the place of, but for what is another
        file's by now: a server may keep the id of what it overwrites.
        """
        replaced = self.entry.replaces if self.entry is not None else ()
        ids = dict.fromkeys((*self.remote_ids, *replaced))
        container = self.container
        files = container.files if container is not None else {}
        return tuple(id for id in ids if files.get(id, self) is self)


class Directory(Node):
    """A directory; `subdirectories` counts those among its entries."""

    __slots__ = ("children", "subdirectories")
    kind = "directory"
    format = stat.S_IFDIR

    def __init__(self, *, ino: int, name: str, parent: Directory | None) -> None:
        super().__init__(ino=ino, name=name, parent=parent)
        self.children: dict[str, Node] = {}
        self.subdirectories = 0

    def path_of(self, name: str) -> str:
        """Visible path below the container of an entry *name* of this directory."""
        path = self.path
        return f"{path}/{name}" if path else name

    def attach(self, node: Node, name: str) -> None:
        """Give *node* the free name *name* here."""
        self.children[name] = node
        node.parent, node.name = self, name
        if isinstance(node, Directory):
            self.subdirectories += 1

    def detach(self, node: Node) -> None:
        """Take *node*'s name away."""
        del self.children[node.name]
        node.parent = None
        if isinstance(node, Directory):
            self.subdirectories -= 1

    def walk(self) -> Iterator[Node]:
        """Everything below, a directory before its entries."""
        pending = list(self.children.values())
        while pending:
            node = pending.pop()
            yield node
            if isinstance(node, Directory):
                pending.extend(node.children.values())

    def walk_directories(self) -> Iterator[Directory]:
        """The directories below; costs nothing for the entries of those that have none."""
        pending: list[Directory] = [self]
        while pending:
            directory = pending.pop()
            if directory is not self:
                yield directory
            if directory.subdirectories:
                entries = directory.children.values()
                pending += [node for node in entries if isinstance(node, Directory)]

    @property
    def is_kept(self) -> bool:
        """It exists whether or not it has entries."""
        return self.local is not None


class ContainerDirectory(Directory):
    """A container.

    Attributes:
        remote: The container as last described.
        files: Its file nodes by the id of the object they show.
        listing: The listing that the tree was last brought in line with.
        early: What is shown before there is one.
        is_watched: Its tree was in line with a listing before, so that a difference is a change.
        shown: The files that the tree is in line with; None where it is to be looked at anew.
        hidden: The ids of those of them that no node shows by itself.
        restored: Whether what is remembered on this machine is in the tree.
        is_snapshot: It expired while mounted: what is here can be read, nothing can be changed.
        backups: Files of scratch names that the server may have under other names, and what was
            one of them; None where nobody has looked yet.
    """

    __slots__ = (
        "backups",
        "early",
        "files",
        "hidden",
        "is_snapshot",
        "is_watched",
        "listing",
        "remote",
        "restored",
        "shown",
    )

    def __init__(self, *, ino: int, name: str, parent: Directory | None, remote: Container) -> None:
        super().__init__(ino=ino, name=name, parent=parent)
        self.remote = remote
        self.files: dict[str, File] = {}
        self.listing: Listing[RemoteFile] | None = None
        self.early: Early | None = None
        self.restored = False
        self.is_watched = False
        self.shown: tuple[RemoteFile, ...] | None = None
        self.hidden: frozenset[str] = frozenset()
        self.is_snapshot = False
        self.backups: set[File] | None = None
