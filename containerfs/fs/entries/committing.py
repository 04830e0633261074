"""The end of a rename: tree, journal and caches change in one step.

It comes after the server has all the new objects, and before anything else can look.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from containerfs.api.types import RemoteFile
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.fs.entries.removing import Removing
from containerfs.fs.entries.transfer import Transfer
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.outgoing.moves import Move, are_named_alike, made
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.tree import Tree
from containerfs.upload.journal import Journal

log = logging.getLogger(__name__)

Doomed = dict[tuple[str, str], str]  # the visible paths of objects, by container and file id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    """What a file was before it was renamed."""

    path: str
    ids: tuple[str, ...]

    @classmethod
    def of(cls, move: Move) -> "_Old":
        return cls(path=move.file.path, ids=move.replaced)


class Commits:
    """Lets files be what was sent of them under their new names."""

    def __init__(
        self,
        *,
        tree: Tree,
        objects: Objects,
        removing: Removing,
        sending: Sending,
        transfer: Transfer,
        metadata: Metadata,
        state: State,
        journal: Journal,
        scratch: NamePatterns,
    ) -> None:
        self._tree = tree
        self._objects = objects
        self._removing = removing
        self._sending = sending
        self._transfer = transfer
        self._metadata = metadata
        self._state = state
        self._journal = journal
        self._scratch = scratch

    def commit(
        self,
        node: Node,
        new: Directory,
        new_name: str,
        target: Node | None,
        moves: list[Move],
    ) -> Doomed:
        """Change the tree, in one step.

        Returns:
            The objects that nobody shows any more, hidden and recorded.
        """
        source = self._tree.container_of(node)
        old_parent = node.parent
        doomed: Doomed = {}
        with self._state.transaction():
            self._transfer.end(moves)
            inherited = self._replace_target(target, node)
            olds = {move.file.ino: _Old.of(move) for move in moves}
            sent = made(moves)
            if old_parent is not None:
                self._tree.keep_directory(old_parent)
                self._tree.touch_directory(old_parent)
            self._make_way(new, new_name)
            self._tree.move(node, new, new_name)
            self._tree.touch_directory(new)
            self._adjust_entries(node)
            for move in moves:
                doomed |= self._finish(move, source, olds[move.file.ino], sent)
            if inherited:
                doomed |= self._inherit(node, inherited, sent=bool(moves))
        return doomed

    def commit_exchange(self, one: Node, other: Node, moves: list[Move]) -> Doomed:
        """Swap two names, in one step; returns what `commit` does."""
        sources = {move.file.ino: self._tree.container_of(move.file) for move in moves}
        olds = {move.file.ino: _Old.of(move) for move in moves}
        one_parent, one_name = one.parent, one.name
        other_parent, other_name = other.parent, other.name
        assert one_parent is not None and other_parent is not None  # noqa: S101, PT018 - looked up
        doomed: Doomed = {}
        with self._state.transaction():
            self._transfer.end(moves)
            aside = f"{one_name}\0"  # no name that a program can give
            self._tree.move(one, one_parent, aside)
            self._tree.move(other, one_parent, one_name)
            self._tree.move(one, other_parent, other_name)
            self._tree.touch_directory(one_parent)
            self._tree.touch_directory(other_parent)
            for node in (one, other):
                self._adjust_entries(node)
            for move in moves:  # a server may have given the id of one to the other
                self._objects.disown(move.file)
            for move in moves:
                source, old = sources[move.file.ino], olds[move.file.ino]
                doomed |= self._finish(move, source, old, made(moves))
        return doomed

    def _replace_target(self, target: Node | None, node: Node) -> tuple[str, ...]:
        """Take the target's name away; returns the ids of what the server has of it."""
        if target is None:
            return ()
        ids: tuple[str, ...] = ()
        if isinstance(target, File):
            ids = target.own_ids
            self._removing.forget_file(target)
        else:
            self._empty(target)
            self._tree.orphan(target)
        log.debug("%r replaces an entry", node.name)
        return ids

    def _make_way(self, directory: Directory, name: str) -> None:
        """What was listed under *name* meanwhile goes: it is what was sent, or others put it there,
        and then the next listing tells. No program here can have changed it: the kernel keeps the
        directory to the rename.
        """
        late = directory.children.get(name)
        if late is not None:
            self._empty(late)
            self._tree.orphan(late)

    def leave(self, files: Iterable[File]) -> None:
        """Don't take these along: the next listing shows them where they are."""
        for file in files:
            self._tree.orphan(file)

    def put_back(self, file: File, parent: Directory, name: str, moves: list[Move]) -> None:
        """Undo what a listing did to *file*, which had that place, because of what was sent."""
        container = parent.container
        if file.parent is not None or container is None or container.listing is None:
            return
        sent = [move.remote for move in moves if move.remote is not None]
        known = {each.version for move in moves for each in move.source}
        known.update(each.version for each in sent)
        before = [each for move in moves if move.file is file for each in move.source]

        def has_its_name(each: RemoteFile) -> bool:
            return any(are_named_alike(each, old) for old in before)

        others = (each for each in container.listing.entries if each.version not in known)
        late = parent.children.get(name)
        if late is None:  # a server may have overwritten it
            is_ours = any(map(has_its_name, sent))
        else:
            is_ours = isinstance(late, File) and any(each in sent for each in late.versions)
        if not is_ours or any(map(has_its_name, others)):
            return  # others removed or replaced it
        if late is not None:
            self._tree.orphan(late)
        self._tree.add(parent, file, name)

    def _empty(self, directory: Node) -> None:
        """What others have put there meanwhile is found there again by the next listing."""
        below = directory.walk() if isinstance(directory, Directory) else ()
        for each in reversed([*below]):
            self._tree.orphan(each)

    def _adjust_entries(self, node: Node) -> None:
        """Unsent files are held or not by the names that they have now."""
        below = node.walk() if isinstance(node, Directory) else ()
        for each in (node, *below):
            if isinstance(each, File) and each.entry is not None:
                held = self._scratch.matches(each.name)
                if held != each.entry.held:
                    self._journal.update(each.entry, held=held)
        if isinstance(node, File) and self._scratch.matches(node.name):
            backups = self._tree.container_of(node).backups
            if backups is not None:
                backups.add(node)

    def _finish(
        self,
        move: Move,
        source: ContainerDirectory,
        old: _Old,
        made: Collection[tuple[str, str]],
    ) -> Doomed:
        """Let the file be what was sent.

        Args:
            made: All that was sent: a server may have given an old object's id to a new one.
        """
        file, remote = move.file, move.remote
        assert remote is not None  # noqa: S101 - all were sent
        doomed = {
            (source.remote.id, id): old.path for id in old.ids if (source.remote.id, id) not in made
        }
        if move.spool is not None:
            self._objects.disown(file)
            file.remote, file.older = None, ()
            if file.entry is not None:
                self._journal.update(file.entry, replaces=())
            self._sending.sent(file, move.container, move.spool, remote)
        else:
            self._transfer.adopt(move, remote)
        self._record(doomed)
        return doomed

    def _record(self, doomed: Doomed) -> None:
        for pair, path in doomed.items():
            self._metadata.forget(*pair)
            self._journal.delete_later(*pair, path=path)

    def _inherit(self, node: Node, ids: tuple[str, ...], *, sent: bool) -> Doomed:
        """What the server has of the replaced file goes: now, or once the new one is there."""
        container = self._tree.container_of(node)
        entry = node.entry if isinstance(node, File) else None
        if not sent and entry is not None:
            replaces = tuple(dict.fromkeys((*entry.replaces, *ids)))
            self._journal.update(entry, replaces=replaces)
            for id in ids:
                self._metadata.forget(container.remote.id, id)
            return {}
        kept = set(node.remote_ids) if isinstance(node, File) else set()
        doomed = {(container.remote.id, id): node.path for id in ids if id not in kept}
        self._record(doomed)
        return doomed
