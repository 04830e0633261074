"""How a server behaves where the contract leaves it open, or where real servers break it.

The defaults are the live service as far as it is known. Each behaviour is a field here and nowhere
else: `name=value` on the command line, a JSON member in the admin route.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")


class BehaviourError(ValueError):
    """No behaviour has this name, or it has no such value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviours:
    """One server's behaviours; a change makes a new one."""

    # Paths of uploads.
    naming: Literal["hash", "plain", "file_id"] = "hash"  # 32 hex digits, nothing, or file-… first
    prefix: Literal["base", "front"] = "base"  # before the last component, or before the whole name
    slashes: Literal["keep", "flatten", "refuse"] = "keep"  # in an upload's name
    relative_paths: bool = False  # answers leave /mnt/data/ out
    same_name: Literal["add", "overwrite", "overwrite_keep_id"] = "add"  # an upload of a known name

    # What files answer.
    null_bytes: Literal["never", "assistant", "always"] = "never"  # `bytes` is null for these
    phantom: bool = False  # a container with files also lists one that isn't there
    range: bool = True  # Range requests are granted
    content_length: bool = True  # off: content comes chunked, its size untold
    empty_deletes: bool = False  # a deletion, also of what is not there, answers 204 and no body
    errors_as_200: bool = False  # an error body on content has status 200
    long_ids: bool = False  # new objects get ids of 237 characters

    # Lists.
    delete_lag: float = 0.0  # seconds for which a deleted object is still listed
    delete_lag_lists: int = 0  # list requests that still show it
    list_lag: float = 0.0  # seconds for which a new object is not listed yet
    list_lag_lists: int = 0  # list requests that don't show it yet
    empty_pages: bool = False  # before each page comes an empty one with has_more
    ignore_cursor: bool = False  # every page is the first, has_more always true

    # What is refused.
    refuse_empty: bool = False  # uploads of no bytes: 400
    refuse_svg: bool = False  # uploads that look like SVG: 400
    max_file_size: int | None = None  # bytes; larger uploads: 413
    full: bool = False  # uploads: 507
    read_only: bool = False  # creating and deleting files: 405

    # Time.
    expiry: bool = True  # off: containers live for ever
    minute: float = 60.0  # seconds that an idle minute lasts
    expired_as: Literal["400", "404"] = "400"  # status of an operation on an expired container
    list_files_is_activity: bool = True  # listing a container's files keeps it alive
    latency: float = 0.0  # seconds that each request waits first

    def changed(self, values: Mapping[str, Any]) -> "Behaviours":
        """These behaviours with some of them changed; raises BehaviourError."""
        types = get_type_hints(Behaviours)
        for name in values:
            if name not in types:
                raise BehaviourError(f"no behaviour is called '{name}': {', '.join(types)}")
        return dataclasses.replace(
            self, **{name: _parsed(name, types[name], value) for name, value in values.items()}
        )

    def as_json(self) -> dict[str, Any]:
        """Every behaviour with its value."""
        return dataclasses.asdict(self)


def parse_behaviours(texts: Iterable[str]) -> Behaviours:
    """Behaviours from `name=value` words, the rest at its default; raises BehaviourError."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BehaviourError(f"'{text}' is not NAME=VALUE")
        values[name.strip().replace("-", "_")] = value.strip()
    return Behaviours().changed(values)


def _parsed(name: str, kind: Any, value: Any) -> Any:
    parsed = _converted(kind, value)
    if parsed is NotImplemented:
        raise BehaviourError(f"'{value}' is no value of the behaviour '{name}'{_choices(kind)}")
    return parsed


def _choices(kind: Any) -> str:
    """The end of a message: what it may be, where that is a choice."""
    words = ("on", "off") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
    return f": {', '.join(words)}" if words else ""


def _converted(kind: Any, value: Any) -> Any:
    if kind is bool:
        return _switch(value)
    if get_origin(kind) is Literal:
        return str(value) if str(value) in get_args(kind) else NotImplemented
    if kind == int | None:
        return None if value in (None, "", "none") else _number(int, value)
    return _number(kind, value)


def _switch(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    return True if word in _ON else False if word in _OFF else NotImplemented


def _number(kind: type[int] | type[float], value: Any) -> Any:
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        return NotImplemented
    try:
        number = kind(value)
    except (TypeError, ValueError):
        return NotImplemented
    return number if number >= 0 and math.isfinite(number) else NotImplemented
