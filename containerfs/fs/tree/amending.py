"""Brings a container's tree in line with a listing that is nearly the last one.

Most listings differ from the one before in few files or none. What those few are shown as hangs
on others only where names meet; where they might, all is placed anew (`Reconciliation`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from containerfs.api.types import RemoteFile
from containerfs.cache.state import State
from containerfs.fs.names.layout import own_path, short_path
from containerfs.fs.names.names import plain
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.places import Places
from containerfs.upload.journal import Journal

FEW = 256  # files that differ; each is compared with the names of all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Difference:
    """What a listing has that the one before did not have, and the other way round."""

    added: tuple[RemoteFile, ...]
    changed: tuple[tuple[RemoteFile, RemoteFile], ...]  # as it was, and as it is
    gone: tuple[RemoteFile, ...]

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        return (*self.added, *(now for _, now in self.changed), *self.gone)

    def __len__(self) -> int:
        return len(self.added) + len(self.changed) + len(self.gone)


def difference(before: Iterable[RemoteFile], now: Iterable[RemoteFile]) -> Difference:
    """How two listings differ; what is the same in both is mostly the same object, too."""
    known = {file.id: file for file in before}
    added, changed = [], []
    for file in now:
        old = known.pop(file.id, None)
        if old is None:
            added.append(file)
        elif old is not file and old != file:
            changed.append((old, file))
    return Difference(added=tuple(added), changed=tuple(changed), gone=tuple(known.values()))


def hidden(container: ContainerDirectory, listed: Iterable[RemoteFile]) -> frozenset[str]:
    """The ids of what is *listed* and not shown: others of the same path are newer."""
    shown = container.files
    return frozenset([file.id for file in listed if file.id not in shown])


class Amendment:
    """Small differences, brought into the tree by themselves."""

    def __init__(
        self, *, places: Places, objects: Objects, state: State, journal: Journal, raw_names: bool
    ) -> None:
        self._places = places
        self._objects = objects
        self._state = state
        self._journal = journal
        self._raw_names = raw_names

    def amend(self, container: ContainerDirectory, listed: tuple[RemoteFile, ...]) -> bool:
        """Bring the tree in line with *listed*, if that is certain to be simple.

        Returns:
            False where nothing was done.
        """
        before = container.shown
        if before is None or self._raw_names:
            return False
        without_node = hidden(container, listed)
        with_node = len(listed) - len(without_node)
        if before == listed:  # in a moment: mostly the same objects
            return without_node == container.hidden and len(container.files) == with_node
        differing = difference(before, listed)
        gone = {file.id for file in differing.gone}
        added = {file.id for file in differing.added}
        if without_node - added != container.hidden - gone:
            return False  # something here changed what is shown
        if len(container.files) != with_node + len(gone & container.files.keys()):
            return False  # what was made here since is gone already
        if not len(differing):
            return True
        if len(differing) > FEW or not self._is_simple(container, differing, listed):
            return False
        for file in differing.gone:
            node = container.files.get(file.id)
            if node is not None:
                self._objects.vanished(container, node, replaced=False)
        for _, file in differing.changed:
            self._objects.set_remote(container, container.files[file.id], file)
        for file in differing.added:
            known = container.files.get(file.id)
            name = _name(file)
            node = known or self._places.make_file(container, container, name, name, None)
            self._objects.set_remote(container, node, file)
        return True

    def _is_simple(
        self,
        container: ContainerDirectory,
        differing: Difference,
        listed: tuple[RemoteFile, ...],
    ) -> bool:
        fits = (
            all(self._can_come(container, file) for file in differing.added)
            and all(_can_change(container, old, file) for old, file in differing.changed)
            and all(_can_go(container, file) for file in differing.gone)
        )
        if not fits or self._is_remembered(container, differing.added):
            return False
        files = differing.files
        ids = {file.id for file in files}
        ends = {end for file in files if (end := _end(file)) is not None}
        if len(ends) < len(files):
            return False
        tails = tuple(ends)
        return not any(file.path.endswith(tails) and file.id not in ids for file in listed)

    def _can_come(self, container: ContainerDirectory, file: RemoteFile) -> bool:
        """Whether it is, or can be, shown in the container itself under its name."""
        name, node = _name(file), container.files.get(file.id)
        if node is None:
            return "/" not in name and name not in container.children
        return _is_alone(node) and node.path in (name, own_path(file))

    def _is_remembered(self, container: ContainerDirectory, added: Iterable[RemoteFile]) -> bool:
        """Whether this machine knows more of what was *added* than that it is listed."""
        new = [file for file in added if file.id not in container.files]
        id = container.remote.id
        return bool(new) and (
            any(entry.container_id == id for entry in self._journal.entries)
            or self._state.remembers_any(
                id, paths=[_name(file) for file in new], file_ids=[file.id for file in new]
            )
        )


def _name(file: RemoteFile) -> str:
    return short_path(file) or own_path(file)


def _end(file: RemoteFile) -> str | None:
    """What the server's paths of all files end with that could have its name; None: no telling."""
    found = plain(file.path.rpartition("/")[2])
    return None if found is None else found[1] or found[0]


def _is_alone(node: File) -> bool:
    return node.parent is not None and not node.older


def _can_change(container: ContainerDirectory, old: RemoteFile, now: RemoteFile) -> bool:
    node = container.files.get(now.id)
    is_alike = (old.path, old.source) == (now.path, now.source)
    return is_alike and node is not None and _is_alone(node)


def _can_go(container: ContainerDirectory, file: RemoteFile) -> bool:
    node = container.files.get(file.id)
    if node is None:
        return file.id not in container.hidden
    return _is_alone(node) and node.parent is container
