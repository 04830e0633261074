"""New identifiers, shaped like the live service's: a prefix, the time in hex, then randomness."""

import secrets
import string

LONG_ID_LENGTH = 237  # what some gateways hand out
_LONG_ALPHABET = string.ascii_letters + string.digits + "-_"


def new_container_id(*, now: float, is_long: bool = False) -> str:
    """`cntr_` and 48 hex digits, the first 8 of which are the time."""
    return _long_id("cntr_") if is_long else f"cntr_{_timed(now, digits=48)}"


def new_file_id(*, now: float, is_long: bool = False) -> str:
    """`cfile_` and 32 hex digits, the first 8 of which are the time."""
    return _long_id("cfile_") if is_long else f"cfile_{_timed(now, digits=32)}"


def new_registry_id() -> str:
    """The id of an uploaded file outside any container, for attaching."""
    return f"file-{secrets.token_hex(12)}"


def new_request_id() -> str:
    """`req_` and 32 hex digits."""
    return f"req_{secrets.token_hex(16)}"


def _timed(now: float, *, digits: int) -> str:
    return f"{int(now) & 0xFFFFFFFF:08x}{secrets.token_hex((digits - 8) // 2)}"


def _long_id(prefix: str) -> str:
    length = LONG_ID_LENGTH - len(prefix)
    return prefix + "".join(secrets.choice(_LONG_ALPHABET) for _ in range(length))
