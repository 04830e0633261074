"""What the server last said of containers and their files, corrected by our own changes.

The one to ask for a listing, and the one to tell what was created or deleted here, so that it is
shown or hidden from then on, whatever the server still lists.
"""

import logging
import time
from collections.abc import Collection

import trio

from containerfs.api.client import Client
from containerfs.api.listing import all_containers
from containerfs.api.refresh import files_again, new_files
from containerfs.api.types import Container, RemoteFile
from containerfs.cache.listing import Arrival, Listing
from containerfs.cache.listings import Listings, Tell, not_remembered
from containerfs.cache.overlay import MISSING_LIFE, EntryT
from containerfs.cache.state import State
from containerfs.errors import FileSystemError, NotFound

log = logging.getLogger(__name__)

MOST_ASKED = 16  # of what was made here and is not listed: how many are asked for at each listing

# Seconds for which it is recorded what was made here, for when the server can't be asked. What a
# container had that is gone is never listed again, and would be recorded for ever.
CREATION_LIFE = 86_400.0

ROOT = ""  # the key of the list of containers


class Metadata:
    """The account's containers and their files, as far as they were asked for."""

    def __init__(
        self,
        *,
        client: Client,
        state: State,
        ttl: float,
        nursery: trio.Nursery,
        capacity: int = 512,
    ) -> None:
        """Args:
        ttl: Seconds for which a listing is believed, counted from when it was asked for.
        nursery: Where fetches run: they outlive the task that asked first.
        capacity: How many containers' listings are kept fresh at once.
        """
        self._client = client
        self._state = state
        self._nursery = nursery
        self._containers: Listings[Container] = Listings(
            fetch=self._fetch_containers,
            recall=lambda _: state.containers_listing(),
            state=state,
            ttl=ttl,
            capacity=1,
        )
        self._files: Listings[RemoteFile] = Listings(
            fetch=self._fetch_files,
            fetch_new=self._fetch_new_files,
            recall=state.files_listing,
            state=state,
            ttl=ttl,
            capacity=capacity,
        )
        now = trio.current_time()

        def since(at: float) -> float:
            return now - max(0.0, time.time() - at)

        with not_remembered(state):
            state.forget_creations_before(time.time() - CREATION_LIFE)
        for container_id, id in state.tombstones():
            source = self._containers if container_id == ROOT else self._files
            overlay = source.overlay(container_id)
            overlay.deleted[id] = now
            overlay.unlisted.add(id)  # as far as is known
        for file, at in state.created_files():
            self._files.overlay(file.container_id).created[file.id] = (file, since(at))
        for container, at in state.created_containers():
            self._containers.overlay(ROOT).created[container.id] = (container, since(at))

    async def _fetch_containers(
        self, _: str, last: tuple[Container, ...], tell: Tell[Container]
    ) -> tuple[Container, ...]:
        return await all_containers(self._client)

    async def _fetch_files(
        self, container_id: str, last: tuple[RemoteFile, ...], tell: Tell[RemoteFile]
    ) -> tuple[RemoteFile, ...]:
        begun = trio.current_time()
        listed = await files_again(self._client, container_id, last, tell=tell)
        await self._confirm_unlisted(container_id, listed, begun=begun)
        return listed

    async def _fetch_new_files(
        self, container_id: str, last: tuple[RemoteFile, ...]
    ) -> tuple[RemoteFile, ...] | None:
        own = self._files.overlay(container_id).created
        return await new_files(self._client, container_id, last, own=own)

    async def _confirm_unlisted(
        self, container_id: str, listed: tuple[RemoteFile, ...], *, begun: float
    ) -> None:
        """Ask for what was made here and is not listed: the list lags, or somebody deleted it."""
        overlay = self._files.overlay(container_id)
        created = overlay.created
        if not created:
            return
        ids = {file.id for file in listed}
        unlisted = [id for id, (_, since) in created.items() if since < begun and id not in ids]
        for id in unlisted[:MOST_ASKED]:
            try:
                if not await self._is_there(container_id, id):
                    overlay.unlisted.add(id)  # a list may come to show it yet, whoever deleted it
                    self._forget_creation(self._files, container_id, id)
            except FileSystemError as exc:
                log.info("whether file %s is there is not known: %s", id, exc)
                return

    async def _is_there(self, container_id: str, id: str) -> bool:
        """Whether the server has a file: some describe none, and have its content even so."""
        try:
            await self._client.retrieve_file(container_id, id)
        except NotFound:
            try:
                async with self._client.download_file(container_id, id, length=1):
                    pass
            except NotFound:
                return False
        return True

    async def containers(self, *, fresh: bool = False) -> Listing[Container]:
        """All containers, expired ones too.

        Args:
            fresh: Ask the server whatever is believed, and fail rather than serve a stale listing.
        """
        return await self._containers.get(ROOT, nursery=self._nursery, fresh=fresh)

    async def files(self, container_id: str, *, fresh: bool = False) -> Listing[RemoteFile]:
        """The files of a container.

        Raises:
            NotFound, Expired: The container is gone.
            FileSystemError: The server failed, and there is no earlier listing to serve.
        """
        return await self._files.get(container_id, nursery=self._nursery, fresh=fresh)

    def first_files(self, container_id: str) -> Arrival[RemoteFile] | None:
        """The first listing of a container that there is, on its way; None where one is known."""
        return self._files.first(container_id, nursery=self._nursery)

    def fresh_files(self, container_id: str) -> Listing[RemoteFile] | None:
        """The container's listing if it is believed now: what `files` would return at once."""
        return self._files.fresh(container_id)

    def fresh_containers(self) -> Listing[Container] | None:
        """The list of containers if it is believed now."""
        return self._containers.fresh(ROOT)

    def newest_files(self, container_id: str) -> tuple[RemoteFile, ...]:
        """The container's last listing, believed or not."""
        return self._files.newest(container_id)

    def corrected(
        self, container_id: str, listed: tuple[RemoteFile, ...]
    ) -> tuple[RemoteFile, ...]:
        """*listed* with what was changed here until now."""
        return self._files.overlay(container_id).over(listed)

    def touched(self, container_id: str) -> Collection[str]:
        """The ids of files of which what the server lists is not all: they were changed here."""
        return self._files.overlay(container_id).changed

    def is_listed(self, container_id: str, file_id: str) -> bool:
        """Whether the server's own list is believed to hold it, where it was created here."""
        return file_id not in self._files.overlay(container_id).created

    def last_files(self, container_id: str) -> tuple[RemoteFile, ...]:
        """What the container held when it was last listed, however long ago that is."""
        return self._state.files_listing(container_id) or ()

    # Our own changes.

    def learn_container(self, container: Container) -> None:
        """*container* was created here: show it from now on."""
        self._learn(self._containers, ROOT, container)

    def forget_container(self, container_id: str) -> None:
        """The container was deleted here: hide it, however long the server lists it."""
        self._containers.overlay(ROOT).delete(container_id)
        self._forget_creation(self._containers, ROOT, container_id)
        with not_remembered(self._state):
            self._state.add_tombstone(ROOT, container_id)
        self._files.forget(container_id)

    def learn(self, file: RemoteFile) -> None:
        """*file* was uploaded here, or rewritten under its id: show it from now on."""
        overlay = self._files.overlay(file.container_id)
        self._learn(self._files, file.container_id, file)
        if overlay.deleted.pop(file.id, None) is not None:
            overlay.unlisted.discard(file.id)
            with not_remembered(self._state):
                self._state.forget_tombstones(file.container_id, [file.id])

    def forget(self, container_id: str, file_id: str, *, is_new: bool = False) -> None:
        """The file was deleted here: hide it, however long the server lists it.

        Args:
            is_new: It was uploaded here, and `learn` was never told: it may be listed later.
        """
        self._files.overlay(container_id).delete(file_id, is_new=is_new)
        self._forget_creation(self._files, container_id, file_id)
        with not_remembered(self._state):
            self._state.add_tombstone(container_id, file_id)

    def keep(self, file: RemoteFile) -> None:
        """Show *file* until `let_go` or `forget`, also where it is not listed any more."""
        self._files.overlay(file.container_id).kept[file.id] = file

    def let_go(self, file: RemoteFile) -> None:
        """*file* is shown as it is listed again."""
        self._files.overlay(file.container_id).kept.pop(file.id, None)

    def hide(self, container_id: str, file_id: str) -> None:
        """The server listed the file and did not know it: hide it for a while.

        Not for good: it may have been a passing fault.
        """
        overlay = self._files.overlay(container_id)
        self._forget_creation(self._files, container_id, file_id)
        overlay.missing[file_id] = trio.current_time() + MISSING_LIFE

    def _learn(self, listings: Listings[EntryT], key: str, entry: EntryT) -> None:
        """*entry* was made here; the next mount shows it, too, until it is listed."""
        listings.overlay(key).created[entry.id] = (entry, trio.current_time())
        with not_remembered(self._state):
            self._state.add_creation(key, entry, at=time.time())

    def _forget_creation(self, listings: Listings[EntryT], key: str, id: str) -> None:
        """What of it is recorded goes in any case: an earlier time may have come to nothing."""
        listings.overlay(key).created.pop(id, None)
        with not_remembered(self._state):
            self._state.forget_creations(key, [id])

    def save(self) -> None:
        """Keep what is known for the next mount; called when the mount stops."""
        self._containers.save()
        self._files.save()
