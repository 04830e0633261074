"""What an answer that is not a success means: the service's statuses and error objects as ours."""

import json
from collections.abc import Mapping
from typing import Any

from containerfs.errors import (
    AccessDenied,
    Conflict,
    Expired,
    FileSystemError,
    Invalid,
    NotFound,
    RateLimited,
    ServerFault,
    ServerFull,
    TimedOut,
    TooLarge,
    Unsupported,
)

LONGEST_MESSAGE = 500  # characters of the server's own words that are repeated

_BY_STATUS: dict[int, type[FileSystemError]] = {
    400: Invalid,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    405: Unsupported,
    408: TimedOut,
    409: Conflict,
    410: NotFound,
    413: TooLarge,
    415: Invalid,
    422: Invalid,
    429: RateLimited,
    501: Unsupported,
    507: ServerFull,
}

# For error objects that come with a status that says nothing (200): the service's own types.
_STATUS_BY_TYPE = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "insufficient_permissions": 403,
    "permission_error": 403,
    "not_found": 404,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "internal_server_error": 500,
    "invalid_request_error": 400,
}


def error_object(text: bytes) -> Mapping[str, Any] | None:
    """The error that *text* describes (`{"error": {…}}`), or None where it describes none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return described_error(data)


def described_error(data: Any) -> Mapping[str, Any] | None:
    """The error that parsed JSON describes, or None where it describes none."""
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, dict):
        return error
    return {"message": error} if isinstance(error, str) and error else None


def failure(
    status: int, error: Mapping[str, Any] | None, *, what: str, request_id: str | None
) -> FileSystemError:
    """The failure an answer stands for.

    Args:
        status: Its HTTP status; for a success, the error object alone decides.
        error: Its error object, where it has one.
        what: The request, which begins the message.
    """
    error = error or {}
    message = _one_line(error.get("message"))
    code = status if status >= 300 else _status_of(error, message)
    kind = _BY_STATUS.get(code, ServerFault)
    if kind in (Invalid, NotFound) and _tells_expiry(error, message):
        kind = Expired
    elif 400 <= code < 500 and kind is ServerFault:
        kind = Invalid if code not in (404, 425) else ServerFault
    text = f"{what}: {status}" + (f" {message}" if message else "")
    return kind(text, request_id=request_id)


def _status_of(error: Mapping[str, Any], message: str) -> int:
    told = error.get("code")
    code = str(told) if isinstance(told, int) else _one_line(told)
    if code.isascii() and code.isdigit() and 400 <= int(code[:4]) <= 599:
        return int(code[:4])
    if "not found" in message.lower():
        return 404
    for word in (error.get("code"), error.get("type")):
        if isinstance(word, str) and word in _STATUS_BY_TYPE:
            return _STATUS_BY_TYPE[word]
    return 500


def _tells_expiry(error: Mapping[str, Any], message: str) -> bool:
    return error.get("code") == "container_expired" or "is expired" in message.lower()


def _one_line(text: Any) -> str:
    if not isinstance(text, str):
        return ""
    words = " ".join(text[: 2 * LONGEST_MESSAGE].split())[:LONGEST_MESSAGE]
    return "".join(char if char.isprintable() else "?" for char in words)
