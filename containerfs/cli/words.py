"""What users write for a container's settings, as the API has it."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from containerfs import values

_MINUTES = values.whole(least=1)

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # before click 8.4 it takes no subscript


class Setting(_Type):
    """A parameter whose text a function turns into a value.

    Args:
        parse: Raises ValueError saying what is expected.
    """

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value of *value*; a usage error where it has none."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as exc:
            self.fail(f"{value!r} is not {exc}", param, ctx)


def expiry(text: str) -> int:
    """Idle minutes: a number, or the API's object with an anchor and minutes."""
    if not text.startswith("{"):
        return _MINUTES(text)
    given = _object(text)
    minutes = given.get("minutes") if given else None
    if given is None or type(minutes) is not int or given.get("anchor") != "last_active_at":
        raise ValueError('minutes, or {"anchor": "last_active_at", "minutes": N}')
    return minutes


def skill(text: str) -> dict[str, Any]:
    """A skill: its id, `id@version`, or the API's object."""
    if text.startswith("{"):
        given = _object(text)
        if given is not None:
            return given
    name, at, version = text.partition("@")
    if text.startswith("{") or not name or (at and not version):
        raise ValueError("a skill's id, id@version, or a JSON object")
    reference = {"type": "skill_reference", "skill_id": name}
    return reference | ({"version": version} if version else {})


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


NETWORK_POLICY = Setting("policy", values.network_policy)
EXPIRY = Setting("minutes", expiry)
SKILL = Setting("skill", skill)
