"""Renaming, on a service that has no rename: upload under the new name, then delete the old.

The mount's tree changes in one step, after the server has all the new objects and before anything
else can look. A failure up to then leaves the old names as they were, here and there.
"""

import logging
from collections.abc import Collection
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.content import Content, ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import (
    CrossDevice,
    Exists,
    FileSystemError,
    Invalid,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    Stale,
    TimedOut,
    Uncertain,
)
from containerfs.fs.changes import Changes
from containerfs.fs.files import Files, check_can_change
from containerfs.fs.names import components, stripped
from containerfs.fs.namespace import Namespace
from containerfs.fs.nodes import ContainerDirectory, Directory, File, Node
from containerfs.fs.patterns import NamePatterns
from containerfs.fs.sending import Sending
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import Journal
from containerfs.upload.spool import Spool
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

NOREPLACE = 1  # linux/fs.h RENAME_NOREPLACE, RENAME_EXCHANGE
EXCHANGE = 2
PARALLEL = 16  # files of a directory on their way at once


@dataclass(slots=True, kw_only=True)
class _Move:
    """One file's way to its new name.

    Attributes:
        content: What to send, where it is here already; pinned until the rename is over.
        remote: The object under the new name, once it is there.
        intent: Number of the record that it is to be sent.
        is_uncertain: It failed, and may have arrived nevertheless: the record stays.
        spool: What was sent, where it was unsent content.
    """

    file: File
    container: ContainerDirectory
    path: str
    content: Content | None = None
    remote: RemoteFile | None = None
    spool: Spool | None = None
    intent: int | None = None
    is_uncertain: bool = False


