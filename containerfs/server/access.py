"""Who may use the server: everybody, or whoever knows the key."""

import hmac
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from containerfs.server.refusals import Refusal
from containerfs.server.settings import ServeError


def read_key(path: Path) -> str:
    """The key in a file that nobody but its owner may read; raises ServeError."""
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ServeError(f"can't read the key file {path}: {exc}") from exc
    if stat.S_IMODE(mode) & 0o077:
        raise ServeError(f"the key file {path} can be read by others (chmod 600)")
    if not key:
        raise ServeError(f"the key file {path} is empty")
    return key


class Access:
    """Checks the key of each request; without one everybody may."""

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises Refusal: 401, there is no key in *headers*, or not ours."""
        if self._key is None:
            return
        told = headers.get("api-key")
        if told is None:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            told = token.strip() if scheme.lower() == "bearer" else ""
        if not told:
            raise _unauthorized("You didn't provide an API key.", code=None)
        if not hmac.compare_digest(told.encode("utf-8", "replace"), self._key):
            raise _unauthorized("Incorrect API key provided.", code="invalid_api_key")


def _unauthorized(message: str, *, code: str | None) -> Refusal:
    return Refusal(401, message, code=code, headers={"www-authenticate": "Bearer"})
