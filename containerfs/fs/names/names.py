"""Names: between the kernel's bytes, what the mount shows, and what the server has.

The mount shows every server path as a relative path of components that the kernel can hold.
What it can't hold is percent-encoded; a literal percent sign is encoded only where it would read
as such an escape, so that two different names are never shown as one.
"""

import hashlib
import os
import re

from containerfs.api.types import DEEPEST
from containerfs.errors import Invalid, NameTooLong

NAME_MAX = 255  # bytes; the kernel's own limit for FUSE is 1,024, every other disk's is this
PATH_MAX = 4096  # bytes of a path below its container; what the kernel takes from a program
OUTSIDE = ".outside"
MOST_ABOVE = 3  # directories above the uploads of a server that keeps them elsewhere
DATA = "/mnt/data/"

# What an escape can stand for: the slash, the percent sign, C0 and DEL, C1 (C2 80-9F in UTF-8),
# and lone surrogates (ED A0-BF).
_LOOKS_ESCAPED = r"2[Ff5]|[01][0-9A-Fa-f]|7[Ff]|[Cc]2%[89]|[Ee][Dd]%[ABab]"
_ESCAPE = re.compile(f"%(?={_LOOKS_ESCAPED})")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PREFIXES = "(?:[0-9a-f]{32}|file-[0-9A-Za-z]{8,64})-(?=.)"
_PREFIX = re.compile(_PREFIXES, re.DOTALL)
# What escapes are made of, but for surrogates: no server takes those back.
_ESCAPED = re.compile(f"%25(?={_LOOKS_ESCAPED})|%(?:2F|[01][0-9A-F]|7F|C2%[89][0-9A-F])")
# All but what may have to be escaped, means something else, or is more than a name: in one piece,
# and in that which follows a prefix.
_OTHERS = "/%\x00-\x1f\x7f-\x9f\ud800-\udfff"
_PLAIN_PATH = re.compile(
    f"(?:{DATA})?((?P<prefix>{_PREFIXES})?+(?P<short>[^.{_OTHERS}][^{_OTHERS}]*))", re.DOTALL
)
# Names that mean something else, and names that look like what is shown for those.
_SPECIAL = {".": "%2E", "..": "%2E%2E", "%2E": "%252E", "%2E%2E": "%252E%2E"}
_PLAIN = {shown: name for name, shown in _SPECIAL.items()}
_SPECIAL_AT_TOP = {OUTSIDE: "%2Eoutside", "%2Eoutside": "%252Eoutside"}
_PLAIN_AT_TOP = {shown: name for name, shown in _SPECIAL_AT_TOP.items()}


def from_kernel(name: bytes) -> str:
    """A name as the kernel gives it, as the text used inside; invalid UTF-8 survives.

    Raises:
        NameTooLong: It is over 255 bytes.
    """
    if len(name) > NAME_MAX:
        raise NameTooLong(f"a name of {len(name)} bytes")
    return os.fsdecode(name)


def to_kernel(name: str) -> bytes:
    """The inverse of `from_kernel`."""
    return os.fsencode(name)


def escape(name: str, *, id: str) -> str:
    """Any name the server may have, as one component that the kernel can hold.

    Args:
        id: Stands in for an empty name, and tells names apart that must be cut.
    """
    if name in _SPECIAL:
        return _SPECIAL[name]
    shown = _UNPRINTABLE.sub(_percent, _ESCAPE.sub("%25", name)) if name else escape_id(id)
    return cut(shown, id=id)


def escape_id(id: str) -> str:
    """An id as a name, whatever a server makes its ids of."""
    if id in _SPECIAL:
        return _SPECIAL[id]
    shown = _UNPRINTABLE.sub(_percent, _ESCAPE.sub("%25", id)) or "%00"
    if _length(shown) <= NAME_MAX:
        return shown
    # Long ids may differ in the middle only: all of the id tells them apart.
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{os.fsencode(shown)[: NAME_MAX - 33].decode('utf-8', 'ignore')}~{digest}"


def unescape(name: str) -> str:
    """The server's name for what is shown as *name*: undoes `escape` where it was at work."""
    plain = _PLAIN.get(name) or _ESCAPED.sub(_decode, name)
    return plain if plain != name and escape(plain, id="") == name else name


def _percent(match: re.Match[str]) -> str:
    data = match[0].encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)


