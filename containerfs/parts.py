"""The parts of a mount in groups, each built on those before it."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import trio

from containerfs.api.client import Client
from containerfs.cache.boot import Boot
from containerfs.cache.content import ContentStore
from containerfs.cache.downloads import Downloads
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.errors import NoSpace
from containerfs.fs.files.backups import Backups
from containerfs.fs.files.closing import Closing
from containerfs.fs.files.opening import Opening
from containerfs.fs.files.prefetch import Prefetch
from containerfs.fs.files.reading import Reading
from containerfs.fs.files.spooling import Spooling
from containerfs.fs.files.writing import Writing
from containerfs.fs.kernel.handles import FileHandle, Handles
from containerfs.fs.listings.alignment import Alignment
from containerfs.fs.listings.namespace import Namespace
from containerfs.fs.listings.recovery import Recovery
from containerfs.fs.listings.renewal import Renewal
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.outgoing.arrivals import Arrivals
from containerfs.fs.outgoing.batches import Batches
from containerfs.fs.outgoing.conflicts import Conflicts
from containerfs.fs.outgoing.delivery import Delivery
from containerfs.fs.outgoing.departures import Departures
from containerfs.fs.outgoing.flattening import Flattening
from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.lostanswers import LostAnswers
from containerfs.fs.outgoing.overwritten import Overwritten
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.outgoing.settling import Settling
from containerfs.fs.outgoing.uncertain import UncertainRenames
from containerfs.fs.outgoing.underway import UnderWay
from containerfs.fs.outgoing.writeback import WriteBack
from containerfs.fs.patience import Patience
from containerfs.fs.tree.containers import Containers
from containerfs.fs.tree.early import FirstListings
from containerfs.fs.tree.inodes import Inodes
from containerfs.fs.tree.nodes import Directory
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.places import Places
from containerfs.fs.tree.reconciling import Reconciliation
from containerfs.fs.tree.tree import Tree
from containerfs.options import Options
from containerfs.upload.intents import Intents
from containerfs.upload.journal import Journal
from containerfs.upload.outstanding import Outstanding
from containerfs.upload.spools import SpoolDirectory
from containerfs.upload.uploader import Uploader


class Storage:
    """What is kept on this machine, and the ways to the server."""

    def __init__(
        self,
        *,
        client: Client,
        state: State,
        directory: Path,
        options: Options,
        nursery: trio.Nursery,
    ) -> None:
        self.client = client
        self.state = state
        connection = state.connection
        self.journal = Journal(connection, on_rollback=self.state.on_rollback)
        self.intents = Intents(connection, on_rollback=self.state.on_rollback)
        self.spools = SpoolDirectory(
            directory / "spool", sync=state.sync, check_room=state.ballast.hold
        )
        boot = Boot(state)
        if boot.is_new:
            state.ballast.let_go()  # for what is restored
            for name, content in self.journal.kept:
                self.spools.restore(name, content)
            with state.transaction():
                self.journal.doubt(is_there=lambda name: self.spools.open(name) is not None)
        entries = [*self.journal.entries, *self.journal.doubtful]
        self.spools.remove_others({*self.intents.copies, *(entry.spool for entry in entries)})
        self.store = ContentStore(
            directory=directory / "content",
            connection=connection,
            limit=options.cache_size,
            after_power_cut=boot.is_new,
            check_room=state.ballast.hold,
        )
        boot.remember()
        with suppress(NoSpace):  # the first to write content is told
            state.ballast.hold()
        self.metadata = Metadata(
            client=self.client, state=self.state, ttl=options.ttl, nursery=nursery
        )
        self.downloads = Downloads(
            client=self.client,
            store=self.store,
            nursery=nursery,
            max_size=_largest(options),
            op_timeout=options.op_timeout,
        )
        self.uploader = Uploader(client=self.client, journal=self.journal, nursery=nursery)


class Shown:
    """The tree, and what keeps it in line with the server."""

    def __init__(
        self,
        *,
        storage: Storage,
        options: Options,
        on_change: Callable[[Iterable[Directory]], None],
        nursery: trio.Nursery,
    ) -> None:
        self.tree = Tree(state=storage.state, journal=storage.journal, inodes=Inodes())
        self.places = Places(tree=self.tree)
        self.objects = Objects(tree=self.tree, places=self.places, metadata=storage.metadata)
        self.reconciliation = Reconciliation(
            tree=self.tree,
            places=self.places,
            objects=self.objects,
            state=storage.state,
            journal=storage.journal,
            spools=storage.spools,
            raw_names=options.raw_names,
            on_change=on_change,
        )
        self.containers = Containers(
            tree=self.tree,
            reconciliation=self.reconciliation,
            metadata=storage.metadata,
            state=storage.state,
            journal=storage.journal,
            show_expired=options.show_expired,
        )
        self.conflicts = Conflicts(
            tree=self.tree,
            reconciliation=self.reconciliation,
            metadata=storage.metadata,
            journal=storage.journal,
            intents=storage.intents,
            uploader=storage.uploader,
            nursery=nursery,
        )
        self.namespace = Namespace(
            tree=self.tree,
            containers=self.containers,
            alignment=Alignment(
                reconciliation=self.reconciliation,
                conflicts=self.conflicts,
                metadata=storage.metadata,
                intents=storage.intents,
            ),
            first_listings=FirstListings(
                reconciliation=self.reconciliation,
                places=self.places,
                objects=self.objects,
                metadata=storage.metadata,
                state=storage.state,
                journal=storage.journal,
                intents=storage.intents,
                raw_names=options.raw_names,
            ),
            metadata=storage.metadata,
        )


class Held:
    """What gets the content of files, and keeps it here."""

    def __init__(
        self, *, storage: Storage, shown: Shown, scratch: NamePatterns, options: Options
    ) -> None:
        self.handles: Handles[FileHandle] = Handles()
        self.patience = Patience(options.op_timeout)
        storage.client.on_pause(self.patience.put_off)
        self.reading = Reading(
            handles=self.handles,
            renewal=Renewal(tree=shown.tree, namespace=shown.namespace, metadata=storage.metadata),
            store=storage.store,
            downloads=storage.downloads,
            patience=self.patience,
        )
        self.flattening = Flattening()
        self.spooling = Spooling(
            tree=shown.tree,
            objects=shown.objects,
            reading=self.reading,
            state=storage.state,
            store=storage.store,
            journal=storage.journal,
            spools=storage.spools,
            scratch=scratch,
            flattening=self.flattening,
        )
        self.backups = Backups(
            tree=shown.tree, spooling=self.spooling, uploader=storage.uploader, scratch=scratch
        )


class Sends:
    """What gets changed files to the server."""

    def __init__(
        self,
        *,
        storage: Storage,
        shown: Shown,
        held: Held,
        options: Options,
        nursery: trio.Nursery,
    ) -> None:
        self.delivery = Delivery(
            containers=shown.containers,
            metadata=storage.metadata,
            state=storage.state,
            uploader=storage.uploader,
            make_way=held.backups.make_way,
            patience=held.patience,
            flattening=held.flattening,
        )
        self.arrivals = Arrivals(metadata=storage.metadata, state=storage.state)
        self.settling = Settling(
            intents=storage.intents,
            journal=storage.journal,
            metadata=storage.metadata,
            state=storage.state,
            store=storage.store,
            spools=storage.spools,
            uploader=storage.uploader,
            arrivals=self.arrivals,
        )
        self.overwritten = Overwritten(
            intents=storage.intents,
            journal=storage.journal,
            state=storage.state,
            spools=storage.spools,
            uploader=storage.uploader,
            arrivals=self.arrivals,
        )
        under_way = UnderWay()
        self.uncertain = UncertainRenames(
            settling=self.settling,
            under_way=under_way,
            intents=storage.intents,
            journal=storage.journal,
            metadata=storage.metadata,
            delivery=self.delivery,
            uploader=storage.uploader,
            nursery=nursery,
        )
        self.lost_answers = LostAnswers(
            delivery=self.delivery,
            conflicts=shown.conflicts,
            metadata=storage.metadata,
            journal=storage.journal,
            uploader=storage.uploader,
            uncertain=self.uncertain,
            under_way=under_way,
        )
        self.lost_answers.recall()
        self.outstanding = Outstanding(
            journal=storage.journal,
            uploader=storage.uploader,
            on_missing=shown.conflicts.missing,
            limit=options.op_timeout,
        )
        self.keeping = Keeping(journal=storage.journal, state=storage.state)
        self.sending = Sending(
            tree=shown.tree,
            objects=shown.objects,
            metadata=storage.metadata,
            state=storage.state,
            store=storage.store,
            journal=storage.journal,
            uploader=storage.uploader,
            departures=Departures(nursery=nursery, connections=options.max_connections),
            delivery=self.delivery,
            uncertain=self.uncertain,
            conflicts=shown.conflicts,
            keeping=self.keeping,
            batches=Batches(state=storage.state),
            empty_delay=options.empty_delay,
        )
        self.recovery = Recovery(
            tree=shown.tree,
            namespace=shown.namespace,
            journal=storage.journal,
            sending=self.sending,
            nursery=nursery,
        )
        self.write_back = WriteBack(
            sending=self.sending, keeping=self.keeping, delay=options.write_back
        )


class OpenFiles:
    """What serves open files."""

    def __init__(
        self,
        *,
        storage: Storage,
        shown: Shown,
        held: Held,
        sends: Sends,
        options: Options,
        mountpoint: Path,
        nursery: trio.Nursery,
    ) -> None:
        handles, spooling = held.handles, held.spooling
        self.writing = Writing(
            handles=handles,
            tree=shown.tree,
            reading=held.reading,
            spooling=spooling,
            sending=sends.sending,
            max_file_size=options.max_file_size,
        )
        self.closing = Closing(
            handles=handles,
            tree=shown.tree,
            spooling=spooling,
            sending=sends.sending,
            store=storage.store,
            downloads=storage.downloads,
            write_back=sends.write_back,
            outstanding=sends.outstanding,
            keeping=sends.keeping,
            transient=NamePatterns(options.transient),
            transient_delay=options.empty_delay,
            mountpoint=mountpoint,
        )
        self.opening = Opening(
            handles=handles,
            tree=shown.tree,
            places=shown.places,
            namespace=shown.namespace,
            reading=held.reading,
            writing=self.writing,
            closing=self.closing,
            spooling=spooling,
            prefetch=Prefetch(
                downloads=storage.downloads,
                store=storage.store,
                nursery=nursery,
                largest=options.prefetch_small,
                cache_size=options.cache_size,
            ),
        )


def _largest(options: Options) -> int:
    """The longest body that is taken where no length was declared."""
    return max(options.max_file_size, options.cache_size)
