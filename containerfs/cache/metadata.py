"""What the server last listed, believed for a time to live, corrected by our own changes.

A listing is fetched once for all who ask at the same time, and by nobody who did not ask. What
was created here is added to it (overlay) and what was deleted here is left out of it
(tombstones) for as long as the server's own listing lags behind. A server that does not answer
is replaced by its last listing.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

import cachetools
import trio

from containerfs.api.client import Client
from containerfs.api.listing import all_containers
from containerfs.api.refresh import files_again
from containerfs.api.types import Container, RemoteFile
from containerfs.cache.state import State
from containerfs.errors import FileSystemError, LocalFault, NoSpace, NotFound, ServerFault

log = logging.getLogger(__name__)

OVERLAY_LIFE = 300.0  # how long an object created here is shown without the server listing it
MOST_ASKED = 16  # of those, how many the server is asked about at each listing
MISSING_LIFE = 300.0  # how long an object is hidden that is listed and answers 404
LONG = 1.0  # seconds that a listing takes before it counts as a long one
LONG_LIFE = 10.0  # times what it took: how long a long listing is believed
LONGEST_LIFE = 60.0  # seconds
STALE_GRACE = 2.0  # age of a refresh after which who waits for it is served a stale listing
LATE_GRACE = 0.2  # the same, as long as the server has answered nobody since
STALE_LIFE = 5.0  # how long a stale listing is served before the server is asked again
SAVE_AT_ONCE = 2_000  # entries; longer listings are saved when the mount stops

ROOT = ""  # the key of the list of containers
EntryT = TypeVar("EntryT", Container, RemoteFile)


@contextmanager
def not_remembered() -> Iterator[None]:
    """Go on where our own disk fails inside: what is known now holds, the next mount asks anew."""
    try:
        yield
    except (NoSpace, LocalFault) as exc:
        log.warning("a listing is not kept for the next mount: %s", exc)


@dataclass(frozen=True, slots=True, eq=False)
class Listing(Generic[EntryT]):
    """What a container (or the account) held; a new object for each answer of the server."""

    entries: tuple[EntryT, ...]
    expires: float  # trio's clock; believed until then


@dataclass(slots=True)
class _Changes(Generic[EntryT]):
    """Our own changes that a listing may not show yet."""

    created: dict[str, tuple[EntryT, float]] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)

    def overlay(self, listed: tuple[EntryT, ...]) -> tuple[EntryT, ...]:
        """*listed* as it is with our changes."""
        now = trio.current_time()
        self.missing = {id: until for id, until in self.missing.items() if until > now}
        if not self.created and not self.deleted and not self.missing:
            return listed
        own = tuple(entry for entry, _ in self.created.values())
        changed = self.created.keys() | self.deleted.keys() | self.missing.keys()
        return own + tuple(entry for entry in listed if entry.id not in changed)

    def settle(self, listed: tuple[EntryT, ...], *, begun: float) -> list[str]:
        """Forget the changes that the server's answer to a request of *begun* confirms.

        Returns:
            The ids whose deletion is done.
        """
        ids = {entry.id for entry in listed}
        for id, (_, since) in list(self.created.items()):
            if (id in ids and since < begun) or begun - since > OVERLAY_LIFE:
                del self.created[id]
        gone = [id for id, since in self.deleted.items() if since < begun and id not in ids]
        for id in gone:
            del self.deleted[id]
        return gone


def life(ttl: float, *, took: float) -> float:
    """Seconds for which a listing is believed, from when it was asked for.

    One that takes long is believed longer than the *ttl*: reading it must not fill all the time
    that there is. What others change in so large a container is seen within a minute.
    """
    return ttl if took < LONG else max(ttl, min(LONG_LIFE * took, LONGEST_LIFE))


class _Source(Generic[EntryT]):
    """One kind of listing: how it is asked for, remembered and changed."""

    def __init__(
        self,
        *,
        fetch: Callable[[str, tuple[EntryT, ...]], Awaitable[tuple[EntryT, ...]]],
        recall: Callable[[str], tuple[EntryT, ...] | None],
        state: State,
        ttl: float,
        capacity: int,
    ) -> None:
        self._fetch: Callable[[str, tuple[EntryT, ...]], Awaitable[tuple[EntryT, ...]]] = fetch
        self._recall: Callable[[str], tuple[EntryT, ...] | None] = recall
        self._state = state
        self._ttl = ttl
        self._fresh: cachetools.TLRUCache[str, Listing[EntryT]] = cachetools.TLRUCache(
            maxsize=capacity,
            ttu=lambda _key, listing, _now: listing.expires,
            timer=trio.current_time,
        )
        self._last: dict[str, Listing[EntryT]] = {}
        self._last_number: dict[str, int] = {}
        self._numbers = count(1)
        self._is_late = False  # the server did not answer in time, and has not since
        self._unsaved: set[str] = set()
        self._fetching: dict[str, _Fetch[EntryT]] = {}
        self._changes: dict[str, _Changes[EntryT]] = {}

    def changes(self, key: str) -> _Changes[EntryT]:
        return self._changes.setdefault(key, _Changes())

    def fresh(self, key: str) -> Listing[EntryT] | None:
        return self._fresh.get(key)

    def forget(self, key: str) -> None:
        self._fresh.pop(key, None)

    async def get(self, key: str, *, nursery: trio.Nursery, fresh: bool) -> Listing[EntryT]:
        known = None if fresh else self._fresh.get(key)
        if known is not None:
            return known
        fetch = self._fetching.get(key)
        if fetch is None or fresh:
            fetch = self._fetching[key] = _Fetch(next(self._numbers))
            nursery.start_soon(self._run, key, fetch)
        if fresh:
            await fetch.done.wait()
            return fetch.result()
        return await self._wait(key, fetch)

    async def _wait(self, key: str, fetch: "_Fetch[EntryT]") -> Listing[EntryT]:
        has_last = self._last_known(key) is not None
        grace = LATE_GRACE if self._is_late else STALE_GRACE
        with trio.move_on_at(fetch.begun + grace if has_last else math.inf):
            await fetch.done.wait()
        if not has_last or (fetch.done.is_set() and fetch.error is None):
            return fetch.result()
        if fetch.error is not None and not _is_no_answer(fetch.error):
            return fetch.result()
        return self._fresh.get(key) or self._stale(key, fetch)

    def _stale(self, key: str, fetch: "_Fetch[EntryT]") -> Listing[EntryT]:
        log.warning(
            "serving a stale listing of %s: %s",
            key or "the containers",
            fetch.error or "the server takes long",
        )
        self._is_late = True
        entries = self.changes(key).overlay(self._last[key].entries)
        stale = Listing(entries, trio.current_time() + min(self._ttl, STALE_LIFE))
        self._last[key] = self._fresh[key] = stale
        return stale

    def _last_known(self, key: str) -> Listing[EntryT] | None:
        if key not in self._last:
            entries = self._recall(key)
            if entries is None:
                return None
            self._last[key] = Listing(entries, 0.0)
        return self._last[key]

    async def _run(self, key: str, fetch: "_Fetch[EntryT]") -> None:
        begun = trio.current_time()
        try:
            last = self._last.get(key)
            listed = await self._fetch(key, () if last is None else last.entries)
            fetch.listing = self._take(key, fetch, listed, begun=begun)
        except FileSystemError as exc:
            fetch.error = exc
        except Exception as exc:
            log.exception("listing %s failed", key or "the containers")
            fetch.error = FileSystemError(f"internal error: {exc}")
        finally:
            if self._fetching.get(key) is fetch:
                del self._fetching[key]
            fetch.done.set()

    def _take(
        self, key: str, fetch: "_Fetch[EntryT]", listed: tuple[EntryT, ...], *, begun: float
    ) -> Listing[EntryT]:
        """What is known now that *listed* came; an answer that was overtaken changes nothing."""
        if fetch.number < self._last_number.get(key, 0):
            return self._last[key]
        self._is_late = False
        self._last_number[key] = fetch.number
        changes = self.changes(key)
        deleted = changes.settle(listed, begun=begun)
        if deleted:
            with not_remembered():
                self._state.forget_tombstones(key, deleted)
        took = trio.current_time() - begun
        listing = Listing(changes.overlay(listed), begun + life(self._ttl, took=took))
        self._remember(key, listing)
        return listing

    def _remember(self, key: str, listing: Listing[EntryT]) -> None:
        before = self._last.get(key)
        self._last[key] = self._fresh[key] = listing
        if before is not None and before.entries == listing.entries:
            return
        self._unsaved.add(key)
        if len(listing.entries) <= SAVE_AT_ONCE:
            with not_remembered():
                self._state.save_listing(key, listing.entries)
                self._unsaved.discard(key)

    def save(self) -> None:
        """Save what was not saved at each change, and what was changed here since."""
        for key in self._unsaved | self._changes.keys():
            last = self._last_known(key)
            entries = self.changes(key).overlay(() if last is None else last.entries)
            with not_remembered():
                self._state.save_listing(key, entries)
        self._unsaved.clear()


def _is_no_answer(error: FileSystemError) -> bool:
    """Whether the server failed, so that what it said before still holds."""
    return error.retriable or isinstance(error, ServerFault)


class _Fetch(Generic[EntryT]):
    """A listing on its way, waited for by any number of tasks; numbered as they were begun."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.begun = trio.current_time()
        self.done = trio.Event()
        self.listing: Listing[EntryT] | None = None
        self.error: FileSystemError | None = None

    def result(self) -> Listing[EntryT]:
        if self.error is not None:
            raise type(self.error)(str(self.error), retriable=self.error.retriable) from self.error
        assert self.listing is not None  # noqa: S101 - done without error means there is a listing
        return self.listing


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
        self._containers: _Source[Container] = _Source(
            fetch=self._fetch_containers,
            recall=lambda _: state.containers_listing(),
            state=state,
            ttl=ttl,
            capacity=1,
        )
        self._files: _Source[RemoteFile] = _Source(
            fetch=self._fetch_files,
            recall=state.files_listing,
            state=state,
            ttl=ttl,
            capacity=capacity,
        )
        now = trio.current_time()
        for container_id, id in state.tombstones():
            source = self._containers if container_id == ROOT else self._files
            source.changes(container_id).deleted[id] = now

    async def _fetch_containers(self, _: str, last: tuple[Container, ...]) -> tuple[Container, ...]:
        return await all_containers(self._client)

    async def _fetch_files(
        self, container_id: str, last: tuple[RemoteFile, ...]
    ) -> tuple[RemoteFile, ...]:
        begun = trio.current_time()
        listed = await files_again(self._client, container_id, last)
        await self._confirm_unlisted(container_id, listed, begun=begun)
        return listed

    async def _confirm_unlisted(
        self, container_id: str, listed: tuple[RemoteFile, ...], *, begun: float
    ) -> None:
        """Ask for what was made here and is not listed: the list lags, or somebody deleted it."""
        created = self._files.changes(container_id).created
        ids = {file.id for file in listed}
        unlisted = [id for id, (_, since) in created.items() if since < begun and id not in ids]
        for id in unlisted[:MOST_ASKED]:
            try:
                await self._client.retrieve_file(container_id, id)
            except NotFound:
                created.pop(id, None)
            except FileSystemError as exc:
                log.info("whether file %s is there is not known: %s", id, exc)
                return

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

    def fresh_files(self, container_id: str) -> Listing[RemoteFile] | None:
        """The container's listing if it is believed now: what `files` would return at once."""
        return self._files.fresh(container_id)

    def fresh_containers(self) -> Listing[Container] | None:
        """The list of containers if it is believed now."""
        return self._containers.fresh(ROOT)

    def corrected(
        self, container_id: str, listed: tuple[RemoteFile, ...]
    ) -> tuple[RemoteFile, ...]:
        """*listed* with what was changed here until now."""
        return self._files.changes(container_id).overlay(listed)

    def last_files(self, container_id: str) -> tuple[RemoteFile, ...]:
        """What the container held when it was last listed, however long ago that is."""
        return self._state.files_listing(container_id) or ()

    # Our own changes.

    def learn_container(self, container: Container) -> None:
        """*container* was created here: show it from now on."""
        self._containers.changes(ROOT).created[container.id] = (container, trio.current_time())

    def forget_container(self, container_id: str) -> None:
        """The container was deleted here: hide it, however long the server lists it."""
        changes = self._containers.changes(ROOT)
        changes.created.pop(container_id, None)
        changes.deleted[container_id] = trio.current_time()
        with not_remembered():
            self._state.add_tombstone(ROOT, container_id)
        self._files.forget(container_id)

    def learn(self, file: RemoteFile) -> None:
        """*file* was uploaded here, or rewritten under its id: show it from now on."""
        changes = self._files.changes(file.container_id)
        changes.created[file.id] = (file, trio.current_time())
        if changes.deleted.pop(file.id, None) is not None:
            with not_remembered():
                self._state.forget_tombstones(file.container_id, [file.id])

    def forget(self, container_id: str, file_id: str) -> None:
        """The file was deleted here: hide it, however long the server lists it."""
        changes = self._files.changes(container_id)
        changes.created.pop(file_id, None)
        changes.deleted[file_id] = trio.current_time()
        with not_remembered():
            self._state.add_tombstone(container_id, file_id)

    def hide(self, container_id: str, file_id: str) -> None:
        """The server listed the file and did not know it: hide it for a while.

        Not for good: it may have been a passing fault.
        """
        changes = self._files.changes(container_id)
        changes.created.pop(file_id, None)
        changes.missing[file_id] = trio.current_time() + MISSING_LIFE

    def save(self) -> None:
        """Keep what is known for the next mount; called when the mount stops."""
        self._containers.save()
        self._files.save()