def _decode(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode()


def cut(name: str, *, id: str) -> str:
    """*name*, shortened to 255 bytes with the tail of *id* where it is longer."""
    return name if len(name) <= NAME_MAX // 4 or _length(name) <= NAME_MAX else tailed(name, id=id)


def tailed(name: str, *, id: str) -> str:
    """*name* with the tail of *id*: tells it from another object of that name."""
    tail = f"~{id_tail(id)}"
    kept = os.fsencode(name)[: NAME_MAX - len(tail)]
    return kept.decode("utf-8", "ignore" if _is_text(name) else "surrogateescape") + tail


def id_tail(id: str) -> str:
    """The last eight characters of an id, or of its hash where those are not plain."""
    tail = id[-8:]
    if len(tail) == 8 and tail.isascii() and tail.isalnum():
        return tail
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _length(name: str) -> int:
    return len(os.fsencode(name))


def _is_text(name: str) -> bool:
    return not _SURROGATE.search(name)


def components(path: str, *, id: str) -> tuple[str, ...]:
    """Where a server path is shown below its container: never empty, never outside.

    Paths below `/mnt/data/` and relative ones are shown in the container's directory, what is
    elsewhere below `.outside`. Several paths run together, as some servers list them, and paths
    longer or deeper than a program could use, become one escaped name.
    """
    outside: tuple[str, ...] = ()
    if path.startswith("/") and not path.startswith(DATA):
        rest, outside = path[1:], (OUTSIDE,)
    else:
        rest = _below_data(path)
    is_too_much = len(rest) > PATH_MAX // 2 or rest.count("/") > DEEPEST
    if DATA in f"/{rest}" or is_too_much:
        return (*outside, escape(rest, id=id))
    parts = tuple(escape(part, id=id) for part in rest.split("/") if part)
    if not parts:
        return (*outside, escape_id(id))
    if outside:
        return outside + parts
    return (_SPECIAL_AT_TOP.get(parts[0], parts[0]), *parts[1:])


def _below_data(path: str) -> str:
    """A path that is relative, or below the data directory, from there."""
    if path.startswith(DATA):
        return path[len(DATA) :]
    while path.startswith("./") and len(path) > 2:
        path = path[2:]
    return path


def stripped(path: str, *, id: str) -> tuple[str, ...] | None:
    """Where *path* is shown without the prefix that the server puts before an uploaded name.

    Seen before the base name; a server that keeps slashes may put it before the whole name.

    Returns:
        None where there is no prefix.
    """
    if path.startswith("/") and not path.startswith(DATA):
        return None
    parts = _below_data(path).split("/")
    for index in (len(parts) - 1, 0):
        match = _PREFIX.match(parts[index])
        if match is not None:
            parts[index] = parts[index][match.end() :]
            return components(DATA + "/".join(parts), id=id)
    return None


def plain(path: str) -> tuple[str, str | None] | None:
    """What `components` and `stripped` make of *path*, where that is one name as it stands.

    For listings, most of which are such names: a fraction of the time.

    Returns:
        The name with the prefix, and without it (None where there is none); None where only the
        other two can tell.
    """
    match = _PLAIN_PATH.fullmatch(path)
    if match is None:
        return None
    name, prefix, short = match.groups()
    if len(name) > NAME_MAX // 4 and not (len(name) <= NAME_MAX and name.isascii()):
        return None
    return name, short if prefix else None


def is_upload(
    path: str, name: str, *, id: str, may_be_flat: bool, may_be_elsewhere: bool = False
) -> bool:
    """Whether an upload as *name* may have got the server path *path*.

    Args:
        may_be_flat: The server may have dropped the directories.
        may_be_elsewhere: It may keep uploads in another directory than the service does.
    """
    sent_as = {name, name.rpartition("/")[2]} if may_be_flat else {name}
    wanted = [components(f"{DATA}{each}", id=id) for each in sent_as]
    paths = [path]
    if may_be_elsewhere and path.startswith("/") and not path.startswith(DATA):
        parts = path.split("/", MOST_ABOVE + 1)
        paths += [DATA + "/".join(parts[start:]) for start in range(1, len(parts))]
    return any(
        components(each, id=id) in wanted or stripped(each, id=id) in wanted for each in paths
    )


def upload_name(path: str) -> str:
    """The name to upload the visible *path* under: the server's names for its components.

    Bytes that are not text are percent-encoded, as are control characters, which no multipart
    header can carry. Such a name gets a mark of its own: what it is encoded as is a name, too.
    """
    parts = []
    top, *below = path.split("/")
    for part in (_PLAIN_AT_TOP.get(top, top), *below):
        plain = unescape(part)
        if plain in (".", "..") or _UNPRINTABLE.search(plain):
            plain = part
        raw = os.fsencode(plain)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("ascii", "backslashreplace").replace("\\x", "%")
        text = _UNPRINTABLE.sub(_percent, text)
        parts.append(text if text == plain else _marked(text, raw))
    return "/".join(parts)


def marked_name(path: str) -> str:
    """`upload_name` for a *path* whose last component the server has for another file."""
    parent, slash, base = upload_name(path).rpartition("/")
    return parent + slash + _marked(base, os.fsencode(path))


def _marked(text: str, raw: bytes) -> str:
    """*text*, which stands for the name *raw*, told from what it would be by itself."""
    stem, extension = os.path.splitext(text)
    return f"{stem}~{hashlib.blake2b(raw, digest_size=4).hexdigest()}{extension}"


def container_name(name: str) -> str:
    """The server's name for a container that is made as directory *name*.

    Raises:
        Invalid: It is not text.
    """
    plain = unescape(name)
    if not _is_text(plain):
        raise Invalid("a container's name must be UTF-8 text")
    return plain
