"""What the kernel has cached of files: content given to it early, attributes taken back."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pyfuse3

from containerfs.fs.tree.nodes import File

log = logging.getLogger(__name__)


def give_content(file: File, data: bytes) -> None:
    """Put *data*, all of what *file* holds on the server, into the kernel's pages of it.

    Reading it then asks nobody. Nothing is done while it is open: the kernel would wait for pages
    that a read has locked until we answer it, which we do not while the kernel waits. Pages of an
    older version are not mixed with it either: those that the next open is to drop are left alone.

    Source: fuse_notify_store in the kernel's fs/fuse/dev.c.
    """
    if file.opens or not file.nlookup or not file.pages_valid or file.told_size != len(data):
        return
    with _noted(file):
        pyfuse3.notify_store(file.ino, 0, data)


def take_attributes_back(file: File) -> None:
    """Have the kernel ask for the attributes of *file* before it uses them again.

    It cuts what is read at the size that it was told, for as long as it was told to believe that,
    rounded up to its clock's next tick. The pages stay: to drop them it would wait for those that
    a read has locked.

    Source: fuse_reverse_inval_inode in the kernel's fs/fuse/inode.c.
    """
    with _noted(file):
        pyfuse3.invalidate_inode(file.ino, attr_only=True)


@contextmanager
def _noted(file: File) -> Iterator[None]:
    """What the kernel does not take goes to the log."""
    try:
        yield
    except OSError as exc:
        if exc.errno != errno.ENOENT:  # the kernel has forgotten it meanwhile
            log.info("the kernel's cache of inode %d is as it was: %s", file.ino, exc)
