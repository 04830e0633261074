"""Brings a container's tree in line with a listing, and with what only this machine knows."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from containerfs.api.types import RemoteFile
from containerfs.cache.state import LocalNode, State
from containerfs.fs.names.layout import Placed, own_path, placing
from containerfs.fs.names.names import DATA, marked_name, stripped
from containerfs.fs.tree.amending import Amendment, hidden
from containerfs.fs.tree.nodes import SPECIAL, ContainerDirectory, Directory, File, Symlink
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.places import Places
from containerfs.fs.tree.tree import Tree
from containerfs.fs.turns import Work, at_once, pieces
from containerfs.upload.journal import Entry, Journal
from containerfs.upload.spool import Spool
from containerfs.upload.spools import SpoolDirectory

log = logging.getLogger(__name__)

LOST = "its content is not here any more"


class Reconciliation:
    """Files and directories as they were listed; what is open or unsent keeps what it has."""

    def __init__(
        self,
        *,
        tree: Tree,
        places: Places,
        objects: Objects,
        state: State,
        journal: Journal,
        spools: SpoolDirectory,
        raw_names: bool,
        on_change: Callable[[Iterable[Directory]], None],
    ) -> None:
        """Args:
        on_change: Told which directories a listing changed, but for a container's first one.
        """
        self._tree = tree
        self._places = places
        self._objects = objects
        self._state = state
        self._journal = journal
        self._spools = spools
        self._raw_names = raw_names
        self._on_change = on_change
        self._amendment = Amendment(
            places=places, objects=objects, state=state, journal=journal, raw_names=raw_names
        )

    def restore(self, container: ContainerDirectory) -> None:
        """Put what only this machine knows of a container into the tree, once."""
        if container.restored:
            return
        container.restored = True
        remembered = self._state.nodes(container.remote.id)
        for path, local in sorted(remembered.items()):
            if not path:
                continue  # the container itself
            if local.kind == "directory":
                directory = self._places.directory(container, path, local)
                directory.local, local.ino = local, directory.ino
            elif local.kind == "symlink":
                directory, name = self._places.parent(container, path)
                link = Symlink(
                    ino=self._places.ino(container, path, local),
                    name=name,
                    parent=None,
                    target=local.target or b"",
                )
                link.local = local
                self._tree.add(directory, link, name)
            elif made := next((each for each in SPECIAL if each.kind == local.kind), None):
                directory, name = self._places.parent(container, path)
                node = made(ino=self._places.ino(container, path, local), name=name, parent=None)
                node.local = local
                self._tree.add(directory, node, name)
        for entry in self._journal.entries:
            shown = self._tree.find(container, entry.path)
            if isinstance(shown, File) and shown.entry is entry:
                continue  # made here before the container was listed
            if entry.container_id == container.remote.id:
                spool = self._spools.open(entry.spool)
                if spool is None:
                    self._tell_lost(entry)
                    continue
                file = self._places.file(container, entry.path, remembered.get(entry.path))
                file.spool, file.entry, file.error = spool, entry, entry.error
                self._restore_times(file, spool)

    def _tell_lost(self, entry: Entry) -> None:
        """The content of *entry* is not here any more: say so once, and keep that it was."""
        if entry.error != LOST:
            log.error("the spool of %r is lost", entry.path)
            self._journal.update(entry, error=LOST)

    def _restore_times(self, file: File, spool: Spool) -> None:
        """A write costs no record of its time: what was written last tells by its spool."""
        local, changed = self._tree.local(file), spool.changed_ns()
        if local.ctime_ns is None or changed > local.ctime_ns:
            local.mtime_ns = local.ctime_ns = changed
        spool.close()

    def reconcile(self, container: ContainerDirectory, listed: tuple[RemoteFile, ...]) -> None:
        """Bring the tree in line with a listing; open and unsent files keep what they have."""
        at_once(self.reconciling(container, listed))

    def reconciling(
        self, container: ContainerDirectory, listed: tuple[RemoteFile, ...]
    ) -> Work[None]:
        """`reconcile` with places for a pause, for a container that is not shown yet."""
        self._tree.differing.clear()
        is_settled = self._amendment.amend(container, listed)
        if not is_settled:
            is_settled = yield from self._place_all(container, listed)
        yield
        container.shown = listed if is_settled else None
        container.hidden = hidden(container, listed)
        if self._tree.differing and container.is_watched:
            self._on_change(list(self._tree.differing))
        container.is_watched = True

    def _place_all(
        self, container: ContainerDirectory, listed: tuple[RemoteFile, ...]
    ) -> Work[bool]:
        """Returns:
        Whether that is all; else the same listing changes more once what is open is closed.
        """
        remembered = self._state.nodes(container.remote.id)
        placed = yield from self._place_files(container, listed, remembered)
        for known in pieces(list(container.files.values())):
            yield
            for file in known:
                versions = placed.get(file.path) if file.parent is not None else None
                if versions is None or container.files.get(versions[0].id) is not file:
                    self._objects.vanished(container, file, replaced=versions is not None)
        for some in pieces(placed.items()):
            yield
            for path, versions in some:
                placed[path] = ()  # its memory is used again at once
                self._show(container, path, versions, remembered.get(path))
        for path, local in remembered.items():
            if local.kind != "file" or path in placed:
                continue
            if not isinstance(self._tree.find(container, path), File):
                self._state.forget_node(container.remote.id, path)
        return self._places.remove_empty_directories(container)

    def _place_files(
        self,
        container: ContainerDirectory,
        listed: tuple[RemoteFile, ...],
        remembered: dict[str, LocalNode],
    ) -> Work[Placed]:
        kept: dict[str, str] = {}
        for known in pieces([] if self._raw_names else list(container.files.values())):
            yield
            kept.update(_shown_without_prefix(known))
        directories = {path for path, local in remembered.items() if local.kind != "file"}
        ids = {local.file_id for local in remembered.values()}
        listed_ids = {file.id for file in listed if file.id in ids}
        for path, local in remembered.items():
            if local.kind != "file" or local.file_id in listed_ids:
                directories.update(_parents(path))
            if local.file_id is not None:
                kept[local.file_id] = path
        sending: dict[tuple[str, ...], str] = {}
        for entry in self._journal.entries:
            if entry.container_id == container.remote.id:
                directories.update(_parents(entry.path))
                if entry.state == "sending":
                    marked = marked_name(entry.path).split("/")  # which no other file has
                    for parts in (entry.path.split("/"), marked, marked[-1:]):
                        sending[tuple(parts)] = entry.path
        if sending:  # an upload whose answer has not come, or never will, may be listed
            for file in listed:
                short = stripped(file.path, id=file.id)
                sent_as = sending.get(short or tuple(file.path.removeprefix(DATA).split("/")))
                if sent_as is not None:
                    kept.setdefault(file.id, sent_as)
        return (
            yield from placing(
                listed, kept=kept, directories=directories, raw_names=self._raw_names
            )
        )

    def _show(
        self,
        container: ContainerDirectory,
        path: str,
        versions: Sequence[RemoteFile],
        local: LocalNode | None,
    ) -> None:
        newest = versions[0]
        file = container.files.get(newest.id)
        if file is None or file.parent is None or file.path != path:
            file = self._places.file(container, path, local)
        elif file.remote is newest and len(versions) == 1 and not file.older:
            return
        self._objects.set_remote(container, file, newest, older=tuple(versions[1:]))


def _shown_without_prefix(files: Iterable[File]) -> Iterator[tuple[str, str]]:
    """Objects that are shown under another name than the server's, and keep it: id and path."""
    for file in files:
        if file.parent is not None and file.remote is not None:
            path = file.path
            if path != own_path(file.remote):
                yield file.remote.id, path


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
