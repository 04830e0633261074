"""The parts of one mount, built and put together.

Everything is made here and handed down; nothing below knows where it came from.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from containerfs.api.client import Client
from containerfs.cache.state import State
from containerfs.errors import FileSystemError
from containerfs.fs.entries.committing import Commits
from containerfs.fs.entries.copies import Copies
from containerfs.fs.entries.making import Making
from containerfs.fs.entries.removing import Removing
from containerfs.fs.entries.renaming import Renaming
from containerfs.fs.entries.transfer import Transfer
from containerfs.fs.kernel.notifying import Notifier
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.operations import Operations
from containerfs.fs.outgoing.doubts import Doubts
from containerfs.fs.outgoing.moves import Plans
from containerfs.fs.tree.attributes import Owner, now_ns
from containerfs.fs.tree.nodes import Directory
from containerfs.fs.tree.xattrs import Xattrs
from containerfs.options import Options
from containerfs.parts import Held, OpenFiles, Sends, Shown, Storage

log = logging.getLogger(__name__)

STOP_TIMEOUT = 60.0  # seconds that a clean stop waits for unsent files
NAMED = 100  # unsent files that the log names at the end


class Mount:
    """The parts of one mount, put together."""

    def __init__(
        self,
        *,
        client: Client,
        state: State,
        directory: Path,
        options: Options,
        mountpoint: Path,
        nursery: trio.Nursery,
    ) -> None:
        self._waiting = trio.CancelScope()
        storage = self._storage = Storage(
            client=client, state=state, directory=directory, options=options, nursery=nursery
        )
        shown = Shown(
            storage=storage,
            options=options,
            on_change=_notifier(options, mountpoint, nursery),
            nursery=nursery,
        )
        scratch = NamePatterns(options.scratch)
        held = Held(storage=storage, shown=shown, scratch=scratch, options=options)
        sends = Sends(storage=storage, shown=shown, held=held, options=options, nursery=nursery)
        opened = OpenFiles(
            storage=storage,
            shown=shown,
            held=held,
            sends=sends,
            options=options,
            mountpoint=mountpoint,
            nursery=nursery,
        )
        are_fixed = options.containers == "fixed"
        making = Making(
            tree=shown.tree,
            containers=shown.containers,
            metadata=storage.metadata,
            client=client,
            containers_are_fixed=are_fixed,
            container_settings={
                "memory_limit": options.memory_limit,
                "expires_after": options.expires_after,
                "network_policy": options.network_policy,
            },
        )
        removing = Removing(
            tree=shown.tree,
            containers=shown.containers,
            namespace=shown.namespace,
            reading=held.reading,
            spooling=held.spooling,
            keeping=sends.keeping,
            lost_answers=sends.lost_answers,
            metadata=storage.metadata,
            store=storage.store,
            uploader=storage.uploader,
            client=client,
            containers_are_fixed=are_fixed,
        )
        renaming = _renaming(
            storage=storage,
            shown=shown,
            held=held,
            sends=sends,
            removing=removing,
            scratch=scratch,
            limit=options.rename_limit,
        )
        self._overwritten = sends.overwritten
        self._settling, self._uncertain = sends.settling, sends.uncertain
        self._doubts = Doubts(
            journal=storage.journal,
            metadata=storage.metadata,
            state=state,
            spools=storage.spools,
            uploader=storage.uploader,
            arrivals=sends.arrivals,
        )
        self._backups = held.backups
        self.tree, self.namespace = shown.tree, shown.namespace
        self.uploader, self.store, self.spools = storage.uploader, storage.store, storage.spools
        self.sending, self.recovery = sends.sending, sends.recovery
        self.outstanding = sends.outstanding
        self.operations = Operations(
            tree=shown.tree,
            namespace=shown.namespace,
            opening=opened.opening,
            reading=held.reading,
            writing=opened.writing,
            closing=opened.closing,
            making=making,
            removing=removing,
            renaming=renaming,
            sending=sends.sending,
            outstanding=sends.outstanding,
            uncertain=sends.uncertain,
            xattrs=Xattrs(tree=shown.tree),
            owner=Owner(uid=options.uid, gid=options.gid, umask=options.umask, born=now_ns()),
            op_timeout=options.op_timeout,
        )

    async def check(self) -> None:
        """Ask the server for its containers once, so that a mount that can't work is refused.

        A server that can't be reached is no reason, as long as an earlier listing is here. What
        an earlier mount was in the middle of is ended.
        """
        await self.namespace.refresh(self.tree.root)
        await self._overwritten.restore()
        await self._settling.settle()
        if self._storage.journal.doubtful:  # what arrived of a rename is not what arrived of these
            await self._uncertain.try_to_settle()
        self._uncertain.look()
        await self._doubts.resolve()

    def unsent(self) -> tuple[int, int]:
        """How many files should be on the server and are not, and their bytes."""
        entries = [entry for entry in self._storage.journal.entries if not entry.held]
        spools = (self._storage.spools.open(entry.spool) for entry in entries)
        return len(entries), sum(spool.size for spool in spools if spool is not None)

    def hurry(self) -> None:
        """Let a stop wait no longer."""
        self._waiting.cancel()

    async def stop(self, *, patience: float = STOP_TIMEOUT) -> None:
        """Send what is unsent, for so many seconds, and keep the rest and the caches in order."""
        with self._waiting:
            self._waiting.deadline = trio.current_time() + patience
            try:
                if self._storage.journal.entries:  # a mount that has just begun may not show them
                    await self.recovery.show_unsent()
                await self.sending.send_below(self.tree.root)
            except FileSystemError as exc:
                log.warning("not everything could be sent: %s", exc)
            await self._backups.retire()
            await self._uncertain.try_to_settle()
            await self.outstanding.delete()
        self._tell_what_is_kept()
        self._storage.metadata.save()
        self._storage.store.save()
        self.spools.close()

    def _tell_what_is_kept(self) -> None:
        expired = {id for id, each in self.tree.containers.items() if each.is_snapshot}
        kept = [entry for entry in self._storage.journal.entries if not entry.held]
        for is_lost, what in (
            (False, "and sent by the next mount"),
            (True, "for `containerfs recover`: the container has expired"),
        ):
            paths = [each.path for each in kept if (each.container_id in expired) is is_lost]
            if paths:
                log.warning("%s is kept here %s", _named(paths), what)


def _named(paths: list[str]) -> str:
    """Some paths, in one entry of the log: one for each would be cut short by its limit."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    each_of = "each of " if len(paths) > 1 else ""
    return each_of + ", ".join(map(repr, paths[:NAMED])) + more


