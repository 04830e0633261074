"""The body of a request that creates a container, checked against the contract.

Members nobody knows are refused. Secrets and skills are checked and forgotten: no answer shows
them, and nothing here runs code that could use them.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from containerfs.server import refusals

MEMBERS = ("name", "expires_after", "file_ids", "memory_limit", "network_policy", "skills")
MEMORY_LIMITS = ("1g", "4g", "16g", "64g")
MAX_MINUTES = 20
MAX_SECRET = 10 * 1024 * 1024
MAX_SKILL_ID = 64
MAX_SKILL_DATA = 70_254_592
_VERSION = re.compile(r"[1-9][0-9]*|latest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A container as it was asked for."""

    name: str
    minutes: int = MAX_MINUTES
    memory_limit: str = "1g"
    network_policy: dict[str, Any] | None = None  # without secrets
    file_ids: tuple[str, ...] = ()


def parse_creation(body: Any) -> Creation:
    """The container that *body*, parsed JSON, asks for.

    Raises:
        Refusal: It breaks the contract; names the member that does, dotted.
    """
    if not isinstance(body, dict):
        raise refusals.wrong_type("body", expected="an object", value=body)
    _known(body, "", MEMBERS)
    if "name" not in body:
        raise refusals.missing("name")
    _skills(body.get("skills", []))
    return Creation(
        name=text(body["name"], "name"),
        minutes=_minutes(body["expires_after"]) if "expires_after" in body else MAX_MINUTES,
        memory_limit=_choice(body.get("memory_limit", "1g"), "memory_limit", MEMORY_LIMITS),
        network_policy=_policy(body["network_policy"]) if "network_policy" in body else None,
        file_ids=_texts(body.get("file_ids", []), "file_ids"),
    )


def text(value: Any, param: str, *, low: int = 0, high: int | None = None) -> str:
    """*value* if it is a string of *low* to *high* characters that UTF-8 can hold."""
    if not isinstance(value, str):
        raise refusals.wrong_type(param, expected="a string", value=value)
    if len(value) < low:
        raise refusals.invalid(
            param, f"empty string. Expected a minimum length of {low}.", code="empty_string"
        )
    if high is not None and len(value) > high:
        raise refusals.invalid(
            param,
            f"string too long. Expected a maximum length of {high}, but got {len(value)} instead.",
            code="string_above_max_length",
        )
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise refusals.invalid(param, "not a valid Unicode string.") from exc
    return value


def _minutes(value: Any) -> int:
    _object(value, "expires_after")
    _known(value, "expires_after.", ("anchor", "minutes"))
    for member in ("anchor", "minutes"):
        if member not in value:
            raise refusals.missing(f"expires_after.{member}")
    _choice(value["anchor"], "expires_after.anchor", ("last_active_at",))
    minutes = value["minutes"]
    if not isinstance(minutes, int) or isinstance(minutes, bool):
        raise refusals.wrong_type("expires_after.minutes", expected="an integer", value=minutes)
    if not 1 <= minutes <= MAX_MINUTES:
        raise refusals.outside("expires_after.minutes", value=minutes, low=1, high=MAX_MINUTES)
    return minutes


def _policy(value: Any) -> dict[str, Any]:
    _object(value, "network_policy")
    kind = _type(value, "network_policy", ("disabled", "allowlist"))
    if kind == "disabled":
        _known(value, "network_policy.", ("type",))
        return {"type": kind}
    _known(value, "network_policy.", ("type", "allowed_domains", "domain_secrets"))
    if "allowed_domains" not in value:
        raise refusals.missing("network_policy.allowed_domains")
    domains = _texts(value["allowed_domains"], "network_policy.allowed_domains", low=1)
    if "domain_secrets" in value:
        _secrets(value["domain_secrets"], "network_policy.domain_secrets")
    return {"type": kind, "allowed_domains": list(domains)}


def _secrets(value: Any, param: str) -> None:
    for index, secret in enumerate(_array(value, param, low=1)):
        at = f"{param}[{index}]"
        _object(secret, at)
        _known(secret, f"{at}.", ("domain", "name", "value"))
        for member, high in (("domain", None), ("name", None), ("value", MAX_SECRET)):
            if member not in secret:
                raise refusals.missing(f"{at}.{member}")
            text(secret[member], f"{at}.{member}", low=1, high=high)


def _skills(value: Any) -> None:
    for index, skill in enumerate(_array(value, "skills")):
        at = f"skills[{index}]"
        _object(skill, at)
        if _type(skill, at, ("skill_reference", "inline")) == "inline":
            _inline_skill(skill, at)
        else:
            _skill_reference(skill, at)


def _skill_reference(skill: dict[str, Any], at: str) -> None:
    _known(skill, f"{at}.", ("type", "skill_id", "version"))
    if "skill_id" not in skill:
        raise refusals.missing(f"{at}.skill_id")
    text(skill["skill_id"], f"{at}.skill_id", low=1, high=MAX_SKILL_ID)
    if "version" in skill and not _VERSION.fullmatch(text(skill["version"], f"{at}.version")):
        raise refusals.invalid(f"{at}.version", "expected a positive integer or 'latest'.")


def _inline_skill(skill: dict[str, Any], at: str) -> None:
    _known(skill, f"{at}.", ("type", "name", "description", "source"))
    for member in ("name", "description", "source"):
        if member not in skill:
            raise refusals.missing(f"{at}.{member}")
    text(skill["name"], f"{at}.name")
    text(skill["description"], f"{at}.description")
    source = skill["source"]
    _object(source, f"{at}.source")
    _type(source, f"{at}.source", ("base64",))
    _known(source, f"{at}.source.", ("type", "media_type", "data"))
    for member in ("media_type", "data"):
        if member not in source:
            raise refusals.missing(f"{at}.source.{member}")
    _choice(source["media_type"], f"{at}.source.media_type", ("application/zip",))
    data = text(source["data"], f"{at}.source.data", low=1, high=MAX_SKILL_DATA)
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise refusals.invalid(f"{at}.source.data", "not valid base64.") from exc


def _type(value: dict[str, Any], at: str, choices: tuple[str, ...]) -> str:
    if "type" not in value:
        raise refusals.missing(f"{at}.type")
    return _choice(value["type"], f"{at}.type", choices)


def _choice(value: Any, param: str, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise refusals.wrong_type(param, expected=f"one of {', '.join(choices)}", value=value)
    if value not in choices:
        raise refusals.not_one_of(param, choices=choices, value=value)
    return value


def _texts(value: Any, param: str, *, low: int = 0) -> tuple[str, ...]:
    items = _array(value, param, low=low)
    return tuple(text(item, f"{param}[{index}]") for index, item in enumerate(items))


def _array(value: Any, param: str, *, low: int = 0) -> list[Any]:
    if not isinstance(value, list):
        raise refusals.wrong_type(param, expected="an array", value=value)
    if len(value) < low:
        raise refusals.invalid(
            param, f"empty array. Expected a minimum length of {low}.", code="empty_array"
        )
    return value


def _object(value: Any, param: str) -> None:
    if not isinstance(value, dict):
        raise refusals.wrong_type(param, expected="an object", value=value)


def _known(value: dict[str, Any], at: str, members: tuple[str, ...]) -> None:
    for name in value:
        if name not in members:
            raise refusals.unknown(f"{at}{name}")
