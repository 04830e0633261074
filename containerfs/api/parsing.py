"""The service's JSON as our types, believing as little of it as possible.

Unknown fields are ignored, missing ones take a default, numbers that cannot be true are unknown,
and an entry without a usable id or path is left out of its page with a warning. Nothing a server
sends raises anything but `ServerFault` here.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from containerfs.api.types import Container, Page, RemoteFile
from containerfs.errors import ServerFault

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_ID = 1024  # characters; the longest seen in the wild has 237
LONGEST_PAGE = 50_000  # entries; some servers pass over the limit they are asked for
LARGEST_SIZE = 2**63 - 1  # bytes; what a file offset can hold
LATEST_TIME = 2**33  # Unix seconds, the year 2242; in nanoseconds it still fits the kernel's field
LONGEST_LIFE = 2**31  # minutes; added to any time it is still a date

_NO_MORE = (False, "false", "0")  # 0 is equal to False

_SURROGATE = re.compile("[\ud800-\udfff]")
_SOURCES = {source: source for source in ("user", "assistant")}  # one text for all files


def parse_json(text: bytes) -> Any:
    """The JSON value *text* holds.

    Raises:
        ServerFault: It holds none, or one nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise ServerFault(f"the answer is not JSON ({type(exc).__name__})") from exc


def container(data: Any) -> Container:
    """One container.

    Raises:
        ServerFault: It is no object, or has no id.
    """
    fields = _object(data, "container")
    return Container(
        id=_id(fields, "container"),
        name=_text(fields.get("name")) or "",
        created=_time(fields.get("created_at")) or 0,
        status=_word(fields.get("status")) or "running",
        last_active=_time(fields.get("last_active_at")),
        expires_after=_minutes(fields.get("expires_after")),
        memory_limit=_word(fields.get("memory_limit")),
        network_policy=_policy(fields.get("network_policy")),
    )


def remote_file(
    data: Any,
    container_id: str,
    known: Mapping[str, RemoteFile] | None = None,
    numbers: dict[int, int] | None = None,
) -> RemoteFile:
    """One file.

    Args:
        container_id: The container that was asked; what the answer names is not believed.
        known: Files of it by id. What is described as one of them is that very object: it is in
            memory once, and seen at a glance not to have changed.
        numbers: Those that files of the same page have, so that equal ones are in memory once.

    Raises:
        ServerFault: It is no object, or has no id or path.
    """
    numbers = {} if numbers is None else numbers
    return _plain_file(data, container_id, known or {}, numbers) or _any_file(data, container_id)


def _plain_file(
    data: Any, container_id: str, known: Mapping[str, RemoteFile], numbers: dict[int, int]
) -> RemoteFile | None:
    """One file that is described as it should be, as nearly all are; None for any other."""
    if type(data) is not dict:
        return None
    get = data.get
    id, path, size, created = get("id"), get("path"), get("bytes"), get("created_at")
    given = get("source")
    if not (
        type(id) is str
        and type(path) is str
        and type(size) is int  # a bool is no number
        and type(created) is int
        and type(given) is str
    ):
        return None
    if id in known:
        old = known[id]
        is_as_before = old == (id, container_id, path, size, created, given)
        if is_as_before:
            return old
    source = _SOURCES.get(given)
    if (
        source is not None
        and 0 < len(id) <= LONGEST_ID
        and id.isascii()
        and 0 <= size <= LARGEST_SIZE
        and 0 <= created <= LATEST_TIME
    ):
        size, created = numbers.setdefault(size, size), numbers.setdefault(created, created)
        return RemoteFile(id, container_id, path, size, created, source)
    return None


def _any_file(data: Any, container_id: str) -> RemoteFile:
    fields = _object(data, "file")
    path = _text(fields.get("path"))
    if path is None:
        raise ServerFault("a file in the answer has no path")
    return RemoteFile(
        id=_id(fields, "file"),
        container_id=container_id,
        path=path,
        size=_integer(fields.get("bytes"), most=LARGEST_SIZE),
        created=_time(fields.get("created_at")) or 0,
        source=_word(fields.get("source")),
    )


def tells_id_alone(data: Any) -> bool:
    """Whether *data* is one file, with a usable id and without a path."""
    return (
        isinstance(data, dict)
        and _usable_id(data.get("id")) is not None
        and _text(data.get("path")) is None
    )


def page(data: Any, entry: Callable[[Any], T]) -> Page[T]:
    """One page of a list, each of its entries read by *entry*.

    Raises:
        ServerFault: It is no list.
    """
    fields = _object(data, "list")
    entries = fields.get("data")
    if entries is None and fields.get("object") == "list":
        entries = []
    if not isinstance(entries, list):
        raise ServerFault("the answer is not a list")
    return Page(
        data=_usable(entries, entry),
        first_id=_usable_id(fields.get("first_id")),
        last_id=_usable_id(fields.get("last_id")) or _last_id(entries),
        has_more=_has_more(fields.get("has_more"), entries),
    )


def _has_more(told: Any, entries: list[Any]) -> bool:
    """Where the server does not say clearly, the next page will: an empty one is the end."""
    if told in _NO_MORE:
        return False
    return told is True or bool(entries)


def _usable(entries: list[Any], entry: Callable[[Any], T]) -> tuple[T, ...]:
    if len(entries) > LONGEST_PAGE:
        raise ServerFault(f"a page of {len(entries)} entries", retriable=False)
    usable = []
    fault = None
    for data in entries:
        try:
            usable.append(entry(data))
        except ServerFault as exc:
            fault = fault or str(exc)
    if fault is not None:
        left_out = len(entries) - len(usable)
        log.warning("%d of %d entries left out: %s", left_out, len(entries), fault)
    return tuple(usable)


def _last_id(entries: list[Any]) -> str | None:
    last = entries[-1] if entries else None
    return _usable_id(last.get("id")) if isinstance(last, dict) else None


def _object(data: Any, kind: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ServerFault(f"a {kind} was expected, the answer has no object there")
    return data


def _id(fields: Mapping[str, Any], kind: str) -> str:
    value = _usable_id(fields.get("id"))
    if value is None:
        raise ServerFault(f"a {kind} in the answer has no usable id")
    return value


def _usable_id(value: Any) -> str | None:
    return _word(value) or None


def _word(value: Any) -> str | None:
    """A short text that is text: half a surrogate pair fits neither addresses nor databases."""
    text = _text(value)
    if text is None or len(text) > LONGEST_ID:
        return None
    return text if text.isascii() or not _SURROGATE.search(text) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any, *, most: int) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None  # a bool is no number


def _time(value: Any) -> int | None:
    if type(value) is float and 0 <= value <= LATEST_TIME:
        return int(value)
    return _integer(value, most=LATEST_TIME)


def _minutes(value: Any) -> int | None:
    return _integer(value.get("minutes"), most=LONGEST_LIFE) if isinstance(value, dict) else None


def _policy(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    policy: dict[str, Any] = {}
    kind = _text(value.get("type"))
    if kind is not None:
        policy["type"] = kind
    domains = value.get("allowed_domains")
    if isinstance(domains, list):
        policy["allowed_domains"] = [domain for domain in domains if isinstance(domain, str)]
    return policy or None
