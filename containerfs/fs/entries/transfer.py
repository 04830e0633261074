"""The server's side of a rename: all new objects are made, or none stays."""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial

import trio

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Content
from containerfs.cache.content import ContentStore
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import Expired, FileSystemError
from containerfs.fs.files.reading import Reading
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.outgoing.delivery import Delivery
from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.moves import Move, are_named_alike, is_named, may_be_named
from containerfs.fs.outgoing.sending import Sending, may_have_arrived
from containerfs.fs.outgoing.uncertain import UncertainRenames
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.fs.tree.tree import Tree
from containerfs.upload.fingerprint import fingerprint
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import Journal
from containerfs.upload.spool import Spool
from containerfs.upload.uploader import Uploader

log = logging.getLogger(__name__)

PARALLEL = 16  # files of a directory on their way at once
ROUNDS = 10  # in which a directory that is being written to is locked, with what came meanwhile


class Transfer:
    """Sends files under their new names, and deletes their old objects."""

    def __init__(
        self,
        *,
        tree: Tree,
        reading: Reading,
        spooling: Spooling,
        sending: Sending,
        delivery: Delivery,
        uncertain: UncertainRenames,
        metadata: Metadata,
        state: State,
        store: ContentStore,
        intents: Intents,
        journal: Journal,
        uploader: Uploader,
        keeping: Keeping,
    ) -> None:
        self._tree = tree
        self._reading = reading
        self._spooling = spooling
        self._sending = sending
        self._delivery = delivery
        self._uncertain = uncertain
        self._metadata = metadata
        self._state = state
        self._store = store
        self._intents = intents
        self._journal = journal
        self._uploader = uploader
        self._keeping = keeping

    async def lock(
        self,
        locks: AsyncExitStack,
        plan: Callable[[], list[Move]],
        node: Node,
        target: Node | None,
    ) -> list[File]:
        """Wait until nothing else changes what the server has of these; plan anew after it.

        Returns:
            The files whose `changing` is held now.
        """
        held: dict[int, File] = {}
        for _ in range(ROUNDS):
            files = {move.file.ino: move.file for move in plan()}
            for above in (node, target):
                below = above.walk() if isinstance(above, Directory) else ()
                for each in (above, *below):
                    if isinstance(each, File) and (each.spool is not None or each is above):
                        files[each.ino] = each  # it may be on its way under its old name
            if files.keys() <= held.keys():
                break
            await locks.aclose()  # all in one order, or two renames could wait for each other
            for _, file in sorted(files.items()):
                await locks.enter_async_context(file.changing)
            held = files
        return list(held.values())

    def keep(self, moves: list[Move]) -> None:
        """Have the files stay in their places until `thaw`: that they are deleted there, or were
        overwritten by what is sent, may be listed before the rename is over.
        """
        for move in moves:
            move.kept = move.file.versions
            for each in move.kept:
                self._metadata.keep(each)

    async def keep_backup(self, file: File, path: str) -> None:
        """Have the content here of a file that gets the name *path*, and the server has under
        another one, that what is sent now may have.

        Raises:
            FileSystemError: It can't be had; the names are as they were.
        """
        if file.remote is not None and not is_named(file.remote, path):
            await self._spooling.make_dirty(file)

    async def send(self, moves: list[Move]) -> None:
        """Have the server hold every file under its new name too, or, after an error, none."""
        errors: list[FileSystemError] = []
        slots = trio.CapacityLimiter(PARALLEL)
        await self._begin(moves)

        async def send(move: Move) -> None:
            async with slots:
                if errors:
                    return
                try:
                    await self._send_one(move)
                except FileSystemError as exc:
                    errors.append(exc)

        async with trio.open_nursery() as nursery:
            for move in moves:
                nursery.start_soon(send, move)
        if errors:
            await self.take_back(moves)
            raise errors[0]

    async def _begin(self, moves: list[Move]) -> None:
        """Record what is about to be done, so that the next mount can undo or finish it."""
        if not moves:
            return
        with self._state.transaction():
            for move in moves:
                file, source, target = move.file, move.file.container, move.container
                if source is None:
                    continue
                sent = file if move.content is None else move.content
                entry = file.entry if sent is file else None  # else that is newer
                at_path = self._tree.find(target, move.path)
                replaced = at_path if isinstance(at_path, File) else None
                listed = target.listing.entries if target.listing is not None else ()
                move.intent = self._intents.begin(
                    Rename(
                        container_id=target.remote.id,
                        path=move.path,
                        size=sent.size or 0,
                        known=tuple(each.id for each in may_be_named(listed, move.path)),
                        replaces=replaced.remote_ids if replaced is not None else (),
                        source_id=source.remote.id,
                        source_path=file.path,
                        source_objects=file.remote_ids,
                        entry_id=entry.id if entry is not None else None,
                        copy=move.copy.path.name if move.copy is not None else "",
                    )
                )
        try:
            await self._state.sync()
        except FileSystemError:
            self.end(moves)
            raise

    def thaw(self, moves: list[Move]) -> None:
        """What came of the moves is recorded: what was sent for them may be written to again, and
        what was kept may go."""
        for move in moves:
            for each in move.kept:
                self._metadata.let_go(each)
            if move.remote is not None:
                self._delivery.let_go(move.remote)
            if move.spool is not None:
                move.spool.thaw()

    def end(self, moves: list[Move]) -> None:
        """Forget the records of what was to be done: it is, or was taken back."""
        for move in moves:
            if move.intent is not None:
                self._intents.end(move.intent)

    async def _send_one(self, move: Move) -> None:
        file = move.file
        if file.spool is not None and move.content is None:
            await self._send_unsent(move, file.spool)
            return
        with ExitStack() as pins:
            content = move.content
            if content is None:
                content = await self.read(move)
                pins.callback(self._store.unpin, content)
            fd, size = content.fd, content.size or 0
            async with self._uncertain.sending(move.container.remote.id, move.path):
                try:
                    move.remote = await self._delivery.put(
                        move.container,
                        path=move.path,
                        fd=fd,
                        size=size,
                        own=(*file.remote_ids, *move.over),
                    )
                    self._delivery.claim(move.remote)
                except FileSystemError as exc:
                    if may_have_arrived(exc):
                        move.lost = (await fingerprint(fd, size),)
                    raise

    async def read(self, move: Move) -> Content:
        """The content to send, pinned for the caller; downloaded if need be."""
        move.begin_reading()
        return await self._reading.whole(move.file)

    async def _send_unsent(self, move: Move, spool: Spool) -> None:
        entry, container, path = move.file.entry, move.container, move.path
        try:
            move.remote = await self._sending.upload(
                move.file, container=container, path=path, over=move.over
            )
        except FileSystemError:
            if entry is not None:  # what is known of its rename is known without it
                lost = [each for each in entry.lost if each[:2] == (container.remote.id, path)]
                self._journal.found(entry, lost)
                move.lost = tuple(content for *_, content in lost)
            raise
        move.spool = spool
        self._delivery.claim(move.remote)

    async def take_back(self, moves: list[Move]) -> None:
        """Have the server be without the new objects again, and with what they may have replaced.

        What may have arrived, and nobody knows, is left to be looked for.
        """
        exchanged = {move.file.ino for move in moves}
        for move in moves:
            if move.intent is not None and move.lost:
                self._uncertain.add(move.intent, move.lost)
        pairs = {}
        for move in moves:
            victim = self._tree.find(move.container, move.path)
            if move.lost and isinstance(victim, File) and victim.ino in exchanged:
                await self._keep(victim)  # it may be overwritten, and nobody has asked for that
            if move.remote is None or move.remote.id in move.file.remote_ids:
                continue
            if await self._has_overwritten_itself(move, move.remote):
                self.adopt(move, move.remote)
                continue
            if isinstance(victim, File) and await self._is_overwritten(victim, move):
                await self._keep(victim)
                if move.remote.id in victim.remote_ids:
                    continue
            pair = move.container.remote.id, move.remote.id
            pairs[pair] = move.path
            self._metadata.forget(*pair, is_new=True)
        await self.delete(pairs)
        self.end([move for move in moves if not move.lost])
        await self._state.sync()  # else the next mount takes back what comes to this name later

    async def _has_overwritten_itself(self, move: Move, remote: RemoteFile) -> bool:
        """Whether the server gave the name of the file's own object to what was sent, or does not
        tell: where directories are dropped, the old and the new name may be one.
        """
        ids = [each.id for each in move.source if are_named_alike(each, remote)]
        try:
            return await self._uploader.are_gone(remote.container_id, ids)
        except FileSystemError:
            return True

    def adopt(self, move: Move, remote: RemoteFile) -> None:
        """Let a file that had nothing unsent be *remote*, which was sent of it."""
        file, (source, *_) = move.file, move.source
        size = file.size if file.remote is source else source.size
        try:
            self._store.alias(source, remote)
        except FileSystemError as exc:  # it is only a cache
            log.warning("%s", exc)
        if file.parent is None:  # others took it away: who has it open reads on
            file.remote, file.older = remote, ()
            return
        self._sending.replace_remote(file, move.container, remote, [])
        file.true_size = size if remote.size is None else None
        if file.entry is not None:  # written to meanwhile: its close sends it again
            self._journal.update(file.entry, replaces=(remote.id,))

    async def _keep(self, victim: File) -> None:
        """Have the server get the content of *victim* again."""
        try:
            await self._spooling.make_dirty(victim)
        except FileSystemError as exc:
            log.warning("the content of %r is not here: %s", victim.path, exc)
        else:
            await self._keeping.try_to_keep(victim)
            self._sending.send_soon(victim)

    async def _is_overwritten(self, victim: Node | None, move: Move) -> bool:
        """Whether the server gave the name of *victim* to what was sent, or does not tell."""
        if not isinstance(victim, File) or victim.remote is None or move.remote is None:
            return False
        if move.remote.id in victim.remote_ids:
            return True
        try:
            return await self._uploader.find(move.container.remote.id, victim.remote.id) is None
        except FileSystemError:
            return True

    async def _is_there(self, container: ContainerDirectory, id: str) -> bool:
        """Whether the server has this object for certain."""
        try:
            return await self._uploader.find(container.remote.id, id) is not None
        except FileSystemError:
            return False

    async def delete_source(self, moves: list[Move], target: Node | None) -> set[tuple[str, str]]:
        """Delete a single file's old object while the rename can still be taken back.

        It can't where the server has overwritten the target, or may still be at the deletion, or
        does not tell that the old object is still there, as one may be gone whose deletion failed:
        then that goes later. So it does where the target has unsent content: were the process to
        end here, that would be sent over the only object that is left.

        Returns:
            What is gone, as (container id, file id).
        """
        if len(moves) != 1 or moves[0].spool is not None:
            return set()
        if isinstance(target, File) and target.entry is not None:
            return set()
        file, remote = moves[0].file, moves[0].remote
        container = file.container
        gone: set[tuple[str, str]] = set()
        if container is None or remote is None or file.remote is None:
            return gone
        for id in moves[0].replaced:
            if id == remote.id:
                continue
            try:
                await self._uploader.remove(container.remote.id, id)
            except FileSystemError as exc:
                if gone or exc.retriable:
                    break
                if not isinstance(exc, Expired) and not await self._is_there(container, id):
                    break
                if await self._is_overwritten(target, moves[0]):
                    break
                await self.take_back(moves)
                raise
            gone.add((container.remote.id, id))
        return gone

    async def delete(
        self, pairs: Mapping[tuple[str, str], str], *, patience: float = math.inf
    ) -> None:
        """Delete objects, side by side.

        Args:
            pairs: They, as (container id, file id), with their visible paths below the container.
            patience: As for `Uploader.delete`.
        """
        await self._keeping.settle()
        async with trio.open_nursery() as nursery:
            for pair, path in pairs.items():
                delete = partial(self._uploader.delete, *pair, path=path, patience=patience)
                nursery.start_soon(delete)
