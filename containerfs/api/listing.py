"""Whole lists, page by page.

A page is asked for by the `last_id` of the one before it. Servers send empty pages that claim more,
repeat a cursor, or ignore it and send page 1 for ever: a list ends when the server says so, or when
a page brings nothing new or its cursor leads nowhere. Entries may come and go meanwhile: each id is
given once, and a list is read anew when the entry that a page was to follow is gone.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Protocol, TypeVar

from containerfs.api.client import Client
from containerfs.api.types import Container, Page, RemoteFile
from containerfs.errors import Invalid, NotFound, ServerFault

log = logging.getLogger(__name__)

PAGE = 100  # entries, the most the service grants
MOST_PAGES = 5000  # half a million entries; a list that goes on is taken for an endless one

MOST_STARTS = 4  # a list is read anew when the entry that a page was to follow has been deleted


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


class _CursorGoneError(Invalid):
    """The entry that a page was to follow has been deleted meanwhile."""


T = TypeVar("T", bound=_HasId)


Fetch = Callable[[str | None], Awaitable[Page[T]]]


async def all_containers(client: Client, *, name: str | None = None) -> tuple[Container, ...]:
    """Every container, newest first, each once.

    Args:
        name: Only containers that the server takes to be of this name.

    Raises:
        ServerFault: The list does not end.
    """
    return await entries(lambda after: client.list_containers(limit=PAGE, after=after, name=name))


async def all_files(client: Client, container_id: str) -> tuple[RemoteFile, ...]:
    """Every file of a container, newest first, each once.

    Raises:
        ServerFault: The list does not end.
    """
    return await entries(lambda after: client.list_files(container_id, limit=PAGE, after=after))


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
    budget = count(1)
    for _ in range(MOST_STARTS - 1):
        try:
            return await _walk(fetch, after, most, budget)
        except _CursorGoneError as exc:
            log.info("a list is read anew: %s", exc)
    return await _walk(fetch, after, most, budget)


async def _walk(
    fetch: Fetch[T], start: str | None, most: int | None, budget: Iterator[int]
) -> tuple[T, ...]:
    found: dict[str, T] = {}
    after = start
    cursors = {start}
    while most is None or len(found) < most:
        if next(budget) > MOST_PAGES:
            raise ServerFault(f"a list does not end after {MOST_PAGES} pages")
        try:
            page = await fetch(after)
        except (Invalid, NotFound) as exc:
            if after == start:
                raise
            raise _CursorGoneError(str(exc)) from exc
        known = len(found)
        for entry in page.data:
            found.setdefault(entry.id, entry)
        after = page.last_id
        is_stuck = after in cursors or (bool(page.data) and len(found) == known)
        if not page.has_more or after is None or is_stuck:
            break
        cursors.add(after)
    return tuple(found.values())[:most]
