"""What one failed attempt means: which error it is, and whether the call may be sent again.

The questions about a POST are answered here. It is safe to repeat when the server certainly did
not act on it: no connection came about, the request was cut before its last byte, or the answer
was 429, or 503 with Retry-After. If it may have acted, the error is `Uncertain`.
"""

import math
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from containerfs.api.call import Call
from containerfs.api.connecting import AwayError
from containerfs.api.failures import failure
from containerfs.api.retry import Refusal, asked_wait, is_retriable
from containerfs.errors import (
    FileSystemError,
    Invalid,
    ServerFault,
    TimedOut,
    Unanswered,
    Uncertain,
    Unreachable,
)

_DEFINITE = frozenset({501, 505, 507})  # these refuse; any other 5xx may come from in between
QUICK_ATTEMPTS = 3  # for what answers at once and will hardly change: refused, not JSON


def refused_by_status(
    call: Call,
    status: int,
    headers: Mapping[str, str],
    error: Mapping[str, Any] | None,
    *,
    request_id: str | None,
) -> Refusal:
    """The server answered with a status that is no success."""
    cause = failure(status, error, what=str(call), request_id=request_id)
    if call.is_idempotent or status == 429 or (status == 503 and _asks_to_wait(headers)):
        retriable = is_retriable(status, headers)
        return Refusal(error=cause, is_retriable=retriable, wait=asked_wait(headers))
    if isinstance(cause, ServerFault | TimedOut) and status not in _DEFINITE:
        lost = Unanswered if isinstance(cause, TimedOut) else Uncertain
        cause = lost(f"{cause}: it may have been done")
    return Refusal(error=cause, is_retriable=False)


def refused_by_body(
    call: Call, status: int, error: Mapping[str, Any], *, request_id: str | None
) -> Refusal:
    """The server answered with success, and with an error object."""
    cause = failure(status, error, what=str(call), request_id=request_id)
    return Refusal(error=cause, is_retriable=call.is_idempotent and cause.retriable)


def refused_by_nonsense(call: Call, cause: ServerFault, *, request_id: str | None) -> Refusal:
    """The server answered with success, and with something that cannot be read."""
    kind = ServerFault if call.is_idempotent else Uncertain
    return Refusal(
        error=_caused(
            kind(f"{call}: {cause}", request_id=request_id, retriable=cause.retriable), cause
        ),
        is_retriable=call.is_idempotent and cause.retriable,
        most_attempts=QUICK_ATTEMPTS,
    )


def refused_by_transport(call: Call, cause: httpx.TransportError, *, is_whole: bool) -> Refusal:
    """No whole answer came.

    Args:
        is_whole: Whether the request's last byte had been handed to the network.
    """
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        error: FileSystemError = Unreachable(f"{call}: no connection: {cause}")
        retriable = not any(isinstance(exc, ssl.SSLCertVerificationError) for exc in _chain(cause))
        most = math.inf if isinstance(cause, AwayError) else QUICK_ATTEMPTS
        return Refusal(error=_caused(error, cause), is_retriable=retriable, most_attempts=most)
    if isinstance(cause, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        error = Invalid(f"{call}: not a valid request: {cause}")
        return Refusal(error=_caused(error, cause), is_retriable=False)
    if isinstance(cause, httpx.TimeoutException):
        return refused_by_clock(call, is_whole=is_whole, cause=cause)
    kind = Unreachable if isinstance(cause, httpx.NetworkError) else ServerFault
    return _lost(call, kind, f"the answer was lost: {cause}", is_whole=is_whole, cause=cause)


def refused_by_clock(
    call: Call, *, is_whole: bool, cause: httpx.TransportError | None = None
) -> Refusal:
    """No answer came in time."""
    return _lost(call, TimedOut, "no answer in time", is_whole=is_whole, cause=cause)


def _lost(
    call: Call,
    kind: type[FileSystemError],
    text: str,
    *,
    is_whole: bool,
    cause: Exception | None,
) -> Refusal:
    if call.is_idempotent or not is_whole:
        return Refusal(error=_caused(kind(f"{call}: {text}"), cause), is_retriable=True)
    lost = Unanswered if kind is TimedOut else Uncertain
    error = lost(f"{call}: {text}: it may have been done")
    return Refusal(error=_caused(error, cause), is_retriable=False)


def _caused(error: FileSystemError, cause: BaseException | None) -> FileSystemError:
    error.__cause__ = cause
    return error


def _asks_to_wait(headers: Mapping[str, str]) -> bool:
    return "retry-after" in headers or "retry-after-ms" in headers


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
