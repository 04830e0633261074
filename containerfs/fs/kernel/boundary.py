"""Between pyfuse3 and the file system: what leaves a handler leaves as an errno.

A failure that was expected has its own; anything else is logged and leaves as EIO, because pyfuse3
ends the whole mount for every exception but its own.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio

from containerfs.errors import FileSystemError

log = logging.getLogger(__name__)

_UNTOLD = frozenset({errno.EIO, errno.ETIMEDOUT})  # they tell a program nothing of the reason

P = ParamSpec("P")
T = TypeVar("T")


def boundary(
    *, deadline: bool = True
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Make a handler answer with a `FUSEError` whatever happens inside it.

    Args:
        deadline: Answer ETIMEDOUT once the mount's `op_timeout` has passed. Not for what waits
            for a whole file: that is given up once it has not got on for as long (`Patience`).
    """

    def decorate(
        handler: Callable[P, Coroutine[Any, Any, T]],
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(handler)
        async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                if not deadline:
                    return await handler(*args, **kwargs)
                limit = args[0].op_timeout  # type: ignore[attr-defined]  # they are all methods
                until = trio.current_time() + limit
                with trio.CancelScope(deadline=until):  # half the cost of trio.fail_after
                    return await handler(*args, **kwargs)
                log.warning("%s: no answer within %g s", handler.__name__, limit)
                raise pyfuse3.FUSEError(errno.ETIMEDOUT)
            except pyfuse3.FUSEError:
                raise
            except FileSystemError as exc:
                fail(exc, handler.__name__)
            except Exception as exc:
                fail(exc, handler.__name__)

        return answer

    return decorate


def fail(error: BaseException, what: str) -> NoReturn:
    """Raise the FUSE error for *error*: the first expected failure in a group counts."""
    while isinstance(error, BaseExceptionGroup):
        expected = error.subgroup(FileSystemError)
        error = (expected or error).exceptions[0]
    if isinstance(error, FileSystemError):
        level = logging.WARNING if error.errno in _UNTOLD else logging.DEBUG
        log.log(level, "%s: %s", what, error)
        raise pyfuse3.FUSEError(error.errno) from error
    log.error("%s failed", what, exc_info=error)
    raise pyfuse3.FUSEError(errno.EIO) from error
