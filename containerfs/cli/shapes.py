"""Containers and files in the API's own shape, for printing."""

from datetime import UTC, datetime
from typing import Any

from containerfs.api.types import Container, RemoteFile

CONTAINER_COLUMNS = ("id", "name", "status", "created_at", "expires_at", "memory_limit")
FILE_COLUMNS = ("id", "bytes", "created_at", "source", "path")


def container_shape(container: Container) -> dict[str, Any]:
    """A container as the API writes it; what the server did not tell is left out."""
    minutes = container.expires_after
    shape = {
        "id": container.id,
        "object": "container",
        "name": container.name,
        "created_at": container.created,
        "status": container.status,
        "last_active_at": container.last_active,
        "expires_after": minutes and {"anchor": "last_active_at", "minutes": minutes},
        "memory_limit": container.memory_limit,
        "network_policy": container.network_policy,
    }
    return {name: value for name, value in shape.items() if value is not None}


def file_shape(file: RemoteFile) -> dict[str, Any]:
    """A file as the API writes it; `bytes` is null where the server does not say."""
    return {
        "id": file.id,
        "object": "container.file",
        "created_at": file.created,
        "bytes": file.size,
        "container_id": file.container_id,
        "path": file.path,
        "source": file.source,
    }


def deleted_shape(kind: str, name: str) -> dict[str, Any]:
    """What the API answers to a deletion."""
    return {"id": name, "object": f"{kind}.deleted", "deleted": True}


def cell(shape: dict[str, Any], column: str) -> str:
    """One value for a table: times as UTC, unknown ones as a dash."""
    if column == "expires_at":
        return _expiry(shape)
    value = shape.get(column)
    if value is None:
        return "-"
    if column.endswith("_at") and isinstance(value, int):
        return _moment(value)
    return value if isinstance(value, str) else str(value)


def _expiry(shape: dict[str, Any]) -> str:
    active, expiry = shape.get("last_active_at"), shape.get("expires_after")
    if active is None or not expiry or shape.get("status") == "expired":
        return "-"
    return _moment(active + 60 * expiry["minutes"])


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return str(seconds)
