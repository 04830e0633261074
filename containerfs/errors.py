"""Every failure the file system knows, each with the errno that a program sees.

Nothing outside this module and the FUSE boundary names an errno. A message carries the facts
(container, file, status, request id), never a key, never content.
"""

import errno


class FileSystemError(Exception):
    """An expected failure; `errno` is what the kernel is told.

    Args:
        message: The facts, in one line.
        request_id: The server's `x-request-id`, where an answer came; it ends the message.
        retriable: Whether doing the same later may succeed without anybody changing anything.
    """

    errno: int = errno.EIO
    retriable: bool = False

    def __init__(
        self, message: str = "", *, request_id: str | None = None, retriable: bool | None = None
    ) -> None:
        super().__init__(f"{message} (request {request_id})" if request_id else message)
        self.request_id = request_id
        if retriable is not None:
            self.retriable = retriable


# What the service answers.


class NotFound(FileSystemError):
    """No such container, file or name (404)."""

    errno = errno.ENOENT


class Expired(FileSystemError):
    """The container has expired: its data is gone and does not come back."""

    errno = errno.ESTALE


class AccessDenied(FileSystemError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""

    errno = errno.EACCES


class Invalid(FileSystemError):
    """The request or the file's content was refused (400, 415, 422), or an argument is no good."""

    errno = errno.EINVAL


class Unsupported(FileSystemError):
    """The server has no such operation (405, 501): it can be read, not written."""

    errno = errno.EROFS


class Conflict(FileSystemError):
    """Somebody else is changing the same thing (409)."""

    errno = errno.EBUSY
    retriable = True


class TooLarge(FileSystemError):
    """Larger than the server (413) or `max_file_size` allows."""

    errno = errno.EFBIG


class RateLimited(FileSystemError):
    """429 until the deadline. EIO, because POSIX lets few calls answer EAGAIN; see `Again`."""

    retriable = True


class ServerFault(FileSystemError):
    """The server failed (5xx), or its answer makes no sense, or has the wrong length."""

    retriable = True


class WrongLength(ServerFault):
    """What came as a file's content is not as long as listed: another version, or none."""

    retriable = False


class AnotherVersion(WrongLength):
    """Some of a file's content was read, and the rest is another version's, as its etag tells."""


class ServerFull(ServerFault):
    """The server has no room (507): what was written is kept, and sent when it has."""

    errno = errno.ENOSPC


class Uncertain(ServerFault):
    """A POST was sent and its answer was lost: the server may or may not have done it."""


class Unanswered(Uncertain):
    """A POST was sent and no answer came in time: the server may or may not have done it."""

    errno = errno.ETIMEDOUT


class TimedOut(FileSystemError):
    """The deadline passed, or a transfer stood still for too long."""

    errno = errno.ETIMEDOUT
    retriable = True


class Unreachable(FileSystemError):
    """No connection to the server: refused, no route, no name, or TLS failed."""

    errno = errno.EHOSTUNREACH
    retriable = True


# What our own disk answers.


class NoSpace(FileSystemError):
    """The local disk, or the quota on it, is full."""

    errno = errno.ENOSPC


class LocalFault(FileSystemError):
    """The local cache or spool failed: not ENOENT, which would speak of the user's file."""


class TooManyOpen(LocalFault):
    """Neither the limit of this process nor that of the system lets more files be open."""

    errno = errno.ENFILE


# What a file system answers.


class Exists(FileSystemError):
    """The name is taken."""

    errno = errno.EEXIST


class NotADirectory(FileSystemError):
    """A directory is needed here."""

    errno = errno.ENOTDIR


class IsADirectory(FileSystemError):
    """A file is needed here."""

    errno = errno.EISDIR


class NotEmpty(FileSystemError):
    """The directory, or the container, still has entries."""

    errno = errno.ENOTEMPTY


class NameTooLong(FileSystemError):
    """A name is longer than 255 bytes."""

    errno = errno.ENAMETOOLONG


class CrossDevice(FileSystemError):
    """This can't be renamed in place; `mv` copies instead."""

    errno = errno.EXDEV


class NotPermitted(FileSystemError):
    """The file system has no such operation on this object."""

    errno = errno.EPERM


class ReadOnly(FileSystemError):
    """The mount, or this container, takes no changes."""

    errno = errno.EROFS


class Busy(FileSystemError):
    """In use."""

    errno = errno.EBUSY


class NoAttribute(FileSystemError):
    """No such extended attribute."""

    errno = errno.ENODATA


class OutOfRange(FileSystemError):
    """An extended attribute does not fit."""

    errno = errno.ERANGE


class BadHandle(FileSystemError):
    """The file was not opened for this."""

    errno = errno.EBADF


class Stale(FileSystemError):
    """The object behind an open handle is gone."""

    errno = errno.ESTALE


class NotSupported(FileSystemError):
    """A flag or attribute name the file system does not know."""

    errno = errno.EOPNOTSUPP


def from_os_error(error: OSError, what: str) -> FileSystemError:
    """Our own disk's failure as one of ours: full, too big and too many stay so, all else EIO.

    Args:
        what: The local operation that failed, for the log.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{what}: {error.strerror}")
    if error.errno == errno.EFBIG:
        return TooLarge(f"{what}: {error.strerror}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyOpen(f"{what}: {error.strerror}")
    place = str(error.filename or "")
    where = f" ({place})" if place not in what else ""
    return LocalFault(f"{what}: {error.strerror or error}{where}")
