"""Whole lists, as they are at one moment or during a few.

A list of more than one page is walked from both ends at once, and half the round trips are saved.
Entries may come and go meanwhile: each id is given once, what existed all the time is never left
out, and a list is read anew when the entry that a page was to follow is gone.
"""

import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Generic, TypeVar

import trio

from containerfs.api.client import Client, Order
from containerfs.api.types import Container, Page, RemoteFile
from containerfs.api.walk import CursorGoneError, Entry, Fetch, Walk, have_met
from containerfs.errors import FileSystemError, ServerFault

log = logging.getLogger(__name__)

PAGE = 100  # entries, the most the service grants
MOST_STARTS = 4  # how often a list is begun when its cursors vanish

T = TypeVar("T", bound=Entry)
FetchEnd = Callable[[Order, str | None], Awaitable[Page[T]]]
Attempt = Callable[[Iterator[int]], Awaitable[tuple[T, ...]]]
Tell = Callable[[Sequence[T]], None]


async def all_containers(client: Client, *, name: str | None = None) -> tuple[Container, ...]:
    """Every container, newest first, each once.

    Args:
        name: Only containers that the server takes to be of this name.

    Raises:
        ServerFault: The list does not end.
    """
    return await both_ends(
        lambda order, after: client.list_containers(limit=PAGE, order=order, after=after, name=name)
    )


async def all_files(
    client: Client,
    container_id: str,
    *,
    known: Mapping[str, RemoteFile] | None = None,
    tell: Tell[RemoteFile] | None = None,
) -> tuple[RemoteFile, ...]:
    """Every file of a container, newest first, each once.

    Args:
        known: As for `Client.list_files`.
        tell: As for `both_ends`.

    Raises:
        ServerFault: The list does not end.
    """
    return await both_ends(
        lambda order, after: client.list_files(
            container_id, limit=PAGE, order=order, after=after, known=known
        ),
        tell=tell,
    )


async def entries(
    fetch: Fetch[T], *, after: str | None = None, most: int | None = None
) -> tuple[T, ...]:
    """What a list has from a cursor on, in its order, each entry once.

    Args:
        fetch: Asks for the page that follows an id, or for the first.
        after: Where to begin; None for the start.
        most: How many are wanted; no page is asked for beyond them.

    Raises:
        ServerFault: The list does not end.
        Invalid: The server does not know the cursor *after*.
    """

    async def attempt(pages: Iterator[int]) -> tuple[T, ...]:
        walk = Walk(fetch, start=after, pages=pages)
        while not walk.is_over and (most is None or len(walk.found) < most):
            await walk.step()
        return tuple(walk.found.values())[:most]

    return await _begun_anew(attempt)


async def both_ends(fetch: FetchEnd[T], *, tell: Tell[T] | None = None) -> tuple[T, ...]:
    """A whole list, newest first, each entry once; walked from both ends if it has several pages.

    Args:
        fetch: Asks for the page that follows an id in an order, or for that order's first.
        tell: Told of entries while others are still to come, the newest first: of one that no
            entry still to come is newer than, or as new as. A list that is begun anew is told
            anew, and what is told can be gone in the end. It must not wait.

    Raises:
        ServerFault: The list does not end.
    """

    async def attempt(pages: Iterator[int]) -> tuple[T, ...]:
        newest = Walk(lambda after: fetch("desc", after), start=None, pages=pages)
        telling = Telling(newest, tell)
        await newest.step()
        if newest.is_over:
            return tuple(newest.found.values())
        oldest = Walk(lambda after: fetch("asc", after), start=None, pages=pages)
        return await _walked(newest, oldest, telling)

    return await _begun_anew(attempt)


class Telling(Generic[T]):
    """Tells of what a walk from the newest entry has found, as soon as that is certain.

    Within one second the order of entries is the server's secret: the latest second of the walk
    may go on in its next page.
    """

    def __init__(self, walk: Walk[T], tell: Tell[T] | None) -> None:
        self._walk = walk
        self._tell = tell
        self._held: list[T] = []

    def tell_soon(self, nursery: trio.Nursery) -> None:
        """Look at the page that has just been added, while the next one is under way."""
        last = self._walk.last
        if self._tell is None or last is None or not self._walk.is_falling:
            return
        self._held += self._walk.added
        certain = bisect_left(self._held, -last.created, key=lambda entry: -entry.created)
        if certain:
            nursery.start_soon(self._tell_all, self._tell, self._held[:certain])
            del self._held[:certain]

    async def _tell_all(self, tell: Tell[T], entries: list[T]) -> None:
        tell(entries)


async def _walked(newest: Walk[T], oldest: Walk[T], telling: Telling[T]) -> tuple[T, ...]:
    failures: list[FileSystemError | CursorGoneError] = []

    async def walk_newest() -> None:
        try:
            while not newest.is_over and not have_met(newest, oldest):
                telling.tell_soon(nursery)
                await newest.step()
        except (FileSystemError, CursorGoneError) as exc:
            failures.append(exc)
        nursery.cancel_scope.cancel()

    async def walk_oldest() -> None:
        # The other end is a whole listing by itself; this one only makes it quicker, and steps
        # aside where the server fails, repeats itself, or does not know the order it was asked for.
        try:
            while not oldest.is_over and oldest.is_rising and not have_met(newest, oldest):
                await oldest.step()
        except (FileSystemError, CursorGoneError) as exc:
            log.debug("a list is read from one end only: %s", exc)
            return
        if oldest.is_rising and (oldest.is_complete or not oldest.is_over):
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk_newest)
        nursery.start_soon(walk_oldest)
    if failures:
        raise failures[0]
    return _joined(newest, oldest)


def _joined(newest: Walk[T], oldest: Walk[T]) -> tuple[T, ...]:
    if newest.is_over:
        return tuple(newest.found.values())
    # Where both have an entry, the place that the walk from the newest gave it holds, and what
    # the one from the oldest says of it.
    found = [oldest.found.get(id, entry) for id, entry in newest.found.items()]
    found += [entry for id, entry in reversed(oldest.found.items()) if id not in newest.found]
    return tuple(found)


async def _begun_anew(attempt: Attempt[T]) -> tuple[T, ...]:
    pages = count(1)
    for _ in range(MOST_STARTS):
        try:
            return await attempt(pages)
        except CursorGoneError as exc:
            log.info("a list is read anew: %s", exc)
    raise ServerFault(f"a list changed under each of {MOST_STARTS} readings")
