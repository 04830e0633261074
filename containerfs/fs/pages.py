"""Content given to the kernel before a program asks for it."""

import errno
import logging

import pyfuse3

from containerfs.fs.nodes import File

log = logging.getLogger(__name__)


def give(file: File, data: bytes) -> None:
    """Put *data*, all of what *file* holds on the server, into the kernel's pages of it.

    Reading it then asks nobody. Nothing is done while it is open: the kernel would wait for pages
    that a read has locked until we answer it, which we do not while the kernel waits. Pages of an
    older version are not mixed with it either: those that the next open is to drop are left alone.

    Source: fuse_notify_store in the kernel's fs/fuse/dev.c.
    """
    if file.opens or not file.nlookup or not file.pages_valid or file.told_size != len(data):
        return
    try:
        pyfuse3.notify_store(file.ino, 0, data)
    except OSError as exc:
        if exc.errno != errno.ENOENT:  # the kernel has forgotten it meanwhile
            log.info("the kernel does not take the content of inode %d: %s", file.ino, exc)
