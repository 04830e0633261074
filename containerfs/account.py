"""The name of the folder that holds what is known of one account of one server."""

import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from containerfs.api.connection import Connection


def account_key(connection: Connection, *, data: Path | None = None) -> str:
    """A folder name that is the same for the same account, and for no other.

    It tells nobody the key: only a part of a digest goes into it.

    Args:
        data: The embedded server's data directory; then the connection does not matter.
    """
    if data is not None:
        return f"local-{_digest('local', str(data))}"
    host = "".join(c if c.isalnum() or c in ".-" else "_" for c in _host(connection))
    digest = _digest(
        connection.base_url.rstrip("/"),
        connection.uds,
        connection.organization,
        connection.project,
        connection.api_key,
    )
    return f"{host}-{digest}"


def _host(connection: Connection) -> str:
    return (urlsplit(connection.base_url).hostname or "").lower()[:100].lstrip(".") or "server"


def _digest(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
