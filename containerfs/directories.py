"""Where files of a user belong. Source: the XDG Base Directory Specification."""

import os
from collections.abc import Mapping
from pathlib import Path

CONFIG_VARIABLE = "CONTAINERFS_CONFIG"  # names the configuration file; not an option itself


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the mount keeps content, state and un-sent files when nothing else is said."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "containerfs"


def data_dir(environ: Mapping[str, str]) -> Path:
    """Where the embedded server keeps its data when nothing else is said."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share") / "containerfs" / "local"


def config_file(environ: Mapping[str, str]) -> Path:
    """The configuration file that is read when none was named on the command line."""
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "containerfs" / "config.toml"


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """A base directory. The specification has relative values ignored."""
    value = Path(environ.get(variable, ""))
    return value if value.is_absolute() else _home(environ) / fallback


def _home(environ: Mapping[str, str]) -> Path:
    """Where HOME leads; else what the system knows, and / for a user it does not, as at a login."""
    named = Path(environ.get("HOME", ""))
    if named.is_absolute():
        return named
    import pwd  # where it is needed only: starting is import time

    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/")
