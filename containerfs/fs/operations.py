"""The kernel's requests, as pyfuse3 brings them.

Each handler turns numbers and bytes into nodes and names, calls what does the work, and turns the
result back.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence

import pyfuse3
import trio

from containerfs.errors import IsADirectory, NotFound, NotPermitted, NotSupported, Stale
from containerfs.fs.entries.making import Making
from containerfs.fs.entries.removing import Removing
from containerfs.fs.entries.renaming import Renaming
from containerfs.fs.files.closing import Closing
from containerfs.fs.files.opening import Opening
from containerfs.fs.files.reading import Reading
from containerfs.fs.files.writing import Writing
from containerfs.fs.kernel.boundary import boundary
from containerfs.fs.kernel.callers import program
from containerfs.fs.kernel.handles import DOTS
from containerfs.fs.kernel.notifying import is_own_thread
from containerfs.fs.listings.browsing import Browsing
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.names.names import NAME_MAX, from_kernel, to_kernel
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.outgoing.uncertain import UncertainRenames
from containerfs.fs.tree.attributes import Change, Owner, fill, storable
from containerfs.fs.tree.nodes import Directory, File, Node, Symlink
from containerfs.fs.tree.tree import Tree
from containerfs.fs.tree.xattrs import Xattrs
from containerfs.upload.outstanding import Outstanding

log = logging.getLogger(__name__)

LS = "ls"  # a program that wants no attributes of users
BLOCK = 4096  # bytes, of statfs
TOTAL = 1 << 50  # bytes that statfs pretends there are: the service tells no limit


def _nothing() -> None:
    """Nobody wants to know."""


class Operations(pyfuse3.Operations):
    """pyfuse3's request handlers."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self,
        *,
        tree: Tree,
        namespace: Namespace,
        opening: Opening,
        reading: Reading,
        writing: Writing,
        closing: Closing,
        making: Making,
        removing: Removing,
        renaming: Renaming,
        sending: Sending,
        outstanding: Outstanding,
        uncertain: UncertainRenames,
        xattrs: Xattrs,
        owner: Owner,
        op_timeout: float,
    ) -> None:
        super().__init__()
        self._tree = tree
        self._namespace = namespace
        self._inodes = tree.inodes
        self._opening = opening
        self._reading = reading
        self._writing = writing
        self._closing = closing
        self._making = making
        self._removing = removing
        self._renaming = renaming
        self._sending = sending
        self._outstanding = outstanding
        self._uncertain = uncertain
        self._xattrs = xattrs
        self._owner = owner
        self._browsing = Browsing(tree=tree, namespace=namespace, op_timeout=op_timeout)
        self.op_timeout = op_timeout
        self.on_init: Callable[[], None] = _nothing  # called as the kernel's first request comes

    def init(self) -> None:
        self.on_init()

    # Names.

    @boundary(deadline=False)  # what is known already is not waited for
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory, text = self._inodes.directory(parent_inode), from_kernel(name)
        if not self._namespace.is_current(directory):
            return await self._lookup(directory, text)
        node = self._namespace.entry(directory, text)
        return self._absent(directory) if node is None else self._known(node)

    @boundary()
    async def _lookup(self, directory: Directory, name: str) -> pyfuse3.EntryAttributes:
        try:
            node = await self._namespace.lookup(directory, name, early=True)
        except NotFound:
            return self._absent(directory)
        return self._known(node)

    def _absent(self, directory: Directory) -> pyfuse3.EntryAttributes:
        """A negative entry, believed by the kernel as long as the listing is."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = 0
        expires = self._namespace.entries_expire(directory)
        entry.entry_timeout = max(0.0, expires - trio.current_time())
        return entry

    def _known(self, node: Node) -> pyfuse3.EntryAttributes:
        """The attributes of *node*, counted as one more lookup."""
        node.nlookup += 1
        return self._attributes(node)

    def _attributes(self, node: Node, *, validity: float | None = None) -> pyfuse3.EntryAttributes:
        """Args:
        validity: That of *node*, where it is known already.
        """
        entry = pyfuse3.EntryAttributes()
        fill(entry, node, self._owner)
        if isinstance(node, File):
            node.told_size = node.size or 0  # not the equal number of `entry`: one object fewer
        if validity is None:
            validity = self._validity(node)
        entry.entry_timeout = validity
        entry.attr_timeout = 0.0 if isinstance(node, File) and node.size is None else validity
        return entry

    def _validity(self, node: Node) -> float:
        """Seconds for which what the kernel is told of *node* holds: never past the listing."""
        return max(0.0, self._namespace.expires(node) - trio.current_time())

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._inodes.forget(inode_list)

    @boundary(deadline=False)  # what is known already is not waited for
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self._inodes[inode]
        is_sized = not isinstance(node, File) or node.size is not None
        if is_sized and node.container is not node and self._namespace.is_current(node):
            return self._attributes(node)
        return await self._getattr(node)

    @boundary()
    async def _getattr(self, node: Node) -> pyfuse3.EntryAttributes:
        if node.parent is not None and not node.opens:
            await self._refresh(node)
        if isinstance(node, File) and node.size is None:
            if node.parent is None and not node.opens:
                raise Stale(f"{node.name!r} is gone")  # the kernel looks the name up again
            await self._reading.find_size(node)
        return self._attributes(node)

    async def _refresh(self, node: Node) -> None:
        if isinstance(node, File) and node.spool is not None:
            return
        await self._namespace.refresh(node.parent if node.container is node else node, early=True)  # type: ignore[arg-type]  # a container has a parent
        if node.parent is None:
            raise NotFound(node.name)

    @boundary(deadline=False)
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._inodes[inode]
        await self._namespace.settle(node)
        if fields.update_size:
            if not isinstance(node, File):
                raise IsADirectory(node.name)
            await self._writing.truncate_now(node, attr.st_size, fh=fh)
        change = Change(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=storable(attr.st_atime_ns) if fields.update_atime else None,
            mtime_ns=storable(attr.st_mtime_ns) if fields.update_mtime else None,
        )
        if not change.is_empty and not (isinstance(node, Directory) and is_own_thread(ctx.pid)):
            self._change(node, change)
        return self._attributes(node)

    def _change(self, node: Node, change: Change) -> None:
        if node.container is None and node.parent is not None:
            raise NotPermitted(node.name)
        if node is self._tree.root:
            raise NotPermitted("the top level belongs to who mounted it")
        change.apply(self._tree.local(node))
        self._tree.save(node)

    @boundary()
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        node = self._inodes[inode]
        if not isinstance(node, Symlink):
            raise NotFound(node.name)
        if node.parent is self._tree.by_id:
            for container in self._tree.containers.values():
                if self._tree.by_id_name(container) == node.name:
                    return b"../" + to_kernel(container.name)
        return node.target

    @boundary()
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._inodes.directory(parent_inode)
        return self._known(
            await self._making.mkdir(parent, from_kernel(name), mode, uid=ctx.uid, gid=ctx.gid)
        )

    @boundary()
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._inodes.directory(parent_inode)
        return self._known(
            self._making.symlink(parent, from_kernel(name), target, uid=ctx.uid, gid=ctx.gid)
        )

    @boundary()
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise NotPermitted("the service has no hard links")

    @boundary()
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent, text = self._inodes.directory(parent_inode), from_kernel(name)
        if not stat.S_ISREG(mode):
            return self._known(self._making.special(parent, text, mode, uid=ctx.uid, gid=ctx.gid))
        fh, file = self._opening.create(parent, text, mode, os.O_WRONLY, uid=ctx.uid, gid=ctx.gid)
        entry = self._known(file)
        self._closing.release(fh)
        return entry

    @boundary()
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        parent = self._inodes.directory(parent_inode)
        await self._removing.rmdir(parent, from_kernel(name))

    @boundary(deadline=False)
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        parent = self._inodes.directory(parent_inode)
        await self._removing.unlink(parent, from_kernel(name))

    @boundary(deadline=False)
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        await self._renaming.rename(
            self._inodes.directory(parent_inode_old),
            from_kernel(name_old),
            self._inodes.directory(parent_inode_new),
            from_kernel(name_new),
            flags,
        )

    # Directories.

    @boundary()
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return await self._browsing.open(self._inodes.directory(inode))

    @boundary()
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = self._browsing[fh]
        if start_id == 0:
            await self._browsing.rewind(handle)
        position, is_answered = start_id, False
        validity: float | None = None  # of files; they have their directory's listing in common
        while not is_answered and await self._browsing.has_name(handle, position):
            for place in range(position, len(handle.names)):
                name, position = handle.names[place], place + 1
                node = handle.node(name)
                if node is None:
                    continue
                if validity is None and isinstance(node, File):
                    validity = self._validity(node)
                known = validity if isinstance(node, File) else None
                attributes = self._attributes(node, validity=known)
                if not pyfuse3.readdir_reply(token, to_kernel(name), attributes, position):
                    return
                is_answered = True
                if name not in DOTS:
                    node.nlookup += 1

    async def releasedir(self, fh: int) -> None:
        directory = self._browsing.close(fh)
        if directory is not None:
            self._inodes.drop_unused(directory)

    @boundary(deadline=False)
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        directory = self._browsing[fh].directory
        await self._sending.send_below(directory)
        container = directory.container
        if directory is self._tree.root:
            await self._outstanding.sync()
        elif container is not None:
            await self._outstanding.sync(container.remote.id, directory.path)
        with trio.move_on_after(self.op_timeout):
            await self._uncertain.try_to_settle(container.remote.id if container else None)

    # Files.

    @boundary()
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._inodes[inode]
        if not isinstance(node, File):
            raise IsADirectory(node.name)
        fh, keep_cache = await self._opening.open(node, flags, pid=ctx.pid, uid=ctx.uid)
        return pyfuse3.FileInfo(fh=fh, keep_cache=keep_cache)

    @boundary(deadline=False)  # nothing is waited for
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        parent, text = self._inodes.directory(parent_inode), from_kernel(name)
        existing = self._opening.existing(parent, text, flags)
        if existing is not None:
            return await self.open(existing.ino, flags, ctx), self._known(existing)
        fh, file = self._opening.create(parent, text, mode, flags, uid=ctx.uid, gid=ctx.gid)
        return pyfuse3.FileInfo(fh=fh, keep_cache=True), self._known(file)

    @boundary()
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._reading.read(fh, off, size)

    @boundary(deadline=False)
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._writing.write(fh, off, buf)

    @boundary(deadline=False)
    async def flush(self, fh: int) -> None:
        await self._closing.flush(fh)

    @boundary(deadline=False)
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._closing.fsync(fh)

    async def release(self, fh: int) -> None:
        try:
            self._closing.release(fh)
        except Exception:
            log.exception("release failed")

    # The rest.

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        # `ls -l` asks for several of these for each file, but not again on a file system that
        # does not support the first (coreutils, src/ls.c: errno_unsupported).
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        return await self._getxattr(inode, name)

    @boundary()
    async def _getxattr(self, inode: int, name: bytes) -> bytes:
        return self._xattrs.get(self._inodes[inode], os.fsdecode(name))

    @boundary()
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        # A newer `ls -l` asks this of each file, to look for access control lists and security
        # contexts, of which there are none (gnulib, lib/file-has-acl.c); told so, it asks no other
        # file. That of uutils takes any attribute for a list.
        if program(ctx.pid) == LS:
            raise NotSupported("attributes for ls")
        return [os.fsencode(name) for name in self._xattrs.names(self._inodes[inode])]

    @boundary()
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await self._namespace.settle(self._inodes[inode])
        self._xattrs.set(self._inodes[inode], os.fsdecode(name), value)

    @boundary()
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._namespace.settle(self._inodes[inode])
        self._xattrs.remove(self._inodes[inode], os.fsdecode(name))

    @boundary()
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        used = self._tree.total_size() // BLOCK
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK
        data.f_blocks = TOTAL // BLOCK
        data.f_bfree = data.f_bavail = max(TOTAL // BLOCK - used, 0)
        data.f_files = 1 << 32
        data.f_ffree = data.f_favail = (1 << 32) - len(self._inodes)
        data.f_namemax = NAME_MAX
        return data
