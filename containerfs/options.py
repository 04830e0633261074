"""Every setting of a mount, declared once: name, type, unit, default and help.

The command line, the environment, the configuration file and the tables of the documentation are
all made from the declaration in `Options`. A setting's default is written as a user would write it.
"""

# ruff: noqa: RUF009 - each call declares a field: nothing is shared between instances

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from containerfs import values

Kind = Literal["connection", "container", "mount"]
PREFIX = "CONTAINERFS_"
CONFIG_VARIABLE = "CONTAINERFS_CONFIG"  # names the configuration file; not an option itself
_SCRATCH = (
    ".*.sw?:.*.swpx:4913:*~:.#*:#*#:.goutputstream-*:sed??????:.nfs*:.~lock.*#:~$*:"
    ".DS_Store:._*:.fuse_hidden*"
)
_TRANSIENT = ".*.??????:*.lock:tmp_obj_??????:tmp_pack_??????:tmp_idx_??????:*.pyc.*"


class OptionError(Exception):
    """An option that does not exist, or a value that makes no sense: a usage error, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


def _setting(
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


def _cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "containerfs"


def _umask() -> int:
    """The process's umask, read without changing it. Source: proc(5), /proc/self/status."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0o022
    found = (line.split()[1] for line in status.splitlines() if line.startswith("Umask:"))
    return int(next(found, "022"), 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The value of every setting; sizes are bytes, durations are seconds."""

    # How to reach the service.
    base_url: str | None = _setting(
        "connection", values.text, "URL", None, "the API; else OPENAI_BASE_URL, else OpenAI's own"
    )
    uds: Path | None = _setting(
        "connection", values.path, "path", None, "connect to this Unix socket instead of the host"
    )
    api_key_file: Path | None = _setting(
        "connection", values.path, "path", None, "read the key from this file (mode 0600)"
    )
    api_key_command: str | None = _setting(
        "connection", values.text, "command", None, "run this command and read the key it prints"
    )
    auth_header: str | None = _setting(
        "connection", values.text, "name", None, "send the key bare in this header, e.g. api-key"
    )
    query: Mapping[str, str] = _setting(
        "connection", values.pairs, "k=v&...", "", "extra query parameters of every request"
    )
    ca_file: Path | None = _setting(
        "connection", values.path, "path", None, "trust these certificate authorities instead"
    )
    client_cert: Path | None = _setting(
        "connection", values.path, "path", None, "client certificate (PEM)"
    )
    client_key: Path | None = _setting(
        "connection", values.path, "path", None, "its private key, when not in the same file"
    )
    timeout: float = _setting(
        "connection",
        values.positive_seconds,
        "seconds",
        "30",
        "deadline of one metadata request, over all its retries",
    )
    transfer_timeout: float = _setting(
        "connection",
        values.positive_seconds,
        "seconds",
        "30",
        "how long a transfer may stand still before it is given up",
    )
    max_connections: int = _setting(
        "connection", values.whole(least=1, most=1024), "", "64", "most connections at one time"
    )

    # What new containers are like.
    memory_limit: str | None = _setting(
        "container",
        values.choice("1g", "4g", "16g", "64g"),
        "1g|4g|16g|64g",
        None,
        "memory of containers made by mkdir; the server decides when not given",
    )
    expires_after: int | None = _setting(
        "container",
        values.whole(least=1, most=20),
        "minutes",
        None,
        "idle time after which containers made by mkdir expire",
    )
    network_policy: Mapping[str, Any] | None = _setting(
        "container",
        values.network_policy,
        "policy",
        None,
        "network of containers made by mkdir: disabled, allow:a.com,b.com or JSON",
    )

    # What the mount shows.
    containers: Literal["managed", "fixed"] = _setting(
        "mount",
        values.choice("managed", "fixed"),
        "managed|fixed",
        "managed",
        "whether mkdir and rmdir at the root make and delete containers",
    )
    show_expired: bool = _setting(
        "mount", values.boolean, "", "false", "show expired containers too"
    )
    raw_names: bool = _setting(
        "mount", values.boolean, "", "false", "show paths as the server has them, prefixes included"
    )
    scratch: tuple[str, ...] = _setting(
        "mount",
        values.patterns,
        "patterns",
        _SCRATCH,
        "names that stay on this machine, separated by colons",
    )
    transient: tuple[str, ...] = _setting(
        "mount",
        values.patterns,
        "patterns",
        _TRANSIENT,
        "names that programs soon rename: sent a moment after close, if they are still there",
    )
    ttl: float = _setting(
        "mount",
        values.seconds,
        "seconds",
        "10",
        "how long what others change may go unseen; 0 lists anew at each call",
    )
    notify: Literal["off", "utime"] = _setting(
        "mount",
        values.choice("off", "utime"),
        "off|utime",
        "off",
        "utime: who watches a directory by inotify sees changes by others as IN_ATTRIB",
    )
    ro: bool = _setting("mount", values.boolean, "", "false", "take no changes")
    umask: int = _setting(
        "mount",
        values.octal,
        "octal",
        "the process's",
        "permission bits that what was not made here, or chmodded, lacks",
        computed=_umask,
    )
    uid: int = _setting(
        "mount",
        values.whole(least=0),
        "id",
        "the mounting user",
        "owner of what was not made here, or chowned",
        computed=os.getuid,
    )
    gid: int = _setting(
        "mount",
        values.whole(least=0),
        "id",
        "the mounting user's",
        "group of what was not made here, or chowned",
        computed=os.getgid,
    )
    allow_other: bool = _setting("mount", values.boolean, "", "false", "let other users in")
    nonempty: bool = _setting(
        "mount", values.boolean, "", "false", "mount over a directory that has entries"
    )

    # What it keeps, and when it gives up.
    cache_dir: Path = _setting(
        "mount",
        values.path,
        "path",
        "$XDG_CACHE_HOME/containerfs",
        "where content, state and un-sent files are kept",
        computed=_cache_dir,
    )
    cache_size: int = _setting(
        "mount", values.size, "bytes", "10GiB", "most bytes of content that are kept"
    )
    prefetch_small: int = _setting(
        "mount",
        values.size,
        "bytes",
        "256KiB",
        "files up to this size are fetched ahead of who reads a directory; 0: never",
    )
    max_file_size: int = _setting(
        "mount",
        values.size,
        "bytes",
        "512MiB",
        "larger files are refused; the default is the limit of OpenAI's Files API",
    )
    rename_limit: int = _setting(
        "mount",
        values.whole(least=0),
        "files",
        "1000",
        "a directory with more files is copied by mv instead of renamed",
    )
    empty_delay: float = _setting(
        "mount",
        values.seconds,
        "seconds",
        "1",
        "how long a new empty file, or one of a transient name, waits",
    )
    write_back: float | None = _setting(
        "mount",
        values.seconds,
        "seconds",
        None,
        "close returns once the file is safe on this disk; it is sent within so many seconds",
    )
    op_timeout: float = _setting(
        "mount",
        values.positive_seconds,
        "seconds",
        "60",
        "deadline of every operation of the file system",
    )

    # What it tells.
    log_level: str = _setting(
        "mount",
        values.choice("debug", "info", "warning", "error"),
        "debug|info|warning|error",
        "warning",
        "how much is logged",
    )
    log_file: Path | None = _setting(
        "mount", values.path, "path", None, "log to this file instead of standard error"
    )


OPTIONS: Mapping[str, Option] = {
    each.name: Option(name=each.name, **each.metadata) for each in dataclasses.fields(Options)
}


def load(*, file: Path | None, environ: Mapping[str, str], given: Mapping[str, str]) -> Options:
    """The settings from all sources; a later one wins: defaults, file, environment, command line.

    Args:
        file: The configuration file; None for the default one, which need not exist.
        environ: The environment; `CONTAINERFS_<NAME>` holds an option.
        given: Options of the command line by name, as text.

    Raises:
        OptionError: An option is unknown or its value makes no sense; it names the source.
    """
    found: dict[str, Any] = {"cache_dir": _cache_dir(environ)}
    found |= _from_file(file or _default_file(environ), needed=file is not None)
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
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """A base directory. The specification has relative values ignored."""
    value = Path(environ.get(variable, ""))
    home = environ.get("HOME")
    return value if value.is_absolute() else (Path(home) if home else Path.home()) / fallback


def data_dir(environ: Mapping[str, str]) -> Path:
    """Where the embedded server keeps its data when nothing else is said."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share") / "containerfs" / "local"


def _default_file(environ: Mapping[str, str]) -> Path:
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "containerfs" / "config.toml"


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
        document = tomllib.loads(file.read_text(encoding="utf-8"))
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
        raise OptionError(f"{file}: {name}: a value of type {kind} does not fit here")
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
