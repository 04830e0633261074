"""Where an upload ends up: its name cleaned, prefixed and placed below /mnt/data."""

import secrets

from containerfs.server import refusals
from containerfs.server.behaviours import Behaviours

DATA = "/mnt/data/"


def clean_name(name: str, *, behaviours: Behaviours) -> str:
    """The upload's name without empty, `.` and `..` components, slashes as the server likes them.

    Raises:
        Refusal: Nothing is left, or slashes are refused.
    """
    components = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not components:
        raise refusals.invalid("file", f"'{name}' is no file name.")
    if behaviours.slashes == "refuse" and "/" in name:
        raise refusals.invalid("file", "a file name can't contain '/'.")
    return components[-1] if behaviours.slashes == "flatten" else "/".join(components)


def upload_path(name: str, *, behaviours: Behaviours) -> str:
    """The path of an upload with this clean name."""
    if behaviours.naming == "plain":
        return DATA + name
    if behaviours.naming == "file_id":
        return prefixed_path(name, f"file-{secrets.token_hex(12)}-", behaviours=behaviours)
    return prefixed_path(name, f"{secrets.token_hex(16)}-", behaviours=behaviours)


def prefixed_path(name: str, prefix: str, *, behaviours: Behaviours) -> str:
    """The path of a clean name with a prefix at its front or at its base name's."""
    if behaviours.prefix == "front":
        return DATA + prefix + name
    directory, slash, base = name.rpartition("/")
    return DATA + directory + slash + prefix + base


def told_path(path: str, *, behaviours: Behaviours) -> str:
    """The path as answers show it."""
    return path.removeprefix(DATA) if behaviours.relative_paths else path
