"""One setting: what there is to know about it, and how it is declared in `Options`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from containerfs import values

Kind = Literal["connection", "container", "mount"]
PREFIX = "CONTAINERFS_"


class OptionError(Exception):
    """An option that does not exist, or a value that makes no sense: a usage error, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Option:
    """What there is to know about one setting."""

    name: str
    kind: Kind  # connection: also for the commands of the service; container: for new ones
    parse: Callable[[str], Any]
    unit: str  # what the value is counted in, or its form; "" for a flag
    default: str  # as a user would write it; "" where there is none
    help: str  # one line, no full stop

    @property
    def is_flag(self) -> bool:
        """Whether it needs no value: `-o ro`, `-o noro`."""
        return self.parse is values.boolean

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()


def setting(
    kind: Kind,
    parse: Callable[[str], Any],
    unit: str,
    default: str | None,
    about: str,
    *,
    computed: Callable[[], Any] | None = None,
) -> Any:
    """A field of `Options`; `computed` gives a default that only this process can tell."""
    return field(
        default_factory=computed or (lambda: None if default is None else parse(default)),
        metadata={
            "kind": kind,
            "parse": parse,
            "unit": unit,
            "default": default or "",
            "help": about,
        },
    )
