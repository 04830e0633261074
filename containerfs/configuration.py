"""The settings of one mount, read from the file, the environment and the command line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from containerfs import values
from containerfs.directories import CONFIG_VARIABLE, cache_dir, config_file
from containerfs.options import OPTIONS, Options
from containerfs.setting import PREFIX, Option, OptionError


def load(*, file: Path | None, environ: Mapping[str, str], given: Mapping[str, str]) -> Options:
    """The settings from all sources; a later one wins: defaults, file, environment, command line.

    Args:
        file: The configuration file; None for the default one, which need not exist.
        environ: The environment; `CONTAINERFS_<NAME>` holds an option.
        given: Options of the command line by name, as text.

    Raises:
        OptionError: An option is unknown or its value makes no sense; it names the source.
    """
    found: dict[str, Any] = {"cache_dir": cache_dir(environ)}
    found |= _from_file(file or config_file(environ), needed=file is not None)
    found |= _from_environment(environ)
    found |= {name: parse(name, value, source="") for name, value in given.items()}
    return Options(**found)


def parse(name: str, value: str, *, source: str) -> Any:
    """The typed value of one option.

    Args:
        source: Where it was found, the beginning of the error's message; may be empty.

    Raises:
        OptionError: The option is unknown or the value makes no sense.
    """
    option = find(name, source=source)
    try:
        return option.parse(value)
    except ValueError as error:
        where = source or f"option {name}: "
        raise OptionError(f"{where}{value!r} is not {error}") from error


def find(name: str, *, source: str = "") -> Option:
    """The option called `name`.

    Raises:
        OptionError: There is none; it suggests the nearest.
    """
    option = OPTIONS.get(name)
    if option is None:
        raise OptionError(f"{source}unknown option {name}{suggestion(name, OPTIONS)}")
    return option


def suggestion(word: str, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown word: the nearest known one, if any is near."""
    import difflib  # seldom needed: starting is import time

    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The options among the variables; an unknown `CONTAINERFS_*` is an error."""
    known = {option.variable: option for option in OPTIONS.values()}
    found = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or not value:
            continue  # an empty variable is an unset one, as in shells and unit files
        if variable not in known:
            raise OptionError(f"unknown variable {variable}{suggestion(variable, known)}")
        name = known[variable].name
        found[name] = parse(name, value, source=f"{variable}: ")
    return found


def _from_file(file: Path, *, needed: bool) -> dict[str, Any]:
    """The options in a TOML file, at its top level or in its table `[mount]`."""
    try:
        text = file.read_text(encoding="utf-8")
        import tomllib  # only where there is something to parse

        document = tomllib.loads(text)
    except FileNotFoundError as error:
        if needed:
            raise OptionError(f"{file}: no such file") from error
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionError(f"{file}: {reason}") from error
    table = document.pop("mount", {})
    if not isinstance(table, dict):
        raise OptionError(f"{file}: mount is not a table")
    return {
        name: parse(name, _as_text(name, value, file), source=f"{file}: {name}: ")
        for name, value in (document | table).items()
    }


def _as_text(name: str, value: Any, file: Path) -> str:
    """A TOML value as it would be written on the command line.

    Raises:
        OptionError: The option is unknown, or never has a value of this type.
    """
    option = find(name, source=f"{file}: ")
    if isinstance(value, bool) or option.is_flag:
        fits = isinstance(value, bool) and option.is_flag
    elif isinstance(value, int | float):
        fits = option.parse not in _ONLY_TEXT
    elif isinstance(value, list):
        fits = option.parse is values.patterns
    elif isinstance(value, dict):
        fits = option.parse in (values.pairs, values.network_policy)
    else:
        fits = isinstance(value, str)
    if not fits:
        kind = type(value).__name__
        hint = ": it is true or false" if option.is_flag else ": write it in quotes"
        raise OptionError(f"{file}: {name}: a value of type {kind} does not fit here{hint}")
    return value if isinstance(value, str) else json.dumps(value)


# An octal number must be quoted: TOML reads 22 as twenty-two.
_ONLY_TEXT = frozenset(
    {
        values.text,
        values.path,
        values.octal,
        values.patterns,
        values.pairs,
        values.network_policy,
    }
)
