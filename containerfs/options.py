"""Every setting of a mount, declared once: name, type, unit, default and help.

The command line, the environment, the configuration file and the tables of the documentation are
all made from the declaration in `Options`. A setting's default is written as a user would write it.
"""

# ruff: noqa: RUF009 - each call declares a field: nothing is shared between instances

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from containerfs import directories, values
from containerfs.setting import Option, setting

_SCRATCH = (
    ".*.sw?:.*.swpx:4913:*~:.#*:#*#:.goutputstream-*:sed??????:.nfs*:.~lock.*#:~$*:"
    ".DS_Store:._*:.fuse_hidden*"
)


def _umask() -> int:
    """The process's umask, read without changing it. Source: proc(5), /proc/self/status."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0o022
    found = (line.split()[1] for line in status.splitlines() if line.startswith("Umask:"))
    return int(next(found, "022"), 8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Options:
    """The value of every setting; sizes are bytes, durations are seconds."""

    # How to reach the service.
    base_url: str | None = setting(
        "connection", values.text, "URL", None, "the API; else OPENAI_BASE_URL, else OpenAI's own"
    )
    uds: Path | None = setting(
        "connection", values.path, "path", None, "connect to this Unix socket instead of the host"
    )
    api_key_file: Path | None = setting(
        "connection", values.path, "path", None, "read the key from this file (mode 0600)"
    )
    api_key_command: str | None = setting(
        "connection", values.text, "command", None, "run this command and read the key it prints"
    )
    auth_header: str | None = setting(
        "connection", values.text, "name", None, "send the key bare in this header, e.g. api-key"
    )
    query: Mapping[str, str] = setting(
        "connection", values.pairs, "k=v&...", "", "extra query parameters of every request"
    )
    ca_file: Path | None = setting(
        "connection", values.path, "path", None, "trust these certificate authorities instead"
    )
    client_cert: Path | None = setting(
        "connection", values.path, "path", None, "client certificate (PEM)"
    )
    client_key: Path | None = setting(
        "connection", values.path, "path", None, "its private key, when not in the same file"
    )
    timeout: float = setting(
        "connection",
        values.positive_seconds,
        "seconds",
        "30",
        "deadline of one metadata request and its retries, but for waits that the server asks for",
    )
    transfer_timeout: float = setting(
        "connection",
        values.positive_seconds,
        "seconds",
        "30",
        "how long a transfer may stand still before it is given up",
    )
    max_connections: int = setting(
        "connection", values.whole(least=1, most=1024), "", "128", "most connections at one time"
    )

    # What new containers are like.
    memory_limit: str | None = setting(
        "container",
        values.choice("1g", "4g", "16g", "64g"),
        "1g|4g|16g|64g",
        None,
        "memory of containers made by mkdir; the server decides when not given",
    )
    expires_after: int | None = setting(
        "container",
        values.whole(least=1, most=20),
        "minutes",
        None,
        "idle time after which containers made by mkdir expire",
    )
    network_policy: Mapping[str, Any] | None = setting(
        "container",
        values.network_policy,
        "policy",
        None,
        "network of containers made by mkdir: disabled, allow:a.com,b.com or JSON",
    )

    # What the mount shows.
    containers: Literal["managed", "fixed"] = setting(
        "mount",
        values.choice("managed", "fixed"),
        "managed|fixed",
        "managed",
        "whether mkdir and rmdir at the root make and delete containers",
    )
    show_expired: bool = setting(
        "mount", values.boolean, "", "false", "show expired containers too"
    )
    raw_names: bool = setting(
        "mount", values.boolean, "", "false", "show paths as the server has them, prefixes included"
    )
    scratch: tuple[str, ...] = setting(
        "mount",
        values.patterns,
        "patterns",
        _SCRATCH,
        "names that stay on this machine, separated by colons",
    )
    transient: tuple[str, ...] = setting(
        "mount",
        values.patterns,
        "patterns",
        ".*.??????:*.lock:tmp_obj_??????:tmp_pack_??????:tmp_idx_??????:*.pyc.*",
        "names that programs soon rename: sent a moment after close, if they are still there",
    )
    ttl: float = setting(
        "mount",
        values.seconds,
        "seconds",
        "10",
        "how long what others change may go unseen; 0 lists anew at each call",
    )
    notify: Literal["off", "utime"] = setting(
        "mount",
        values.choice("off", "utime"),
        "off|utime",
        "off",
        "utime: who watches a directory by inotify sees changes by others as IN_ATTRIB",
    )
    ro: bool = setting("mount", values.boolean, "", "false", "take no changes")
    exec: bool = setting("mount", values.boolean, "", "true", "let programs in the mount be run")
    umask: int = setting(
        "mount",
        values.octal,
        "octal",
        "the process's",
        "permission bits that what was not made here, or chmodded, lacks",
        computed=_umask,
    )
    uid: int = setting(
        "mount",
        values.whole(least=0),
        "id",
        "the mounting user",
        "owner of what was not made here, or chowned",
        computed=os.getuid,
    )
    gid: int = setting(
        "mount",
        values.whole(least=0),
        "id",
        "the mounting user's",
        "group of what was not made here, or chowned",
        computed=os.getgid,
    )
    allow_other: bool = setting("mount", values.boolean, "", "false", "let other users in")
    nonempty: bool = setting("mount", values.boolean, "", "false", "mount on a non-empty directory")

    # What it keeps, and when it gives up.
    cache_dir: Path = setting(
        "mount",
        values.path,
        "path",
        "$XDG_CACHE_HOME/containerfs",
        "where content, state and un-sent files are kept",
        computed=directories.cache_dir,
    )
    cache_size: int = setting(
        "mount", values.size, "bytes", "10GiB", "most bytes of content that are kept"
    )
    prefetch_small: int = setting(
        "mount",
        values.size,
        "bytes",
        "256KiB",
        "files up to this size are fetched ahead of who reads a directory; 0: never",
    )
    max_file_size: int = setting(
        "mount",
        values.size,
        "bytes",
        "512MiB",
        "larger files are refused; the default is the limit of OpenAI's Files API",
    )
    rename_limit: int = setting(
        "mount",
        values.whole(least=0),
        "files",
        "1000",
        "a directory with more files is copied by mv instead of renamed",
    )
    empty_delay: float = setting(
        "mount",
        values.seconds,
        "seconds",
        "1",
        "how long a new empty file, or one of a transient name, waits",
    )
    write_back: float | None = setting(
        "mount",
        values.seconds,
        "seconds",
        None,
        "close returns once the file is safe on this disk; it is sent within so many seconds",
    )
    op_timeout: float = setting(
        "mount",
        values.positive_seconds,
        "seconds",
        "60",
        "deadline of every operation of the file system",
    )

    # What it tells.
    log_level: str = setting(
        "mount",
        values.choice("debug", "info", "warning", "error"),
        "debug|info|warning|error",
        "warning",
        "how much is logged",
    )
    log_file: Path | None = setting(
        "mount", values.path, "path", None, "log to this file instead of standard error"
    )


OPTIONS: Mapping[str, Option] = {
    each.name: Option(name=each.name, **each.metadata) for each in dataclasses.fields(Options)
}
