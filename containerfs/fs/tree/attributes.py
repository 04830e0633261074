"""What `stat` shows, and how it is changed: the server's facts, overlaid by what was set here."""

import time
from dataclasses import dataclass
from stat import S_ISGID, S_ISUID, S_IXGRP
from typing import Protocol

from containerfs.cache.state import LocalNode
from containerfs.fs.tree.inodes import ROOT_INO
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node, Symlink

BLOCK_SIZE = 1 << 20  # bytes a program had best read or write at once
SECOND = 1_000_000_000  # nanoseconds
_CLOCK_REALTIME_COARSE = 5  # linux/time.h; the time module has no name for it


class Stat(Protocol):
    """pyfuse3.EntryAttributes, as far as it is used here."""

    st_ino: int
    st_mode: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_blksize: int
    st_blocks: int
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Owner:
    """Who owns what nobody else was made the owner of, and which permissions are taken away."""

    uid: int
    gid: int
    umask: int
    born: int  # nanoseconds; the time of what has no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What `setattr` is to set; None leaves it as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        return self == Change()

    def apply(self, local: LocalNode) -> None:
        """Set what is to be set on what is remembered of a node; that changes it now."""
        for name in ("mode", "uid", "gid", "atime_ns", "mtime_ns"):
            value = getattr(self, name)
            if value is not None:
                setattr(local, name, value)
        local.ctime_ns = now_ns()


def begin(node: Node, local: LocalNode, *, mode: int, uid: int, gid: int) -> None:
    """Remember who made *node*, which is in its directory already, now and with which permissions.

    A directory with the set-group-id bit hands its group down, and the bit itself to directories.

    Source: inode_init_owner() and mode_strip_sgid() in the kernel's fs/inode.c.
    """
    local.mode, local.uid, local.gid = mode & 0o7777, uid, gid
    above = node.parent.local if node.parent is not None else None
    if above is not None and above.mode is not None and above.mode & S_ISGID:
        local.gid = above.gid
        if isinstance(node, Directory):
            local.mode |= S_ISGID
        elif above.gid != gid:  # nobody gets by it into a group that may not be theirs
            local.mode &= ~S_ISGID
    local.atime_ns = local.mtime_ns = local.ctime_ns = now_ns()


def drop_privileges(local: LocalNode) -> None:
    """Take away the right to run as owner or group: other content is not what they gave it to.

    The kernel has this done for a write, but not for what O_TRUNC of an `open` throws away.

    Source: setattr_should_drop_suidgid() in the kernel's fs/attr.c.
    """
    if local.mode is not None:
        local.mode &= ~(S_ISUID | S_ISGID if local.mode & S_IXGRP else S_ISUID)


def fill(stat: Stat, node: Node, owner: Owner) -> None:
    """Write the attributes of *node* into *stat*; a size that nobody knows yet is shown as 0."""
    local = node.local
    mode = local.mode if local is not None else None
    if mode is None:
        mode = 0o777 if isinstance(node, Symlink) else node_mode(node) & ~owner.umask
    stat.st_ino = node.ino
    stat.st_mode = node.format | mode
    stat.st_uid = owner.uid if local is None or local.uid is None else local.uid
    stat.st_gid = owner.gid if local is None or local.gid is None else local.gid
    size = 0
    # 1 for directories, too: a count that tells how many others are in it is believed by programs
    # that walk a tree, and is wrong before it was listed, or when somebody else makes one.
    stat.st_nlink = 0 if node.parent is None and node.ino != ROOT_INO else 1
    if not isinstance(node, Directory):
        size = (node.size or 0) if isinstance(node, File) else len(getattr(node, "target", b""))
    stat.st_size = size
    stat.st_blksize = BLOCK_SIZE
    stat.st_blocks = (size + 511) // 512
    mtime = local.mtime_ns if local is not None else None
    if mtime is None:
        mtime = _server_time(node, owner)
    stat.st_mtime_ns = mtime
    stat.st_atime_ns = mtime if local is None or local.atime_ns is None else local.atime_ns
    stat.st_ctime_ns = mtime if local is None or local.ctime_ns is None else local.ctime_ns


def node_mode(node: Node) -> int:
    """The permissions of what nobody set permissions on, before the umask."""
    return 0o777 if isinstance(node, Directory) else 0o666


def _server_time(node: Node, owner: Owner) -> int:
    if isinstance(node, File) and node.remote is not None:
        return node.remote.created * SECOND
    container = node.container
    if isinstance(container, ContainerDirectory) and container.remote.created:
        return container.remote.created * SECOND
    return owner.born


def now_ns() -> int:
    """The time that changes made here get, from the clock that the kernel takes times from.

    The finer clock is some milliseconds ahead of it: after `touch`, for which the kernel tells its
    own time, a file would be older than before. Source: current_time() in fs/inode.c.
    """
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def storable(time_ns: int) -> int:
    """The nearest time that can be remembered: like a disk, which does not refuse one either."""
    return min(max(time_ns, -(2**63)), 2**63 - 1)
