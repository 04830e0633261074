"""Option strings as mount(8) and fstab write them: `ro,ttl=5,network_policy=allow:a\\,b`.

A comma in a value is escaped by a backslash, or the value stands in double quotes or is JSON. The
words that mount(8), fstab and systemd use for themselves are passed over.
"""

import json
import re
from collections.abc import Iterator, Mapping

from containerfs.configuration import suggestion
from containerfs.options import OPTIONS
from containerfs.setting import OptionError

# Source: mount(8), fstab(5), systemd.mount(5), fuse(8). What FUSE always does counts as granted.
_FOREIGN = re.compile(
    r"""
    defaults | (no)?auto | (no)?users? | owner | group | _netdev | nofail
    | (no)?suid | (no)?dev | (no)?atime | (no)?relatime | (no)?strictatime
    | (no)?diratime | (no)?lazytime | a?sync | dirsync | silent | loud | (no)?mand | (no)?iversion
    | nosymfollow | default_permissions
    | (x- | X- | comment= | fsname= | subtype= | user= | helper= | uhelper=) .*
    """,
    re.VERBOSE | re.DOTALL,
)


def parse(text: str, *, sloppy: bool = False, means_rw: bool = False) -> dict[str, str]:
    """The options in an option string by name, as text; a flag without a value is "true".

    Args:
        sloppy: Pass over unknown options, as `mount -s` asks.
        means_rw: `rw` was written by somebody, and undoes a `ro` of the configuration. mount(8)
            writes it whenever nobody wrote `ro`, so from there it only takes back an earlier `ro`.

    Raises:
        OptionError: An option is unknown, or lacks its value.
    """
    found: dict[str, str] = {}
    for name, value in split(text):
        whole = name if value is None else f"{name}={value}"
        if _FOREIGN.fullmatch(whole):
            continue
        if whole == "rw":
            found.pop("ro", None)  # as in fstab the later word wins
            found |= {"ro": "false"} if means_rw else {}
            continue
        try:
            found |= _option(name.replace("-", "_"), value)
        except UnknownOptionError:
            if not sloppy:
                raise
    return found


class UnknownOptionError(OptionError):
    """No such option: what `sloppy` passes over."""


def _option(name: str, value: str | None) -> Mapping[str, str]:
    """One option as given, `noNAME` turned into `NAME=false`."""
    option = OPTIONS.get(name)
    if option is None:
        negated = OPTIONS.get(name.removeprefix("no"))
        if negated is None or not negated.is_flag or value is not None:
            raise UnknownOptionError(f"unknown option {name}{suggestion(name, OPTIONS)}")
        return {negated.name: "false"}
    if value is None and not option.is_flag:
        raise OptionError(f"option {name} needs a value: {name}={option.unit or 'VALUE'}")
    return {name: "true" if value is None else value}


def split(text: str) -> Iterator[tuple[str, str | None]]:
    """The words of an option string: names with their values, None for a name alone."""
    at = 0
    while at < len(text):
        end = min(_find(text, ",", at), _find(text, "=", at))
        name = text[at:end]
        if end < len(text) and text[end] == "=":
            value, end = _value(text, end + 1)
            yield name, value
        elif name:
            yield name, None
        at = end + 1


def _find(text: str, mark: str, start: int) -> int:
    """Where the mark is; the end of the text where it is not."""
    found = text.find(mark, start)
    return len(text) if found < 0 else found


def _value(text: str, start: int) -> tuple[str, int]:
    """The value that starts here, without its quotes and escapes, and where it ends."""
    for read in (_json_value, _quoted_value):
        value, end = read(text, start)
        if end == len(text) or (end > start and text[end] == ","):
            return value, end
    value, at = "", start
    while at < len(text) and text[at] != ",":
        if text[at] == "\\" and text[at + 1 : at + 2] in (",", "\\"):
            at += 1
        value += text[at]
        at += 1
    return value, at


def _json_value(text: str, start: int) -> tuple[str, int]:
    """A JSON object or array; nothing where there is none."""
    if text[start : start + 1] not in ("{", "["):
        return "", start
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return "", start
    return text[start:end], end


def _quoted_value(text: str, start: int) -> tuple[str, int]:
    """What stands between double quotes; nothing where there are none."""
    end = _find(text, '"', start + 1)
    if text[start : start + 1] != '"' or end == len(text):
        return "", start
    return text[start + 1 : end], end + 1