def _renaming(
    *,
    storage: Storage,
    shown: Shown,
    held: Held,
    sends: Sends,
    removing: Removing,
    scratch: NamePatterns,
    limit: int,
) -> Renaming:
    """What serves rename(2); *limit* is that of `Plans`."""
    transfer = Transfer(
        tree=shown.tree,
        reading=held.reading,
        spooling=held.spooling,
        sending=sends.sending,
        delivery=sends.delivery,
        uncertain=sends.uncertain,
        metadata=storage.metadata,
        state=storage.state,
        store=storage.store,
        intents=storage.intents,
        journal=storage.journal,
        uploader=storage.uploader,
        keeping=sends.keeping,
    )
    commits = Commits(
        tree=shown.tree,
        objects=shown.objects,
        removing=removing,
        sending=sends.sending,
        transfer=transfer,
        metadata=storage.metadata,
        state=storage.state,
        journal=storage.journal,
        scratch=scratch,
    )
    return Renaming(
        tree=shown.tree,
        namespace=shown.namespace,
        reading=held.reading,
        removing=removing,
        lost_answers=sends.lost_answers,
        sending=sends.sending,
        plans=Plans(scratch=scratch, limit=limit, sends_at_once=not sends.write_back.is_on),
        transfer=transfer,
        commits=commits,
        copies=Copies(spooling=held.spooling, keeping=sends.keeping, intents=storage.intents),
        store=storage.store,
        journal=storage.journal,
    )


def _notifier(
    options: Options, mountpoint: Path, nursery: trio.Nursery
) -> Callable[[Iterable[Directory]], None]:
    if options.notify == "utime":
        return Notifier(mountpoint=mountpoint, nursery=nursery).changed
    return lambda _: None
