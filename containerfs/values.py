"""What a user writes for an option, and the value that it means.

Each parser takes text and returns a typed value, or raises ValueError whose message says what is
expected ("a size such as 512M or 10GiB"). Nothing here reads the environment or a file, apart from
`path`, which knows the user's home and the working directory.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

T = TypeVar("T")
Parser = Callable[[str], T]

_BINARY = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE | re.ASCII)
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?", re.ASCII)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def text(value: str) -> str:
    """Any text with something in it."""
    if not value:
        raise ValueError("some text")
    return value


def size(value: str) -> int:
    """Bytes: `K`, `M`, `G`, `T` (and `KiB`, ...) are powers of 1024, `KB`, `MB`, ... of 1000."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("a size such as 512M or 10GiB")
    number, prefix, suffix = match.groups()
    base = 1000 if prefix and suffix and suffix.lower() == "b" else 1024
    return int(float(number) * base ** _BINARY[prefix.lower()])


def seconds(value: str) -> float:
    """A duration, 0 or more: `10`, `10s`, `1.5s`, `500ms`, `5m`, `2h`, `1d`."""
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("a duration such as 10, 10s or 5m")
    return float(match[1]) * _SECONDS[match[2] or ""]


def positive_seconds(value: str) -> float:
    """A duration that is more than 0."""
    duration = seconds(value)
    if duration == 0:
        raise ValueError("a duration above 0, such as 10s")
    return duration


def boolean(value: str) -> bool:
    """`true`, `yes`, `on`, `1` and their opposites."""
    word = value.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("true or false")
    return word in _TRUE


def octal(value: str) -> int:
    """Permission bits as chmod and umask take them: `022`, `0o077`."""
    if re.fullmatch(r"(0o)?[0-7]{1,4}", value) is None:
        raise ValueError('an octal number such as "022"')
    return int(value.removeprefix("0o"), 8)


def path(value: str) -> Path:
    """An absolute path; `~` is the home directory."""
    try:
        return Path(text(value)).expanduser().absolute()
    except (ValueError, RuntimeError) as error:
        raise ValueError("a path") from error


def whole(*, least: int, most: int | None = None) -> Parser[int]:
    """A parser of whole numbers from `least` to `most`, both allowed."""
    expected = f"a whole number from {least} to {most}" if most else f"a whole number >= {least}"

    def parse(value: str) -> int:
        if re.fullmatch(r"\d{1,18}", value, re.ASCII) is None:
            raise ValueError(expected)
        number = int(value)
        if number < least or (most is not None and number > most):
            raise ValueError(expected)
        return number

    return parse


def choice(*words: str) -> Parser[str]:
    """A parser of one word out of several."""

    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value

    return parse


def patterns(value: str) -> tuple[str, ...]:
    """Shell patterns separated by colons or commas, or a JSON list; empty text is no pattern."""
    if value.startswith("["):
        listed = _json(value)
        if isinstance(listed, list) and all(isinstance(pattern, str) for pattern in listed):
            return tuple(listed)
        # Also a pattern may begin with a bracket: then it is no JSON.
    return tuple(part for part in re.split(r"[:,]", value) if part)


def pairs(value: str) -> Mapping[str, str]:
    """`k=v` pairs separated by `&` (percent-encoding allowed), or a JSON object of strings."""
    if value.startswith("{"):
        found = _json(value)
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise ValueError("name=value pairs separated by &")
        return found
    try:
        return dict(parse_qsl(value, keep_blank_values=True, strict_parsing=bool(value)))
    except ValueError as error:
        raise ValueError("name=value pairs separated by &") from error


def network_policy(value: str) -> Mapping[str, Any]:
    """`disabled`, `allow:a.com,b.com`, or the API's JSON object, passed on as it is."""
    if value == "disabled":
        return {"type": "disabled"}
    if value.startswith("allow:"):
        domains = [domain.strip() for domain in value.removeprefix("allow:").split(",")]
        if all(domains):
            return {"type": "allowlist", "allowed_domains": domains}
    if value.startswith("{"):
        policy = _json(value)
        if isinstance(policy, dict):
            return policy
    raise ValueError("disabled, allow:a.com,b.com or a JSON object")


def _json(value: str) -> Any:
    """The JSON in `value`, or None where it is none."""
    try:
        return json.loads(value)
    except ValueError:
        return None
