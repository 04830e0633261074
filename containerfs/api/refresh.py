"""A list read anew, quicker than the first time.

Where the pages of the last reading ended is known, so all pages are asked for at once. What came
since is before the first of them; what went leaves the pages where they are. Each page must reach
the beginning of another one; where it does not, because its end was deleted or much is new, it is
walked on until it does.
"""

from collections.abc import Container, Mapping, Sequence
from itertools import count, pairwise
from typing import TypeVar

import trio

from containerfs.api.client import Client
from containerfs.api.listing import PAGE, Tell, all_files
from containerfs.api.types import Page, RemoteFile
from containerfs.api.walk import CursorGoneError, Entry, Fetch, Walk
from containerfs.errors import FileSystemError, Invalid, NotFound

WORTHWHILE = 3 * PAGE  # entries; shorter lists are read as quickly from both ends
PIECE = 10_000  # entries of a long list that are looked at before others have their turn

T = TypeVar("T", bound=Entry)


async def files_again(
    client: Client,
    container_id: str,
    last: Sequence[RemoteFile],
    *,
    tell: Tell[RemoteFile] | None = None,
) -> tuple[RemoteFile, ...]:
    """Every file of a container, newest first, each once; what has not changed is the same object.

    Args:
        last: What an earlier reading found, newest first; empty when there was none.
        tell: As for `both_ends`; not told where the earlier reading makes this one short.

    Raises:
        ServerFault: The list does not end.
    """
    known = await _by_id(last)
    if len(last) > WORTHWHILE:
        try:
            return await read_again(
                lambda after: client.list_files(container_id, limit=PAGE, after=after, known=known),
                last,
            )
        except CursorGoneError:
            pass  # it changes while it is read: both ends have a way with that
    return await all_files(client, container_id, known=known, tell=tell)


async def new_files(
    client: Client, container_id: str, last: Sequence[RemoteFile], *, own: Container[str]
) -> tuple[RemoteFile, ...] | None:
    """*last* with what the newest page of the list shows to be new, changed or gone.

    Args:
        last: What is known, newest first.
        own: The ids of what was made here, and may not have been listed yet.

    Returns:
        None where the page does not reach what is known, and only the whole list can tell.
    """
    known = await _by_id(last)
    page = await client.list_files(container_id, limit=PAGE, known=known)
    return with_newest(page, last, known=known, own=own)


def with_newest(
    page: Page[T], last: Sequence[T], *, known: Mapping[str, T], own: Container[str]
) -> tuple[T, ...] | None:
    """*last* with what *page*, the newest of the list, shows; see `new_files`.

    All that is newer than its end is on the page. Within that second the order is the server's
    secret, and so it is where the page is not in the order of time: then nothing is gone.
    """
    newest = {entry.id: entry for entry in page.data}
    if not page.has_more:
        return tuple(newest.values())
    if not newest:
        return None
    *_, end = newest.values()
    is_joined = any(known.get(id) is entry for id, entry in newest.items()) or end.id in own
    if not is_joined:
        return None
    times = [entry.created for entry in newest.values()]
    is_falling = all(before >= after for before, after in pairwise(times))
    older = (
        entry
        for entry in last
        if entry.id not in newest and (not is_falling or entry.created <= end.created)
    )
    return (*newest.values(), *older)


async def _by_id(files: Sequence[RemoteFile]) -> dict[str, RemoteFile]:
    found: dict[str, RemoteFile] = {}
    for start in range(0, len(files), PIECE):
        found.update((file.id, file) for file in files[start : start + PIECE])
        await trio.lowlevel.checkpoint()
    return found


async def read_again(fetch: Fetch[T], last: Sequence[T]) -> tuple[T, ...]:
    """A whole list, in the server's order, each entry once.

    Args:
        fetch: Asks for the page that follows an id, or for the first.
        last: What an earlier reading found, in the same order.

    Raises:
        CursorGoneError: An entry was deleted while it served as a cursor.
        ServerFault: The list does not end.
    """
    numbers = count(1)
    starts: list[str | None] = [None, *(entry.id for entry in last[PAGE - 1 :: PAGE])]
    walks = {start: Walk(fetch, start=start, pages=numbers) for start in starts}
    failures: list[FileSystemError | CursorGoneError] = []

    async def begin(start: str | None) -> None:
        try:
            await walks[start].step()
        except (Invalid, NotFound) as exc:
            if start is None:
                failures.append(exc)
            else:
                del walks[start]  # it has been deleted since: the page before is walked on
        except (FileSystemError, CursorGoneError) as exc:
            failures.append(exc)

    async with trio.open_nursery() as nursery:
        for start in starts:
            nursery.start_soon(begin, start)
    if failures:
        raise failures[0]
    return await _joined(walks, starts)


async def _joined(walks: dict[str | None, Walk[T]], starts: list[str | None]) -> tuple[T, ...]:
    """The pages in one piece: each is followed by the one that begins where it ends."""
    found: dict[str, T] = {}
    begun = [start for start in starts if start in walks]
    places = {start: place for place, start in enumerate(begun)}
    place = 0
    while place < len(begun):
        walk = walks[begun[place]]
        while (reached := _furthest(walk, places)) <= place and not walk.is_over:
            await walk.step()
        for id, entry in walk.found.items():
            found.setdefault(id, entry)
        if walk.is_over:
            break
        place = reached
        await trio.lowlevel.checkpoint()
    return tuple(found.values())


def _furthest(walk: Walk[T], places: Mapping[str | None, int]) -> int:
    """The last of the places whose beginning *walk* has come past."""
    return max((places[id] for id in walk.found if id in places), default=-1)
