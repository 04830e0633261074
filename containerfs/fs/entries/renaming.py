"""Renaming, on a service that has no rename: upload under the new name, then delete the old.

The mount's tree changes in one step, after the server has all the new objects and before anything
else can look. A failure up to then leaves the old names as they were, here and there.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from containerfs.cache.content import ContentStore
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
)
from containerfs.fs.entries.committing import Commits
from containerfs.fs.entries.copies import Copies
from containerfs.fs.entries.removing import Removing
from containerfs.fs.entries.transfer import Transfer
from containerfs.fs.files.reading import Reading
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.outgoing.lostanswers import LostAnswers
from containerfs.fs.outgoing.moves import Move, Plans
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.tree.nodes import Directory, File, Node
from containerfs.fs.tree.permissions import check_can_change
from containerfs.fs.tree.tree import Tree
from containerfs.upload.journal import Journal
from containerfs.upload.uploader import PUT_OFF_AFTER

NOREPLACE = 1  # linux/fs.h RENAME_NOREPLACE, RENAME_EXCHANGE
EXCHANGE = 2


class Renaming:
    """rename(2), in all its variants."""

    def __init__(
        self,
        *,
        tree: Tree,
        namespace: Namespace,
        reading: Reading,
        removing: Removing,
        lost_answers: LostAnswers,
        sending: Sending,
        plans: Plans,
        transfer: Transfer,
        commits: Commits,
        copies: Copies,
        store: ContentStore,
        journal: Journal,
    ) -> None:
        self._tree = tree
        self._namespace = namespace
        self._reading = reading
        self._removing = removing
        self._lost_answers = lost_answers
        self._sending = sending
        self._plans = plans
        self._transfer = transfer
        self._commits = commits
        self._copies = copies
        self._store = store
        self._journal = journal

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
            if isinstance(node, Directory) and new is self._tree.root:
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

    async def _move(self, node: Node, new: Directory, new_name: str, target: Node | None) -> None:
        container, path = self._tree.container_of(new), new.path_of(new_name)
        parent = node.parent
        plan = partial(self._plans.plan, node, container, path)

        def check_unchanged() -> None:
            if node.parent is not parent or new.path_of(new_name) != path:
                raise Stale(f"{new_name!r} changed meanwhile")  # the kernel looks again

        async with AsyncExitStack() as locks:
            held = await self._transfer.lock(locks, plan, node, target)
            await self._lost_answers.settle(held)
            check_unchanged()
            if new.children.get(new_name) is not target:
                raise Stale(f"{new_name!r} is another one by now")
            moves = plan()
            if isinstance(target, File) and target.opens and target.spool is None:
                await self._removing.keep_content(target)
            locks.callback(self._transfer.thaw, moves)
            self._transfer.keep(moves)
            for move in moves:
                move.over = target.own_ids if isinstance(target, File) else ()
            await self._send(moves, check_unchanged)
            gone = await self._transfer.delete_source(moves, target)
            self._commits.leave(self._plans.late(node, container, path, moves))
            doomed = self._commits.commit(node, new, new_name, target, moves)
            for pair in gone:
                self._journal.deleted(*pair)
            left = {pair: path for pair, path in doomed.items() if pair not in gone}
            await self._transfer.delete(left, patience=PUT_OFF_AFTER)
        self._send_in_background(node)

    async def _send(self, moves: list[Move], check_unchanged: Callable[[], None]) -> None:
        """Have the server hold all under their new names, which others may make wrong ones."""
        await self._transfer.send(moves)
        try:
            check_unchanged()
        except Stale:
            await self._transfer.take_back(moves)
            raise

    async def _exchange(self, one: Node, other: Node) -> None:
        """Swap two names; both are there at any moment."""
        first, second = self._tree.container_of(one), self._tree.container_of(other)
        one_path, other_path = one.path, other.path
        plans = (
            (one, second, other_path),
            (other, first, one_path),
        )
        parents = one.parent, other.parent
        moves: list[Move] = []
        places: list[tuple[File, Directory, str]] = []

        def plan() -> list[Move]:
            return [move for each in plans for move in self._plans.plan(*each)]

        def check_unchanged() -> None:
            for place in places:
                self._commits.put_back(*place, moves)
            are_there = (one.parent, other.parent) == parents
            if not are_there or (one.path, other.path) != (one_path, other_path):
                raise Stale(f"{one_path!r} or {other_path!r} changed meanwhile")

        async with AsyncExitStack() as locks:
            held = await self._transfer.lock(locks, plan, one, other)
            await self._lost_answers.settle(held)
            check_unchanged()
            moves = plan()
            locks.callback(self._copies.discard, moves)
            places = [
                (move.file, move.file.parent, move.file.name)
                for move in moves
                if move.file.parent is not None
            ]
            for node, _, path in plans:
                if isinstance(node, File) and all(move.file is not node for move in moves):
                    await self._transfer.keep_backup(node, path)
            exchanged = {move.file.ino for move in moves}
            for move in moves:  # a server may overwrite by name: have all content here first
                victim = self._tree.find(move.container, move.path)
                if isinstance(victim, File) and victim.ino in exchanged:
                    move.over = victim.remote_ids
                if move.file.spool is None:
                    move.content = await self._transfer.read(move)
                    locks.callback(self._store.unpin, move.content)
            await self._copies.make(moves, (one, other))
            locks.callback(self._transfer.thaw, moves)
            try:
                await self._send(moves, check_unchanged)
            except FileSystemError:
                for node in (one, other):
                    self._send_in_background(node)  # a backup may be here only
                raise
            for each in plans:
                self._commits.leave(self._plans.late(*each, moves))
            doomed = self._commits.commit_exchange(one, other, moves)
            await self._transfer.delete(doomed, patience=PUT_OFF_AFTER)
        self._send_in_background(one)
        self._send_in_background(other)

    def _send_in_background(self, node: Node) -> None:
        below = node.walk() if isinstance(node, Directory) else ()
        for each in (node, *below):
            if isinstance(each, File) and each.is_dirty and not each.writers:
                self._sending.send_soon(each)
