"""Where each listed object is shown: plain functions from listings to visible paths.

What decides is stable: names that were given before are kept, then the older object comes first,
so a path never changes its meaning because something newer appears.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from operator import attrgetter

from containerfs.api.types import Container, RemoteFile
from containerfs.fs.names import names
from containerfs.fs.turns import Work, at_once, pieces

BY_ID = ".by-id"

Placed = dict[str, Sequence[RemoteFile]]


def place_containers(containers: Iterable[Container], *, kept: Mapping[str, str]) -> dict[str, str]:
    """The visible name of each container, by id.

    Args:
        kept: Names given before, by id; they stay as they are.
    """
    placed: dict[str, str] = {}
    taken = {BY_ID}
    arrivals = sorted(containers, key=lambda container: (container.created, container.id))
    for container in arrivals:
        name = kept.get(container.id)
        if name is not None and name not in taken:
            placed[container.id] = name
            taken.add(name)
    for container in arrivals:
        if container.id not in placed:
            name = _free(names.escape(container.name, id=container.id), container.id, taken)
            placed[container.id] = name
            taken.add(name)
    return placed


def _free(name: str, id: str, taken: Collection[str], *, below: str = "") -> str:
    """*name*, or with the id's tail where it is taken, or all of the id, or another tail.

    Args:
        below: What the names that are taken begin with.
    """
    if below + name not in taken:
        return name
    others = (names.tailed(name, id=f"{id}\0{number}") for number in count())
    candidates = chain((names.tailed(name, id=id), names.escape_id(id)), others)
    return next(candidate for candidate in candidates if below + candidate not in taken)


def newest_first(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Of one path's objects the newest is shown; among equals the id decides."""
    return sorted(files, key=attrgetter("created", "id"), reverse=True)


def place_files(
    files: Iterable[RemoteFile],
    *,
    kept: Mapping[str, str],
    directories: Collection[str] = (),
    raw_names: bool = False,
) -> Placed:
    """The objects shown at each visible path, the newest first.

    Args:
        kept: Paths that objects have by having been sent from here, or by being shown so now,
            by file id.
        directories: Visible paths that are directories whatever is listed.
        raw_names: Keep the server's prefixes.
    """
    return at_once(placing(files, kept=kept, directories=directories, raw_names=raw_names))


def placing(
    files: Iterable[RemoteFile],
    *,
    kept: Mapping[str, str],
    directories: Collection[str],
    raw_names: bool,
) -> Work[Placed]:
    """`place_files` with places for a pause."""
    placed: Placed = {}
    prefixed: Placed = {}
    others: list[RemoteFile] = []
    moved: dict[str, str] = {}
    for piece in pieces(files):
        yield
        if raw_names:
            for file in piece:
                _place(placed, own_path(file), file)
        else:
            others += _placed_as_before(piece, kept, placed, moved)
    for piece in pieces(others):
        yield
        _sort_out(piece, moved, placed, prefixed)
    for paths in pieces(prefixed):
        yield
        for path in paths:
            candidates = prefixed[path]
            if len(candidates) == 1 and path not in placed:
                placed[path] = candidates
            else:  # which of them is meant is not certain, so each keeps the server's own name
                for file in candidates:
                    _place(placed, own_path(file), file)
    yield
    if kept and not raw_names:
        _beside_kept(placed, kept)
    return _beside_directories(_sorted(placed), set(directories))


def _placed_as_before(
    files: list[RemoteFile], kept: Mapping[str, str], placed: Placed, moved: dict[str, str]
) -> list[RemoteFile]:
    """Put those that have a path already into *placed*; returns the others.

    Args:
        moved: Told the paths of what was moved off its own: its older versions go there, too.
    """
    if not kept:
        return files
    others = []
    for file in files:
        path = kept.get(file.id)
        if path is None:
            others.append(file)
            continue
        _place(placed, path, file)
        if not file.path.endswith(path):  # as it does where the prefix was taken off
            own = own_path(file)
            if path in _aside(own, file.id):
                moved[own] = path
    return others


def _place(placed: Placed, path: str, file: RemoteFile) -> None:
    """Put *file* beside those that have the same path: there are none, nearly always."""
    found = placed.get(path)
    if found is None:
        placed[path] = (file,)  # takes half the memory of a list
    elif isinstance(found, list):
        found.append(file)
    else:
        placed[path] = [*found, file]


def _aside(path: str, id: str) -> tuple[str, str]:
    """What a file is called first that is moved off *path*."""
    parent, slash, name = path.rpartition("/")
    return parent + slash + names.tailed(name, id=id), parent + slash + names.escape_id(id)


def _sort_out(
    files: Iterable[RemoteFile], moved: Mapping[str, str], placed: Placed, prefixed: Placed
) -> None:
    """Those whose path is certain into *placed*, those with a prefix by what follows it."""
    for file in files:
        short = short_path(file)
        target = placed if short is None else prefixed
        path = short or own_path(file)
        if short is None:
            path = moved.get(path, path)
        _place(target, path, file)


def own_path(file: RemoteFile) -> str:
    """Where *file* is shown by the server's own name, below its container."""
    found = names.plain(file.path)
    return found[0] if found is not None else "/".join(names.components(file.path, id=file.id))


def short_path(file: RemoteFile) -> str | None:
    """The same without the prefix of an uploaded file; None where there is none."""
    if file.source != "user":
        return None
    found = names.plain(file.path)
    if found is not None:
        return found[1]
    parts = names.stripped(file.path, id=file.id)
    return None if parts is None else "/".join(parts)


def _sorted(placed: Placed) -> Placed:
    for path, found in placed.items():
        if len(found) > 1:
            placed[path] = newest_first(found)
    return placed


def _beside_kept(placed: Placed, kept: Mapping[str, str]) -> None:
    """Move files off the names that others were given before: they are not versions of those.

    One that has the same name on the server too is a version, and stays.
    """
    for path, found in [each for each in placed.items() if len(each[1]) > 1]:
        known = {names.components(file.path, id=file.id) for file in found if file.id in kept}
        strangers = [
            file for file in found if known and names.components(file.path, id=file.id) not in known
        ]
        if strangers:
            placed[path] = [file for file in found if file not in strangers]
            parent, slash, name = path.rpartition("/")
            newest = newest_first(strangers)
            moved = parent + slash + _free(name, newest[0].id, placed.keys(), below=parent + slash)
            placed[moved] = newest


def _beside_directories(placed: Placed, directories: set[str]) -> Placed:
    """Move files off the names that are directories too: the directory keeps the name."""
    for path in placed:
        while "/" in path and (path := path.rpartition("/")[0]) and path not in directories:
            directories.add(path)
    clashes = sorted(directories & placed.keys())
    if not clashes:
        return placed
    taken = directories | placed.keys()
    for path in clashes:
        found = placed.pop(path)
        parent, slash, name = path.rpartition("/")
        moved = parent + slash + _free(name, found[0].id, taken, below=parent + slash)
        placed[moved] = found
        taken.add(moved)
    return placed