class Renaming:
    """rename(2), in all its variants."""

    def __init__(
        self,
        *,
        namespace: Namespace,
        files: Files,
        changes: Changes,
        sending: Sending,
        metadata: Metadata,
        state: State,
        store: ContentStore,
        journal: Journal,
        intents: Intents,
        uploader: Uploader,
        scratch: NamePatterns,
        limit: int,
        sends_at_once: bool,
    ) -> None:
        """Args:
        limit: Files that a directory may hold to be renamed in place.
        sends_at_once: A file that is not on the server yet is to be there under its new name.
        """
        self._namespace = namespace
        self._files = files
        self._changes = changes
        self._sending = sending
        self._metadata = metadata
        self._state = state
        self._store = store
        self._journal = journal
        self._intents = intents
        self._uploader = uploader
        self._scratch = scratch
        self._limit = limit
        self._sends_at_once = sends_at_once

    async def rename(
        self, old: Directory, old_name: str, new: Directory, new_name: str, flags: int
    ) -> None:
        """Rename an entry, replacing what has the new name.

        Raises:
            NotPermitted: Containers keep their names, and files live in containers.
            CrossDevice: It can only be copied: a directory to the top level, or too many files.
            FileSystemError: As rename(2) has it, or what the server answered; nothing changed.
        """
        node = await self._namespace.lookup(old, old_name)
        target = await self._find(new, new_name)
        if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
            raise Invalid(f"rename flags {flags}")
        self._check(node, new)
        if node is target:
            return
        if flags & EXCHANGE:
            if target is None:
                raise NotFound(new_name)
            self._check(target, old)
            await self._exchange(node, target)
            return
        if target is not None:
            if flags & NOREPLACE:
                raise Exists(new_name)
            self._check_replaceable(node, target)
        await self._move(node, new, new_name, target)

    async def _find(self, directory: Directory, name: str) -> Node | None:
        try:
            return await self._namespace.lookup(directory, name)
        except NotFound:
            return None

    def _check(self, node: Node, new: Directory) -> None:
        container = node.container
        if container is None or container is node:
            raise NotPermitted("a container can't be renamed")
        if new.container is None:
            if isinstance(node, Directory) and new is self._namespace.root:
                raise CrossDevice("a directory becomes a container by being copied")
            raise NotPermitted("the top level holds containers only")
        assert node.parent is not None  # noqa: S101 - it was just looked up
        if container.is_snapshot:
            check_can_change(node.parent)
        check_can_change(new)
        above: Node | None = new
        while above is not None:
            if above is node:
                raise Invalid("a directory can't be moved into itself")
            above = above.parent

    def _check_replaceable(self, node: Node, target: Node) -> None:
        if isinstance(node, Directory):
            if not isinstance(target, Directory):
                raise NotADirectory(target.name)
            if target.children:
                raise NotEmpty(target.name)
        elif isinstance(target, Directory):
            raise IsADirectory(target.name)

    # Moving.

    async def _move(self, node: Node, new: Directory, new_name: str, target: Node | None) -> None:
        container = self._namespace.container_of(new)
        parent = node.parent
        base = new.path_of(new_name)
        moves = self._plan(node, container, base)
        async with AsyncExitStack() as locks:
            await self._lock(locks, moves, node, target)
            if node.parent is not parent or new.children.get(new_name) is not target:
                raise Stale(f"{new_name!r} changed meanwhile")  # the kernel looks again
            moves = self._plan(node, container, base)
            if isinstance(target, File) and target.opens and target.spool is None:
                await self._changes.keep_content(target)
            await self._send(moves)
            gone = await self._delete_source(moves, target)
            doomed = self._commit(node, new, new_name, target, moves)
            for pair in gone:
                self._journal.deleted(*pair)
            await self._delete([pair for pair in doomed if pair not in gone])
        self._send_in_background(node)

    def _plan(self, node: Node, container: ContainerDirectory, base: str) -> list[_Move]:
        """The files that the server must get under a new name.

        Raises:
            CrossDevice: There are too many, or one that is being written has an old object in
                another container, which must stay until the new content is sent.
        """
        if isinstance(node, File):
            found = [(node, base)]
        elif isinstance(node, Directory):
            start = len(node.path)
            found = [
                (each, base + each.path[start:]) for each in node.walk() if isinstance(each, File)
            ]
        else:
            found = []
        moves = [
            _Move(file=file, container=container, path=path)
            for file, path in found
            if self._must_be_sent(file, container, path, alone=file is node)
        ]
        sent = {move.file.ino for move in moves}
        for file, _ in found:
            is_elsewhere = file.container is not container and file.ino not in sent
            if is_elsewhere and (file.remote_ids or (file.entry and file.entry.replaces)):
                raise CrossDevice(f"{file.path!r} has changes that are not sent yet")
        if len(moves) > self._limit:
            raise CrossDevice(f"{len(moves)} files are more than rename_limit ({self._limit})")
        return moves

    def _must_be_sent(
        self, file: File, container: ContainerDirectory, path: str, *, alone: bool
    ) -> bool:
        is_here = file.container is container
        if is_here and self._scratch.matches(path.rpartition("/")[2]):
            return False  # it stays here under the new name; what the server has of it stays there
        if file.spool is not None:
            # Else its own close sends it, or what was begun by its close.
            return alone and bool(file.size) and not file.writers and self._sends_at_once
        if file.remote is None:
            return False
        return not is_here or not _is_named(file.remote, path)

    async def _lock(
        self, locks: AsyncExitStack, moves: list[_Move], node: Node, target: Node | None
    ) -> None:
        """Wait until nothing else changes what the server has of these; plan anew after it."""
        files = {move.file.ino: move.file for move in moves}
        for above in (node, target):
            below = above.walk() if isinstance(above, Directory) else ()
            for each in (above, *below):
                if isinstance(each, File) and (each.spool is not None or each is above):
                    files[each.ino] = each  # it may be on its way under its old name
        for _, file in sorted(files.items()):
            await locks.enter_async_context(file.changing)

    async def _send(self, moves: list[_Move]) -> None:
        """Have the server hold every file under its new name too, or, after an error, none."""
        errors: list[FileSystemError] = []
        slots = trio.CapacityLimiter(PARALLEL)
        self._begin(moves)

        async def send(move: _Move) -> None:
            async with slots:
                if errors:
                    return
                try:
                    await self._send_one(move)
                except FileSystemError as exc:
                    move.is_uncertain = isinstance(exc, Uncertain | TimedOut)
                    errors.append(exc)

        async with trio.open_nursery() as nursery:
            for move in moves:
                nursery.start_soon(send, move)
        if errors:
            await self._take_back(moves)
            raise errors[0]

    def _begin(self, moves: list[_Move]) -> None:
        """Record what is about to be done, so that the next mount can undo or finish it."""
        with self._state.transaction():
            for move in moves:
                file, source, target = move.file, move.file.container, move.container
                if source is None:
                    continue
                at_path = self._namespace.find(target, move.path)
                replaced = at_path if isinstance(at_path, File) else None
                listed = target.listing.entries if target.listing is not None else ()
                move.intent = self._intents.begin(
                    Rename(
                        container_id=target.remote.id,
                        path=move.path,
                        size=file.size or 0,
                        known=tuple(each.id for each in listed if _is_named(each, move.path)),
                        replaces=replaced.remote_ids if replaced is not None else (),
                        source_id=source.remote.id,
                        source_path=file.path,
                        source_objects=file.remote_ids,
                        entry_id=file.entry.id if file.entry is not None else None,
                    )
                )

    def _end(self, moves: list[_Move]) -> None:
        for move in moves:
            if move.intent is not None:
                self._intents.end(move.intent)

    async def _send_one(self, move: _Move) -> None:
        file = move.file
        if file.spool is not None:
            move.spool = file.spool
            move.remote = await self._sending.upload(file, container=move.container, path=move.path)
            return
        with ExitStack() as pins:
            content = move.content
            if content is None:
                content = await self._files.whole(file)
                pins.callback(self._store.unpin, content)
            move.remote = await self._sending.put(
                move.container, path=move.path, fd=content.fd, size=content.size or 0
            )

    async def _take_back(self, moves: list[_Move]) -> None:
        pairs = []
        for move in moves:
            if move.remote is None or move.remote.id in move.file.remote_ids:
                continue
            victim = self._namespace.find(move.container, move.path)
            if isinstance(victim, File) and await self._is_overwritten(victim, move):
                await self._files.make_dirty(victim)
                self._sending.send_soon(victim)
                if move.remote.id in victim.remote_ids:
                    continue
            pairs.append((move.container.remote.id, move.remote.id))
            self._metadata.forget(*pairs[-1])
        await self._delete(pairs)
        self._end([move for move in moves if not move.is_uncertain])

    async def _is_overwritten(self, victim: Node | None, move: _Move) -> bool:
        """Whether the server gave the name of *victim* to what was sent, or does not tell."""
        if not isinstance(victim, File) or victim.remote is None or move.remote is None:
            return False
        if move.remote.id in victim.remote_ids:
            return True
        try:
            return await self._uploader.find(move.container.remote.id, victim.remote.id) is None
        except FileSystemError:
            return True

    async def _delete_source(self, moves: list[_Move], target: Node | None) -> set[tuple[str, str]]:
        """Delete a single file's old object while the rename can still be taken back.

        It can't where the server has overwritten the target: then the old object goes later.

        Returns:
            What is gone, as (container id, file id).
        """
        if len(moves) != 1 or moves[0].spool is not None:
            return set()
        file, remote = moves[0].file, moves[0].remote
        container = file.container
        gone: set[tuple[str, str]] = set()
        if container is None or remote is None or file.remote is None:
            return gone
        try:
            for id in file.remote_ids:
                if id != remote.id:
                    await self._uploader.remove(container.remote.id, id)
                    gone.add((container.remote.id, id))
        except FileSystemError:
            if not gone and not await self._is_overwritten(target, moves[0]):
                await self._take_back(moves)
                raise
        return gone

    def _commit(
        self,
        node: Node,
        new: Directory,
        new_name: str,
        target: Node | None,
        moves: list[_Move],
    ) -> list[tuple[str, str]]:
        """Change the tree, in one step.

        Returns:
            The objects that nobody shows any more, hidden and recorded, as (container, file id).
        """
        source = self._namespace.container_of(node)
        old_parent = node.parent
        doomed: list[tuple[str, str]] = []
        with self._state.transaction():
            self._end(moves)
            inherited = self._replace_target(target, node)
            old_ids = {move.file.ino: move.file.remote_ids for move in moves}
            made = _made(moves)
            if old_parent is not None:
                self._namespace.keep_directory(old_parent)
                self._files.touch_directory(old_parent)
            self._namespace.move(node, new, new_name)
            self._files.touch_directory(new)
            self._adjust_entries(node)
            for move in moves:
                doomed += self._finish(move, source, old_ids[move.file.ino], made)
            if isinstance(node, File) and inherited:
                doomed += self._inherit(node, inherited, sent=bool(moves))
        return doomed

    def _replace_target(self, target: Node | None, node: Node) -> tuple[str, ...]:
        """Take the target's name away; returns the ids of what the server has of it."""
        if target is None:
            return ()
        ids: tuple[str, ...] = ()
        if isinstance(target, File):
            replaces = target.entry.replaces if target.entry is not None else ()
            ids = tuple(dict.fromkeys((*target.remote_ids, *replaces)))
            self._changes.forget_file(target)
        else:
            self._namespace.orphan(target)
        log.debug("%r replaces an entry", node.name)
        return ids

    def _adjust_entries(self, node: Node) -> None:
        """Unsent files are held or not by the names that they have now."""
        below = node.walk() if isinstance(node, Directory) else ()
        for each in (node, *below):
            if isinstance(each, File) and each.entry is not None:
                held = self._scratch.matches(each.name)
                if held != each.entry.held:
                    self._journal.update(each.entry, held=held)

    def _finish(
        self,
        move: _Move,
        source: ContainerDirectory,
        old_ids: tuple[str, ...],
        made: Collection[tuple[str, str]],
    ) -> list[tuple[str, str]]:
        """Let the file be what was sent.

        Args:
            made: All that was sent: a server may have given an old object's id to a new one.
        """
        file, remote = move.file, move.remote
        assert remote is not None  # noqa: S101 - all were sent
        replaces = file.entry.replaces if move.spool is not None and file.entry is not None else ()
        doomed = [
            (source.remote.id, id)
            for id in dict.fromkeys((*replaces, *old_ids))
            if (source.remote.id, id) not in made
        ]
        if move.spool is not None:
            self._namespace.disown(file)
            file.remote, file.older = None, ()
            if file.entry is not None:
                self._journal.update(file.entry, replaces=())
            self._sending.sent(file, move.container, move.spool, remote)
        else:
            self._finish_clean(move, file, remote)
        for pair in doomed:
            self._metadata.forget(*pair)
            self._journal.delete_later(*pair)
        return doomed

    def _finish_clean(self, move: _Move, file: File, remote: RemoteFile) -> None:
        size = file.size
        if file.remote is not None:
            try:
                self._store.alias(file.remote, remote)
            except FileSystemError as exc:  # it is only a cache
                log.warning("%s", exc)
        self._sending.replace_remote(file, move.container, remote, [])
        file.true_size = size if remote.size is None else None
        if file.entry is not None:  # written to meanwhile: its close sends it again
            self._journal.update(file.entry, replaces=(remote.id,))

    def _inherit(self, file: File, ids: tuple[str, ...], *, sent: bool) -> list[tuple[str, str]]:
        """What the server has of the replaced file goes: now, or once the new one is there."""
        container = self._namespace.container_of(file)
        if not sent and file.entry is not None:
            replaces = tuple(dict.fromkeys((*file.entry.replaces, *ids)))
            self._journal.update(file.entry, replaces=replaces)
            for id in ids:
                self._metadata.forget(container.remote.id, id)
            return []
        kept = set(file.remote_ids)
        doomed = [(container.remote.id, id) for id in ids if id not in kept]
        for pair in doomed:
            self._metadata.forget(*pair)
            self._journal.delete_later(*pair)
        return doomed

    async def _delete(self, pairs: list[tuple[str, str]]) -> None:
        async with trio.open_nursery() as nursery:
            for container_id, file_id in pairs:
                nursery.start_soon(self._uploader.delete, container_id, file_id)

    def _send_in_background(self, node: Node) -> None:
        below = node.walk() if isinstance(node, Directory) else ()
        for each in (node, *below):
            if isinstance(each, File) and each.is_dirty and not each.writers:
                self._sending.send_soon(each)

    # Exchanging.

    async def _exchange(self, one: Node, other: Node) -> None:
        """Swap two names; both are there at any moment."""
        first, second = self._namespace.container_of(one), self._namespace.container_of(other)
        one_path, other_path = one.path, other.path
        plans = (
            (one, second, other_path),
            (other, first, one_path),
        )
        async with AsyncExitStack() as locks:
            moves = [move for plan in plans for move in self._plan(*plan)]
            await self._lock(locks, moves, one, other)
            moves = [move for plan in plans for move in self._plan(*plan)]
            for move in moves:  # a server may overwrite by name: have all content here first
                if move.file.spool is None:
                    move.content = await self._files.whole(move.file)
                    locks.callback(self._store.unpin, move.content)
            await self._send(moves)
            doomed = self._commit_exchange(one, other, moves)
            await self._delete(doomed)
        self._send_in_background(one)
        self._send_in_background(other)

    def _commit_exchange(self, one: Node, other: Node, moves: list[_Move]) -> list[tuple[str, str]]:
        sources = {move.file.ino: self._namespace.container_of(move.file) for move in moves}
        old_ids = {move.file.ino: move.file.remote_ids for move in moves}
        one_parent, one_name = one.parent, one.name
        other_parent, other_name = other.parent, other.name
        assert one_parent is not None and other_parent is not None  # noqa: S101, PT018 - looked up
        doomed: list[tuple[str, str]] = []
        with self._state.transaction():
            self._end(moves)
            aside = f"{one_name}\0"  # no name that a program can give
            self._namespace.move(one, one_parent, aside)
            self._namespace.move(other, one_parent, one_name)
            self._namespace.move(one, other_parent, other_name)
            for node in (one, other):
                self._adjust_entries(node)
            for move in moves:  # a server may have given the id of one to the other
                self._namespace.disown(move.file)
            for move in moves:
                source, ids = sources[move.file.ino], old_ids[move.file.ino]
                doomed += self._finish(move, source, ids, _made(moves))
        return doomed


def _made(moves: list[_Move]) -> set[tuple[str, str]]:
    """The objects under the new names, as (container id, file id)."""
    return {(move.container.remote.id, move.remote.id) for move in moves if move.remote is not None}


def _is_named(remote: RemoteFile, path: str) -> bool:
    """Whether the server's object already has the name that *path* asks for."""
    parts = components(remote.path, id=remote.id)
    wanted = tuple(path.split("/"))
    return wanted in (parts, stripped(remote.path, id=remote.id))
